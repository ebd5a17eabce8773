//! The rounds, around a server that says little and a ledger that is away for a while.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{self, Environment};
use crate::domain::ensemble::EnsembleEvent;
use crate::domain::health::{Quorum, Thresholds};
use crate::domain::run::RunState;
use crate::zookeeper::Settings;

const SRVR: &str = "Zookeeper version: 3.8.4-abc, built on 2024-02-12 22:16 UTC\nLatency min/avg/max: 0/0.0/0\n\
                    Received: 1\nSent: 1\nConnections: 1\nOutstanding: 0\nZxid: 0x1\nMode: standalone\nNode count: 5\n";

/// Allows `srvr` alone.
async fn serve() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut word = [0; 4];
            if connection.read_exact(&mut word).await.is_ok() {
                let word = String::from_utf8_lossy(&word);
                let refused = format!("{word} is not executed because it is not in the whitelist.");
                let answer = if word == "srvr" { SRVR.to_owned() } else { refused };
                connection.write_all(answer.as_bytes()).await.ok();
            }
        }
    });
    (server, serving)
}

#[derive(Clone, Default)]
struct Somebody(Arc<AtomicBool>);

impl NetworkWitness for Somebody {
    async fn answers(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Rounds over one server, with a schedule that listens to it.
struct Scene {
    _directory: tempfile::TempDir,
    url: String,
    ledger: Ledger,
    leadership: Leadership,
    status: Status,
    latest: Latest,
    schedule: Arc<Schedule>,
    witness: Somebody,
    rounds: JoinHandle<Result<(), StoreError>>,
}

impl Scene {
    async fn start(server: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("flowkeeper.toml");
        let text = "[ensemble.main]\nconnect = \"zk1:2181\"\n[airflow.main]\nurl = \"http://127.0.0.1:1\"\n[[schedule]]\n\
                    name = \"a\"\ndag = \"d\"\nensemble = { name = \"main\", on = [\"quorum_lost\"] }\n";
        std::fs::write(&file, text).unwrap();
        let schedule = Arc::clone(&config::check(&file, &Environment::default()).unwrap().0.schedules[0]);
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let clock = Clock::system();
        let ledger = Ledger::open(&url, clock.clone()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let settings = Settings {
            connect: server.to_owned(),
            session_timeout: Duration::from_secs(4),
            auth: None,
            tls: None,
            sasl: None,
        };
        let settings = Arc::new(move || Ok(settings.clone()));
        let target = Target::new("main".into(), settings, Thresholds::default());
        let (status, latest, witness) = (Status::new(), Latest::default(), Somebody::default());
        let rounds = tokio::spawn(run(Parts {
            target: Arc::new(target),
            interval: Duration::from_secs(1),
            ledger: ledger.clone(),
            leadership: leadership.clone(),
            schedules: watch::Sender::new(Arc::new(vec![Arc::clone(&schedule)])).subscribe(),
            gates: watch::Sender::new(Gates::default()).subscribe(),
            status: status.clone(),
            witness: witness.clone(),
            latest: latest.clone(),
            clock,
        }));
        Self { _directory: directory, url, ledger, leadership, status, latest, schedule, witness, rounds }
    }

    async fn until(&self, what: &str, mut is_so: impl AsyncFnMut(&Self) -> bool) {
        for _ in 0..600 {
            if is_so(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{what}: {:?}", self.latest.subscribe().borrow());
    }

    async fn is_armed(&self) {
        self.until("it is looked at", async |scene| scene.status.is_armed(&scene.schedule.name)).await;
    }

    fn seen(&self) -> Option<(Timestamp, Option<Quorum>)> {
        let latest = self.latest.subscribe();
        let latest = latest.borrow();
        latest.get("main").map(|inspection| (inspection.began, inspection.report.quorum))
    }

    async fn transitions(&self) -> Vec<Transition> {
        self.ledger.transitions(Some("main"), 9, None).await.unwrap().items
    }

    async fn has_told(&self) {
        self.until("it is told", async |scene| !scene.transitions().await.is_empty()).await;
    }

    async fn end(self) {
        self.leadership.give_up();
        self.rounds.await.unwrap().unwrap();
        assert!(!self.status.is_armed(&self.schedule.name));
        assert!(self.latest.subscribe().borrow().is_empty(), "nobody shows what nobody looks at");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_while_the_ledger_is_away_is_recorded_when_it_is_back() {
    let (server, serving) = serve().await;
    let scene = Scene::start(&server).await;
    scene.is_armed().await;
    assert_eq!(scene.seen().unwrap().1, Some(Quorum::Held));

    // Another process holds the file for longer than a write waits for it.
    let mut other = sqlx::AnyConnection::connect(&scene.url).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    serving.abort();
    scene.until("it is published all the same", async |scene| scene.seen().unwrap().1 == Some(Quorum::Lost)).await;
    let gone = scene.seen().unwrap().0;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(scene.seen().unwrap().0 > gone, "looks go on");
    assert_eq!(scene.transitions().await, [], "and nothing is told that the ledger does not have");
    let away_until = Clock::system().now();
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();

    scene.has_told().await;
    let transitions = scene.transitions().await;
    assert_eq!(transitions[0].events[0].event, EnsembleEvent::QuorumLost);
    assert!(transitions[0].at < away_until, "at its own time");
    let id = format!("flowkeeper__a__e{}-main", transitions[0].at.as_microsecond());
    let run = scene.ledger.run(&id).await.unwrap().expect("it has its run");
    assert_eq!(run.state, RunState::Pending);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.transitions().await.len(), 1, "once");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_out_of_sight_is_gone_only_if_the_network_is_not() {
    let scene = Scene::start("nowhere.invalid:2181").await;
    scene.is_armed().await;
    scene.until("it says so", async |scene| scene.status.trouble(&scene.schedule.name).is_some()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.transitions().await, []);
    scene.witness.0.store(true, Ordering::SeqCst);
    scene.has_told().await;
    assert!(scene.transitions().await[0].events.iter().any(|one| one.event == EnsembleEvent::QuorumLost));
    scene.until("nothing is in its way", async |scene| scene.status.trouble(&scene.schedule.name).is_none()).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_replaced_ends_its_rounds() {
    let (server, _serving) = serve().await;
    let scene = Scene::start(&server).await;
    scene.is_armed().await;
    scene.ledger.take_lead("another").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), scene.rounds).await.unwrap().unwrap();
    assert!(matches!(ended, Ok(()) | Err(StoreError::Fenced { .. })), "{ended:?}");
}

#[tokio::test]
async fn looks_wait_in_order_and_not_without_end() {
    let waiting = Waiting::default();
    let look = |number: i64| Look {
        report: Arc::new(Inspection {
            began: Timestamp::from_second(number).unwrap(),
            took: Duration::ZERO,
            report: Report::new("main".into(), Vec::new()),
        }),
        at: Timestamp::from_second(number).unwrap(),
        network_works: true,
    };
    let most = i64::try_from(WAITING_MAX).unwrap();
    for number in 0..most {
        assert!(!waiting.push(look(number)));
    }
    assert!(waiting.push(look(most)), "the oldest makes room");
    for number in 1..=most {
        assert_eq!(waiting.next().await.at.as_second(), number);
    }
}
