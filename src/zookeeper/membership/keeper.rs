//! The task behind a membership: connects, looks, takes the next step, waits.
//!
//! It assumes nothing about what a broken connection did. Every look reads who queues and who is
//! there, and compares that with what this member wants; a request whose answer was lost shows its
//! effect in the next look, which comes after a `sync` if there was a new connection between.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::watches::Watches;
use super::{Candidacy, Shared, Standing, Wish, below};
use crate::clock::{Clock, boot_time};
use crate::zookeeper::connect::{Failure, Pauses, STABLE_AFTER};
use crate::zookeeper::contender::{Contender, LATCH, in_order, prefix};
use crate::zookeeper::election::{Candidate, Seat, Step, next_step};
use crate::zookeeper::error::ZooKeeperError;
use crate::zookeeper::lasting::{Connection, LastingSession};
use crate::zookeeper::registry::{Member, MemberCard, read_card, same_place, write_card};
use crate::zookeeper::session::{Lifetime, Session};
use crate::zookeeper::settings::SettingsSource;

/// How often a member looks without being told to, at least four times in a session's life. It
/// finds what a lost watch kept quiet.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the cards of members are read that have not come or gone.
const CARDS_INTERVAL: Duration = Duration::from_secs(2);

/// How often in a row a step may follow another before the member waits for the next look.
const STEPS_MAX: usize = 20;

/// Any version of a znode's data.
const ANY_VERSION: i32 = -1;

/// What was tried on which znode, and why it failed.
struct Trouble {
    action: &'static str,
    path: String,
    error: ZooKeeperError,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "failed to {} the znode {}: {}", self.action, self.path, self.error)
    }
}

/// Tells what was tried, for errors.
fn tried(action: &'static str, path: &str) -> impl Fn(ZooKeeperError) -> Trouble {
    let path = path.to_owned();
    move |error| Trouble { action, path: path.clone(), error }
}

