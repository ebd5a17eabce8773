//! Membership: this process among the others that share a home ensemble.
//!
//! A [`Membership`] keeps the member's card in `members/`, stands for election in `leader/` when it
//! is asked to, and tells who else is there. It owns a session of its own, which lives across
//! connections, and the task behind it. Being first in the queue is not leading: a member that lost
//! its session does not know so at once. Who is first asks [`Membership::confirm_first`] and then
//! raises the epoch in the store, which has the last word.

mod keeper;
mod watches;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::keeper::Keeper;
use super::contender::in_order;
use super::error::ZooKeeperError;
use super::registry::{Member, MemberCard, read_card};
use super::session::Session;
use super::settings::SettingsSource;
use crate::clock::Clock;
use crate::vigil::Vigil;

/// How long [`Membership::leave`] may take; the servers answer within milliseconds or not at all.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a membership starts from.
pub struct MembershipParts {
    /// How the home ensemble is reached.
    pub settings: SettingsSource,
    /// The znode under which everything of flowkeeper's is kept, `/flowkeeper` for example.
    pub root: Arc<str>,
    /// What the other members are told.
    pub card: MemberCard,
    /// For the time since when there is no session.
    pub clock: Clock,
}

/// Where this member stands in the election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There was no session yet.
    Connecting,
    /// The connection is gone, or none could be opened; attempts go on. The member may still be in
    /// the queue, or even first.
    Disconnected {
        /// Since when there is none.
        since: Timestamp,
        /// What the latest attempt said.
        reason: String,
    },
    /// The servers refuse this member, or the settings cannot be used; attempts go on.
    Refused {
        /// Why.
        reason: String,
    },
    /// Another one is first, or nobody, or this member does not stand.
    Standby {
        /// Who is first.
        leader: Option<String>,
    },
    /// This member was first when it last looked.
    First,
}

/// A handle on this process's membership. Cheap to clone.
#[derive(Clone)]
pub struct Membership(Arc<Shared>);

struct Shared {
    root: Arc<str>,
    standing: watch::Sender<Standing>,
    members: watch::Sender<Arc<Vec<Member>>>,
    card: watch::Sender<MemberCard>,
    wish: watch::Sender<Wish>,
    candidacy: RwLock<Option<Candidacy>>,
    /// Cancelled when the member is to leave.
    leaving: CancellationToken,
    /// Cancelled when it has left.
    left: CancellationToken,
    vigil: Vigil,
}

/// What this process wants of the election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Wish {
    stands: bool,
    /// How often it withdrew. Its place before a withdrawal is none that it wants, even if it stands
    /// again by the time that anybody looks.
    withdrawals: u64,
}

/// How to recognise this member in the queue, now.
#[derive(Clone)]
struct Candidacy {
    session: Session,
    guid: Arc<str>,
    withdrawals: u64,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("standing", &*self.0.standing.borrow()).finish_non_exhaustive()
    }
}

