//! The one history of ledger and ensemble under a network that fails, a leader that was replaced, and
//! znodes that somebody has touched: no alarm without a reason, and none missed.

use std::sync::Arc;
use std::time::Duration;

use flowkeeper::clock::Clock;
use flowkeeper::domain::lineage::{Break, StoreNode};
use flowkeeper::store::{Leadership, Ledger};
use flowkeeper::triggers::lineage::{Keeper, Lineage, Standing, TwoHistories};
use flowkeeper::zookeeper::{Ensemble, Settings};
use tokio_util::sync::CancellationToken;
use zookeeper_client::{Acl, AuthId, Client, Permission};

use crate::support::proxy::{CREATE, Proxy, SET_DATA};
use crate::support::world::wait_for;
use crate::support::zookeeper::{SESSION_TIMEOUT, ZooKeeperServer, create, delete, set};

/// A ledger, and a keeper of its history with the ensemble behind a proxy.
struct Keeping {
    root: &'static str,
    ledger: Ledger,
    leadership: Leadership,
    lineage: Lineage,
    ensemble: Ensemble,
    proxy: Proxy,
    zk: Client,
    shutdown: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Keeping {
    async fn start(server: &ZooKeeperServer, root: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the ledger");
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&url, Clock::system()).await.expect("the ledger opens");
        let leadership = ledger.take_lead("test").await.expect("the lead is free");
        let proxy = Proxy::start(&server.connect()).await;
        let shutdown = CancellationToken::new();
        let settings =
            Settings { connect: proxy.connect(), session_timeout: SESSION_TIMEOUT, auth: None, tls: None, sasl: None };
        let ensemble = Ensemble::start(None, Arc::new(move || Ok(settings.clone())), Clock::system(), shutdown.clone());
        let keeping = Self {
            root,
            lineage: Lineage::home(&format!("{root}/store")),
            ledger,
            leadership,
            ensemble,
            proxy,
            zk: server.client().await,
            shutdown,
            _directory: directory,
        };
        keeping.keep(&keeping.leadership);
        keeping
    }