/// Why a connection is no longer served.
enum End {
    Leaving,
    Lost(String),
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    lasting: LastingSession,
    clock: Clock,
    wish: watch::Receiver<Wish>,
    card: watch::Receiver<MemberCard>,
    id: String,
    guid: Arc<str>,
    withdrawals: u64,
    first_look: bool,
    /// Whose the znodes in the queue are; nobody changes that.
    participants: HashMap<String, Option<String>>,
    /// Znodes in the queue that it may not delete.
    kept: HashSet<String>,
    cards: HashMap<String, MemberCard>,
    cards_read: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, settings: SettingsSource, clock: Clock) -> Self {
        let (wish, card) = (shared.wish.subscribe(), shared.card.subscribe());
        let id = card.borrow().id.clone();
        Self {
            shared,
            lasting: LastingSession::new(settings),
            clock,
            wish,
            card,
            id,
            guid: new_guid(),
            withdrawals: 0,
            first_look: true,
            participants: HashMap::new(),
            kept: HashSet::new(),
            cards: HashMap::new(),
            cards_read: None,
        }
    }

    /// Takes part until the member is to leave, or the process to end.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let leaving = self.shared.leaving.clone();
        let mut taking_part = std::pin::pin!(self.take_part());
        tokio::select! {
            () = shutdown.cancelled() => {
                leaving.cancel();
                taking_part.await;
            }
            () = &mut taking_part => {}
        }
    }

    async fn take_part(mut self) {
        let mut pauses = Pauses::new();
        let leaving = self.shared.leaving.clone();
        loop {
            let attempt = tokio::select! {
                () = leaving.cancelled() => break,
                attempt = self.lasting.connect() => attempt,
            };
            match attempt {
                Ok(mut connection) => {
                    let connected = Instant::now();
                    let end = self.serve(&mut connection).await;
                    *self.shared.candidacy.write().unwrap_or_else(PoisonError::into_inner) = None;
                    let reason = match end {
                        End::Lost(reason) => reason,
                        End::Leaving => {
                            let confirmed = connection.close().await;
                            info!(member.id = self.id, confirmed, "left the home ensemble");
                            break;
                        }
                    };
                    connection.session.close();
                    drop(connection);
                    self.report(&Failure::lost(reason));
                    if connected.elapsed() >= STABLE_AFTER {
                        pauses = Pauses::new();
                        continue;
                    }
                }
                // A new session follows at once.
                Err(failure @ Failure::Expired) => {
                    self.report(&failure);
                    continue;
                }
                Err(failure) => self.report(&failure),
            }
            let pause = pauses.next();
            tokio::select! {
                () = leaving.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        let since = self.clock.now();
        self.shared.standing.send_replace(Standing::Disconnected { since, reason: "this member has left".to_owned() });
    }

    /// Takes part through one connection, for as long as it lasts.
    async fn serve(&mut self, connection: &mut Connection) -> End {
        if connection.begins {
            info!(member.id = self.id, "opened a session with ZooKeeper to take part with");
            self.guid = new_guid();
            self.kept.clear();
        } else {
            debug!(member.id = self.id, "took up the session with ZooKeeper again");
        }
        let (session, timeout) = (connection.session.clone(), connection.timeout);
        let mut settings = connection.settings.clone();
        let leaving = self.shared.leaving.clone();
        tokio::select! {
            biased;
            () = leaving.cancelled() => End::Leaving,
            reason = connection.lost() => End::Lost(reason),
            reason = self.attend(&session, timeout) => End::Lost(reason),
            () = settings.outdated() => End::Lost("the settings have changed".to_owned()),
        }
    }

    /// Looks again and again; ends with the reason why that makes no sense any more.
    async fn attend(&mut self, session: &Session, timeout: Duration) -> String {
        let mut watches = Watches::new();
        let mut tick = tokio::time::interval(LOOK_INTERVAL.min(timeout / 4));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.cards_read = None;
        let mut registered = self.register(session).await;
        loop {
            let heard = boot_time();
            let looked = match registered {
                Ok(()) => self.look(session, &mut watches).await,
                Err(trouble) => Err(trouble),
            };
            match looked {
                Ok(standing) => {
                    self.first_look = false;
                    self.publish(standing);
                }
                Err(trouble) if trouble.error.ends_session() => return trouble.to_string(),
                Err(trouble) => self.refused(&trouble.to_string(), trouble.error.hint()),
            }
            registered = tokio::select! {
                _ = tick.tick() => Ok(()),
                () = watches.fired() => Ok(()),
                Ok(()) = self.wish.changed() => Ok(()),
                Ok(()) = self.card.changed() => self.register(session).await,
            };
            // The process, or the machine, slept through it; no timer of the client shows that.
            if boot_time().saturating_sub(heard) > timeout {
                return format!("nothing was heard of the servers for more than {timeout:?}");
            }
        }
    }

    /// Reads everything, takes the steps that follow from it, and tells where that leads.
    async fn look(&mut self, session: &Session, watches: &mut Watches) -> Result<Standing, Trouble> {
        let wish = *self.wish.borrow_and_update();
        if wish.withdrawals != self.withdrawals {
            self.withdrawals = wish.withdrawals;
            self.guid = new_guid();
        }
        let candidacy =
            Candidacy { session: session.clone(), guid: Arc::clone(&self.guid), withdrawals: self.withdrawals };
        *self.shared.candidacy.write().unwrap_or_else(PoisonError::into_inner) = Some(candidacy);
        let (queue, first) = self.take_place(session, watches, wish.stands).await?;
        let leader = queue.first().and_then(|seat| seat.member.clone());
        self.meet_members(session, watches, leader.as_deref()).await?;
        Ok(if first { Standing::First } else { Standing::Standby { leader } })
    }

    /// Takes steps until there is nothing to do but to wait; the queue then, and whether this member
    /// is first in it.
    async fn take_place(
        &mut self,
        session: &Session,
        watches: &mut Watches,
        stands: bool,
    ) -> Result<(Vec<Seat>, bool), Trouble> {
        let parent = self.shared.queue_path();
        let mut queue = Vec::new();
        for _ in 0..STEPS_MAX {
            queue = self.read_queue(session, &parent).await?;
            let candidate = Candidate { id: &self.id, guid: &self.guid, stands, first_look: self.first_look };
            let step = next_step(&queue, candidate, |name| self.kept.contains(name));
            debug!(member.id = self.id, ?step, contenders = queue.len(), "looked at the queue");
            match step {
                Step::Delete(names) => self.delete(session, &parent, names).await?,
                Step::Enter => {
                    let path = below(&parent, &prefix(&self.guid, LATCH));
                    let made = session.create_sequential(&path, self.id.as_bytes(), Lifetime::Ephemeral).await;
                    made.map_err(tried("make", &path))?;
                }
                Step::StandAside => {
                    watches.keep_only(&[&self.shared.members_path()]);
                    return Ok((queue, false));
                }
                Step::Lead(ref name) | Step::Follow(ref name) => {
                    let path = below(&parent, name);
                    watches.keep_only(&[&self.shared.members_path(), &path]);
                    if watches.is_set(&path) {
                        return Ok((queue, matches!(step, Step::Lead(_))));
                    }
                    let (exists, fires) = session.exists_and_watch(&path).await.map_err(tried("watch", &path))?;
                    if exists {
                        watches.listen(path, fires);
                        return Ok((queue, matches!(step, Step::Lead(_))));
                    }
                }
            }
        }
        debug!(member.id = self.id, "the queue does not come to rest");
        Ok((queue, false))
    }

    async fn read_queue(&mut self, session: &Session, parent: &str) -> Result<Vec<Seat>, Trouble> {
        let Some((children, _)) = session.get_children(parent).await.map_err(tried("list", parent))? else {
            session.make_path(parent).await.map_err(tried("make", parent))?;
            return Ok(Vec::new());
        };
        let contenders = in_order(children.iter().map(String::as_str));
        self.participants.retain(|name, _| contenders.iter().any(|contender| contender.name == *name));
        let unknown: Vec<_> =
            contenders.iter().filter(|contender| !self.participants.contains_key(&contender.name)).collect();
        let answers = unknown.iter().map(|contender| session.get_data(&below(parent, &contender.name)));
        for (contender, answer) in unknown.iter().zip(join_all(answers).await) {
            let member = match answer {
                Ok(Some((data, _))) => String::from_utf8(data).ok().filter(|id| !id.is_empty()),
                // It left between the two requests, or keeps its id to itself.
                Ok(None) | Err(ZooKeeperError::NoPermission) => None,
                Err(error) => return Err(tried("read", &below(parent, &contender.name))(error)),
            };
            self.participants.insert(contender.name.clone(), member);
        }
        let seat = |contender: Contender| {
            let member = self.participants.get(&contender.name).cloned().flatten();
            Seat { contender, member }
        };
        Ok(contenders.into_iter().map(seat).collect())
    }

    async fn delete(&mut self, session: &Session, parent: &str, names: Vec<String>) -> Result<(), Trouble> {
        let answers = names.iter().map(|name| session.delete(&below(parent, name), ANY_VERSION));
        for (name, answer) in names.iter().zip(join_all(answers).await) {
            match answer {
                Ok(deleted) => debug!(member.id = self.id, znode = name, deleted, "left a place in the queue"),
                Err(ZooKeeperError::NoPermission) => {
                    warn!(
                        member.id = self.id,
                        znode = name,
                        "an earlier place of this member in the queue cannot be deleted, waiting until its session ends"
                    );
                    self.kept.insert(name.clone());
                }
                Err(error) => return Err(tried("delete", &below(parent, name))(error)),
            }
        }
        Ok(())
    }

    /// Makes sure that this member's card is there, is this session's, and says what it should.
    async fn register(&mut self, session: &Session) -> Result<(), Trouble> {
        let data = write_card(&self.card.borrow_and_update());
        let parent = self.shared.members_path();
        let path = below(&parent, &self.id);
        self.cards_read = None;
        for _ in 0..STEPS_MAX {
            match session.owns(&path).await.map_err(tried("look at", &path))? {
                Some(true) => {
                    if session.set_data(&path, &data, None).await.map_err(tried("write", &path))?.is_some() {
                        return Ok(());
                    }
                }
                // A session of this process that has ended made it, and it is about to go.
                Some(false) => {
                    session.delete(&path, ANY_VERSION).await.map_err(tried("delete", &path))?;
                }
                None => match session.create(&path, &data, Lifetime::Ephemeral).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(ZooKeeperError::NoParent) => {
                        session.make_path(&parent).await.map_err(tried("make", &parent))?;
                    }
                    Err(error) => return Err(tried("make", &path)(error)),
                },
            }
        }
        Err(tried("make", &path)(ZooKeeperError::Refused("somebody else makes and deletes it".to_owned())))
    }

    /// Reads who is there, and sees that this member is.
    async fn meet_members(
        &mut self,
        session: &Session,
        watches: &mut Watches,
        leader: Option<&str>,
    ) -> Result<(), Trouble> {
        let parent = self.shared.members_path();
        let list = tried("list", &parent);
        let listed = if watches.is_set(&parent) {
            session.get_children(&parent).await.map_err(list)?.map(|(names, _)| names)
        } else {
            let listed = session.get_children_and_watch(&parent).await.map_err(list)?;
            listed.map(|(names, fires)| {
                watches.listen(parent.clone(), fires);
                names
            })
        };
        let mut names = listed.unwrap_or_default();
        names.sort_unstable();
        if self.first_look {
            let (gone, live) = names.into_iter().partition(|name| *name != self.id && same_place(name, &self.id));
            names = live;
            self.forget_last_life(session, &parent, gone).await?;
        }
        if !names.contains(&self.id) {
            self.register(session).await?;
        }
        let all = self.cards_read.is_none_or(|read| read.elapsed() >= CARDS_INTERVAL);
        self.cards.retain(|name, _| !all && names.contains(name));
        let unread: Vec<_> = names.iter().filter(|name| !self.cards.contains_key(*name)).collect();
        let answers = unread.iter().map(|name| session.get_data(&below(&parent, name)));
        for (name, answer) in unread.iter().zip(join_all(answers).await) {
            match answer {
                Ok(Some((data, _))) => {
                    if let Some(card) = read_card(name, &data) {
                        self.cards.insert((*name).clone(), card);
                    } else {
                        debug!(member.id = *name, "a member's card makes no sense");
                    }
                }
                Ok(None) | Err(ZooKeeperError::NoPermission) => {}
                Err(error) => return Err(tried("read", &below(&parent, name))(error)),
            }
        }
        if all {
            self.cards_read = Some(Instant::now());
        }
        let members = names.iter().filter_map(|name| self.cards.get(name).cloned());
        let members: Vec<_> = members.map(|card| Member { leads: leader == Some(card.id.as_str()), card }).collect();
        self.shared.members.send_if_modified(|known| {
            let changed = **known != members;
            if changed {
                *known = Arc::new(members);
            }
            changed
        });
        Ok(())
    }

    /// Deletes the cards of earlier processes at this place; those that it must not delete go when
    /// their sessions end.
    async fn forget_last_life(&self, session: &Session, parent: &str, ids: Vec<String>) -> Result<(), Trouble> {
        for id in ids {
            let path = below(parent, &id);
            match session.delete(&path, ANY_VERSION).await {
                Ok(_) => {
                    info!(member.id = self.id, last = id, "the last process at this place left its card, deleted it");
                }
                Err(ZooKeeperError::NoPermission) => debug!(last = id, "the card of the last process stays for now"),
                Err(error) => return Err(tried("delete", &path)(error)),
            }
        }
        Ok(())
    }

    /// Tells the standing, and the log when it is news.
    fn publish(&self, standing: Standing) {
        // Somebody who withdrew a moment ago must not read that this member is first.
        if standing == Standing::First && self.wish.has_changed().unwrap_or(false) {
            return;
        }
        self.shared.standing.send_if_modified(|known| {
            let changed = *known != standing;
            if changed {
                match &standing {
                    Standing::First => info!(member.id = self.id, "this member is first in the queue for the lead"),
                    Standing::Standby { leader } => info!(member.id = self.id, leader, "this member stands by"),
                    Standing::Connecting | Standing::Disconnected { .. } | Standing::Refused { .. } => {}
                }
                *known = standing;
            }
            changed
        });
    }

    /// Tells that this member cannot take part, and the log when it is news.
    fn refused(&self, reason: &str, hint: &str) {
        let refused = Standing::Refused { reason: reason.to_owned() };
        self.shared.standing.send_if_modified(|known| {
            let changed = *known != refused;
            if changed {
                warn!(member.id = self.id, reason, hint, "this member cannot take part, trying again every second");
                *known = refused;
            }
            changed
        });
    }

    /// Tells that there is no connection, and the log when it is news.
    fn report(&self, failure: &Failure) {
        let (reason, hint) = (failure.to_string(), failure.hint());
        if let Failure::Refused { .. } = failure {
            self.refused(&reason, hint);
            return;
        }
        let now = self.clock.now();
        self.shared.standing.send_modify(|known| {
            let since = if let Standing::Disconnected { since, .. } = known {
                *since
            } else {
                warn!(
                    member.id = self.id,
                    reason, hint, "no connection with ZooKeeper to take part with, trying again"
                );
                now
            };
            *known = Standing::Disconnected { since, reason };
        });
    }
}

fn new_guid() -> Arc<str> {
    Uuid::new_v4().to_string().into()
}