impl Membership {
    /// Starts to connect, and takes part until `shutdown` or [`Self::leave`]. It does not stand for
    /// election yet.
    pub fn start(parts: MembershipParts, shutdown: CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            root: parts.root,
            standing: watch::Sender::new(Standing::Connecting),
            members: watch::Sender::default(),
            card: watch::Sender::new(parts.card),
            wish: watch::Sender::default(),
            candidacy: RwLock::default(),
            leaving: CancellationToken::new(),
            left: CancellationToken::new(),
            vigil: Vigil::default(),
        });
        let keeper = Keeper::new(Arc::clone(&shared), parts.settings, parts.clock);
        let left = shared.left.clone().drop_guard();
        shared.vigil.clone().spawn(async move {
            let _left = left;
            keeper.run(shutdown).await;
        });
        Self(shared)
    }

    /// Watches over the task behind it: should that panic, nothing here is true any more.
    pub fn vigil(&self) -> Vigil {
        self.0.vigil.clone()
    }

    /// Where this member stands, now and from now on.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }

    /// The live members, this one among them, in the order of their ids. While there is no session
    /// they are those that were there last.
    pub fn members(&self) -> watch::Receiver<Arc<Vec<Member>>> {
        self.0.members.subscribe()
    }

    /// Asks the servers whether this member is first in the queue now, and wants to be. An error
    /// leaves it open.
    pub async fn confirm_first(&self) -> Result<bool, ZooKeeperError> {
        let candidacy = self.0.candidacy.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(candidacy) = candidacy else {
            return Err(ZooKeeperError::Unknown("there is no session with ZooKeeper".to_owned()));
        };
        let wanted = Wish { stands: true, withdrawals: candidacy.withdrawals };
        if *self.0.wish.borrow() != wanted {
            return Ok(false);
        }
        let read = async {
            candidacy.session.sync().await?;
            candidacy.session.get_children(&self.0.queue_path()).await
        };
        let Some((children, _)) = read.await.inspect_err(|error| {
            if error.ends_session() {
                candidacy.session.give_up();
            }
        })?
        else {
            return Ok(false);
        };
        let queue = in_order(children.iter().map(String::as_str));
        Ok(queue.first().is_some_and(|first| first.is_of(&candidacy.guid)) && *self.0.wish.borrow() == wanted)
    }

    /// Stands for election, or withdraws at once. Who withdraws and stands again is last.
    pub fn stand(&self, wish: bool) {
        self.0.wish.send_if_modified(|standing| {
            let changed = standing.stands != wish;
            standing.stands = wish;
            standing.withdrawals += u64::from(changed && !wish);
            changed
        });
        if !wish {
            // Who reads the standing from now on does not see what was before.
            self.0.standing.send_if_modified(|standing| {
                let first = *standing == Standing::First;
                if first {
                    *standing = Standing::Standby { leader: None };
                }
                first
            });
        }
    }

    /// Changes what the other members are told. The id stays.
    pub fn update(&self, change: impl FnOnce(&mut MemberCard)) {
        self.0.card.send_modify(|card| {
            let id = card.id.clone();
            change(card);
            card.id = id;
        });
    }

    /// Withdraws, and ends the session with everything that it owns. Returns after two seconds at
    /// most; where the servers could not be told, they notice when the session times out.
    pub async fn leave(&self) {
        self.0.leaving.cancel();
        if tokio::time::timeout(LEAVE_TIMEOUT, self.0.left.cancelled()).await.is_err() {
            tracing::warn!("ZooKeeper does not answer, so the other members notice later that this one has left");
        }
    }
}

/// The live members below `root`, in the order of their ids, for those who take no part.
pub async fn read_members(session: &Session, root: &str) -> Result<Vec<Member>, ZooKeeperError> {
    let path = below(root, "members");
    // Nobody has ever been a member where there is no such znode.
    let Some((mut ids, _)) = session.get_children(&path).await? else { return Ok(Vec::new()) };
    ids.sort_unstable();
    let queue = below(root, "leader");
    let contenders = session.get_children(&queue).await?.map(|(names, _)| names).unwrap_or_default();
    let first = match in_order(contenders.iter().map(String::as_str)).first() {
        Some(first) => session.get_data(&below(&queue, &first.name)).await?.map(|(data, _)| data),
        None => None,
    };
    let cards = join_all(ids.iter().map(|id| session.get_data(&below(&path, id)))).await;
    let mut members = Vec::with_capacity(ids.len());
    for (id, card) in ids.iter().zip(cards) {
        // It may have left since.
        if let Some(card) = card?.and_then(|(data, _)| read_card(id, &data)) {
            let leads = first.as_deref() == Some(card.id.as_bytes());
            members.push(Member { card, leads });
        }
    }
    Ok(members)
}

impl Shared {
    fn queue_path(&self) -> String {
        below(&self.root, "leader")
    }

    fn members_path(&self) -> String {
        below(&self.root, "members")
    }
}

/// The path of a child.
fn below(parent: &str, child: &str) -> String {
    format!("{}/{child}", parent.trim_end_matches('/'))
}