    /// Starts a keeper that has taken the lead so.
    fn keep(&self, leadership: &Leadership) -> tokio::task::JoinHandle<()> {
        let parts = (self.lineage.clone(), self.ensemble.clone(), self.ledger.clone(), leadership.clone());
        let keeper = Keeper::new(parts.0, parts.1, parts.2, parts.3);
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            // A newer leader ends it.
            drop(keeper.run(shutdown).await);
        })
    }

    fn standing(&self) -> Standing {
        self.lineage.standing().borrow().clone()
    }

    /// Waits until the keeper has found one history since it was asked to look again.
    async fn one_history(&self) {
        wait_for(
            || async { matches!(self.standing(), Standing::One { .. }).then_some(()) },
            || format!("{:?}", self.standing()),
        )
        .await;
    }

    /// Waits until the znode holds the mark of the ledger, the ledger knows it, and it is above `than`.
    async fn settled_above(&self, than: i64) -> i64 {
        let settled = || async {
            let memory = self.ledger.lineage(None).await.ok()?;
            let (data, _) = self.zk.get_data(&format!("{}/store", self.root)).await.ok()?;
            let node = StoreNode::parse(&data).ok()?;
            let noted = memory.confirmed.is_some_and(|held| held.mark == node.mark);
            let ours = node.mark == memory.mark && node.store_id == self.ledger.store_id();
            (noted && ours && node.mark > than).then_some(node.mark)
        };
        wait_for(settled, || format!("ledger and znode do not meet: {:?}", self.standing())).await
    }

    fn broken(&self) -> Option<Break> {
        match self.standing() {
            Standing::Two(two) => Some(two.broken.clone()),
            _ => None,
        }
    }

    async fn two_histories(&self) -> Arc<TwoHistories> {
        let two = || async {
            match self.standing() {
                Standing::Two(two) => Some(two),
                _ => None,
            }
        };
        wait_for(two, || format!("{:?}", self.standing())).await
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn lost_answers_and_cut_connections_raise_no_alarm() {
    let server = ZooKeeperServer::shared().await;
    let keeping = Keeping::start(server, "/lineage-faults").await;
    // No answer to the creation, and then none to the first raise.
    keeping.proxy.lose_answer_to(CREATE);
    let mark = keeping.settled_above(0).await;
    let mut standing = keeping.lineage.standing();
    for round in 0..40 {
        match round % 4 {
            0 => keeping.proxy.lose_answer_to(SET_DATA),
            1 => keeping.proxy.cut(),
            2 => {
                keeping.proxy.refuse(true);
                tokio::time::sleep(Duration::from_millis(5)).await;
                keeping.proxy.refuse(false);
            }
            _ => {}
        }
        keeping.lineage.look_again();
        tokio::time::sleep(Duration::from_millis(round * 3 % 50)).await;
        assert!(!matches!(*standing.borrow_and_update(), Standing::Two(_)), "round {round}: {:?}", keeping.standing());
    }
    keeping.lineage.look_again();
    keeping.one_history().await;
    keeping.settled_above(mark).await;
}

#[tokio::test]
async fn two_keepers_at_once_do_not_confuse_each_other() {
    let server = ZooKeeperServer::shared().await;
    let keeping = Keeping::start(server, "/lineage-two").await;
    keeping.settled_above(0).await;
    // Both hold the lead that the ledger accepts, so that only the znode's version stands between them.
    keeping.keep(&keeping.leadership);
    for _ in 0..50 {
        keeping.lineage.look_again();
        keeping.lineage.look_again();
        tokio::time::sleep(Duration::from_millis(4)).await;
        assert!(!matches!(keeping.standing(), Standing::Two(_)), "{:?}", keeping.standing());
    }
    keeping.settled_above(0).await;
    // A newer leader: the old ones end at their next write, and have harmed nothing.
    let newer = keeping.ledger.take_lead("another").await.expect("the lead is taken");
    keeping.lineage.look_again();
    wait_for(|| async { keeping.leadership.lost().is_cancelled().then_some(()) }, || "not refused".to_owned()).await;
    keeping.keep(&newer);
    keeping.one_history().await;
    keeping.settled_above(0).await;
}

#[tokio::test]
async fn a_znode_that_somebody_has_touched_is_noticed() {
    let server = ZooKeeperServer::shared().await;
    let keeping = Keeping::start(server, "/lineage-touched").await;
    let mark = keeping.settled_above(0).await;
    let path = "/lineage-touched/store";
    let (good, _) = keeping.zk.get_data(path).await.expect("the znode is there");

    set(&keeping.zk, path, b"rubbish").await;
    keeping.lineage.look_again();
    let two = keeping.two_histories().await;
    assert!(matches!(two.broken, Break::Unreadable { .. }) && two.message.contains(path), "{}", two.message);
    assert!(two.hint.contains("flowkeeper adopt --ignore"), "{}", two.hint);

    // Put right, it goes on by itself.
    set(&keeping.zk, path, &good).await;
    keeping.lineage.look_again();
    keeping.one_history().await;
    keeping.settled_above(mark).await;

    let (copied, _) = keeping.zk.get_data(path).await.expect("the znode is there");
    delete(&keeping.zk, path).await;
    keeping.lineage.look_again();
    assert_eq!(keeping.two_histories().await.broken, Break::Missing);
    create(&keeping.zk, path, &copied).await;
    keeping.lineage.look_again();
    wait_for(
        || async { matches!(keeping.broken(), Some(Break::Recreated(_))).then_some(()) },
        || format!("{:?}", keeping.standing()),
    )
    .await;
}

#[tokio::test]
async fn what_may_not_be_read_is_not_known_and_no_reason_to_go_on() {
    let server = ZooKeeperServer::shared().await;
    let keeping = Keeping::start(server, "/lineage-forbidden").await;
    keeping.settled_above(0).await;
    let path = "/lineage-forbidden/store";
    let admin_only = [Acl::new(Permission::ADMIN, AuthId::anyone())];
    keeping.zk.set_acl(path, &admin_only, None).await.expect("the list is set");
    keeping.lineage.look_again();
    let reason = || async {
        match keeping.standing() {
            Standing::Unchecked { reason } => reason,
            _ => None,
        }
    };
    let reason = wait_for(reason, || format!("{:?}", keeping.standing())).await;
    assert!(reason.contains(path) && reason.contains("permission"), "{reason}");
    keeping.zk.set_acl(path, &[Acl::new(Permission::ALL, AuthId::anyone())], None).await.expect("the list is set");
    keeping.one_history().await;
}
