//! The loop of one znode trigger: waits, reads, hands over to the ledger.
//!
//! ```text
//! hints of the watch ─┐
//!                     ├─▶ reads, answered in order ─▶ judged one by one ─▶ ledger, in order
//! looks (plan) ───────┘
//! ```
//! Requests go out in one order and come back in it, so the cursors in memory only move forward.
//! They are the truth for judging the next read; the ledger follows, and whatever it has not
//! written when the process dies is found again by the first look of the next one.
//!
//! A look happens when a session begins, when a pause ends, when too much happened to name it, and
//! every few minutes. Hints wait until the first look of a session has shown that the ensemble has
//! the history that the cursors belong to; nothing fires before. What an answer means is decided in
//! `judging`.

mod judging;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::announce::Armed;
use super::decide::{CatchUp, Fired, Rules, Sight, Withheld};
use super::scan::{Cursors, Known, ParentMove, Snapshot, look, plan};
use super::settle::{Batch, DEFAULT_LIMIT, Settling};
use super::writes::{Writes, Written};
use super::{End, Ended, ZnodeTriggerError, ZnodeTriggerParts};
use crate::clock::sleep_until;
use crate::domain::lineage::Adopt;
use crate::domain::schedule::{Initial, WatchScope, ZnodeTrigger};
use crate::domain::znode::{ZnodeStat, ZnodeVersion};
use crate::metrics;
use crate::store::model::{CursorMove, Recording};
use crate::store::patience::answer_while_leading;
use crate::store::{StoreError, ZnodeProgress};
use crate::triggers::gate::{Gate, Gates};
use crate::triggers::lineage::Standing;
use crate::zookeeper::{Interest, Session, Subscription, ZooKeeperError};

/// The most reads under way.
const READS_MAX: usize = 512;

/// What the reads under way may bring in together, judged by the size of recent ones.
const READS_BYTES: usize = 32 << 20;

/// The most writes under way. The ledger groups what arrives together.
const RECORDS_MAX: usize = 1024;

/// The most changes in one write.
const RECORDING_MAX: usize = 256;

/// How often everything is compared although nothing hinted at it, and by how much more at most, so
/// that triggers do not look all at once.
const LOOK_INTERVAL: Duration = Duration::from_mins(5);
const LOOK_JITTER_MS: u64 = 60_000;

/// How often everything is compared where no watch can be set.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a trigger that is edited may take to compare everything once more. What it does not get to,
/// its successor compares, where both watch the same place.
const LAST_LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// When to look again after a look was refused.
const RETRY_LOOK_AFTER: Duration = Duration::from_secs(5);

type Answer = Result<Option<(Vec<u8>, ZnodeStat)>, ZooKeeperError>;

/// What comes out of the row of reads.
enum Read {
    Znode {
        path: Arc<str>,
        planned: bool,
        answer: Answer,
    },
    /// All that the latest look planned has come before.
    PassDone,
}

/// One look and the reads that it planned.
struct Pass {
    parent: Option<ParentMove>,
    clean: Option<ZnodeVersion>,
    highest_zxid: i64,
    problem: Option<String>,
    marked: bool,
}

/// A look that is under way.
struct Look {
    /// Whether it is the one that proves the history.
    fresh: bool,
    answer: BoxFuture<'static, Result<Option<Snapshot>, ZooKeeperError>>,
}

enum Event {
    Stop,
    Leave,
    LeaveNow,
    Gate,
    Standing,
    Hinted,
    Looked(Result<Option<Snapshot>, ZooKeeperError>),
    Read(Read),
    Written(Result<Written, StoreError>),
    BatchDue,
    LookDue,
}

pub(super) struct Watcher {
    parts: ZnodeTriggerParts,
    rules: Rules,
    label: String,
    gate: Gate,
    standing: watch::Receiver<Standing>,
    subscription: Subscription,
    cursors: Cursors,
    /// The highest zxid of the trigger's first look, once that is complete.
    initialized: Option<i64>,
    /// The session that is followed, and the last one that turned out useless.
    session: Option<Session>,
    lost_session: u64,
    watched: bool,
    look: Option<Look>,
    next_look_at: Instant,
    /// More was hinted at than could be named, since the latest look began.
    look_again: bool,
    /// Whether hints may be read.
    following: bool,
    queue: VecDeque<Arc<str>>,
    /// Those that the first look found and whose first answer has still to be judged, whether the look or a
    /// hint asked for it.
    unseen: HashSet<Arc<str>>,
    pass: Option<Pass>,
    /// The watched znode as a parent, when all its children were last handled.
    clean: Option<ZnodeVersion>,
    catch_up: Option<CatchUp>,
    reads: FuturesOrdered<BoxFuture<'static, Read>>,
    largest_read_bytes: usize,
    writes: Writes,
    settling: Option<Settling>,
    batch: Batch<Fired, CursorMove>,
    /// Changes that get a row and no DAG run, gathered into few rows.
    withheld: Vec<(Fired, Withheld, CursorMove)>,
    /// Until when the last comparison may take, since this trigger is edited.
    leaves_by: Option<Instant>,
    /// The highest zxid of all complete looks.
    seen_zxid: i64,
}

impl Watcher {
    /// Reads how far the trigger has got. `generation` is that of the ensemble.
    pub(super) async fn open(
        parts: ZnodeTriggerParts,
        mut trigger: ZnodeTrigger,
        generation: u32,
    ) -> Result<Self, ZnodeTriggerError> {
        let name = parts.schedule.name.clone();
        let what = format!("how far {name} has got");
        let known = answer_while_leading(&parts.leadership, &what, || parts.ledger.znode_progress(&name));
        let ZnodeProgress { state, cursors } = known.await.unwrap_or(Err(StoreError::Closed))?;
        match state.as_ref().and_then(|state| state.first_look) {
            Some(Adopt::Fire) => trigger.initial = Initial::Fire,
            Some(Adopt::Ignore) => trigger.initial = Initial::Ignore,
            None => {}
        }
        let edited_after = state.as_ref().and_then(|state| state.znode_after);
        let initialized = state.and_then(|state| state.znode_initialized);
        if trigger.initial == Initial::Ignore
            && initialized.is_none()
            && let Some(zxid) = edited_after
        {
            trigger.initial = Initial::AfterZxid(zxid);
        }
        let interest = match trigger.watch {
            WatchScope::Node => Interest::Node,
            WatchScope::Children => Interest::Children,
            WatchScope::Subtree => Interest::Subtree,
        };
        let settling = trigger.settle.map(|quiet| Settling {
            quiet,
            max: trigger.settle_max,
            limit: trigger.batch.unwrap_or(DEFAULT_LIMIT).max(1),
        });
        let mut standing = parts.lineage.standing();
        // What was said while the cursors were read is not to be missed.
        standing.mark_changed();
        let rules = Rules::new(Arc::clone(&parts.schedule), trigger, generation, parts.own_root.as_ref());
        // Where an edit has left cursors behind, they may be of znodes that are of no interest any more.
        let is_wanted = |path: &str| rules.wants(path) || path == &*rules.trigger.path;
        let (cursors, unwanted): (Vec<_>, Vec<_>) = cursors.into_iter().partition(|cursor| is_wanted(&cursor.path));
        let mut watcher = Self {
            writes: Writes::new(parts.ledger.clone(), parts.leadership.clone(), name, rules.uses_previous),
            label: parts.ensemble.label().to_owned(),
            gate: Gate::Open,
            standing,
            subscription: parts.ensemble.subscribe(Arc::clone(&rules.trigger.path), interest),
            rules,
            cursors: cursors.into_iter().map(|cursor| (cursor.path.into(), cursor.seen)).collect(),
            initialized,
            parts,
            session: None,
            lost_session: 0,
            watched: false,
            look: None,
            next_look_at: Instant::now(),
            look_again: false,
            following: false,
            queue: VecDeque::new(),
            unseen: HashSet::new(),
            pass: None,
            clean: None,
            catch_up: Some(CatchUp::Down),
            reads: FuturesOrdered::new(),
            largest_read_bytes: 0,
            settling,
            batch: Batch::default(),
            withheld: Vec::new(),
            leaves_by: None,
            seen_zxid: 0,
        };
        let mut recording = Recording::default();
        for cursor in unwanted {
            let moved = watcher.cursor_to(&cursor.path.into(), None, None);
            recording.cursors.push(moved);
        }
        watcher.writes.record(recording, false).await;
        Ok(watcher)
    }

    /// Runs until its `end`, until the lead is lost, until the ensemble turns out to be of another
    /// history, or until the trigger cannot go on.
    pub(super) async fn run(mut self, end: &End) -> Result<Ended, ZnodeTriggerError> {
        self.on_gate().await;
        self.adopt_session();
        loop {
            if self.pass.is_none() {
                self.flush_withheld().await;
            }
            if self.leaves_by.is_some() && self.look.is_none() && self.pass.is_none() {
                return self.leave(end).await;
            }
            self.pump();
            let event = self.next_event(end).await;
            match event {
                Event::Stop => return Ok(Ended::Over),
                Event::Leave => self.begin_to_leave(),
                Event::LeaveNow => return self.leave(end).await,
                Event::Gate => self.on_gate().await,
                Event::Standing => {
                    if self.is_stopped() {
                        self.let_go();
                        return self.settle_writes(end).await;
                    }
                    self.adopt_session();
                }
                Event::Hinted => self.adopt_session(),
                Event::Looked(result) => self.on_look(result).await?,
                Event::Read(read) => self.on_read(read).await?,
                Event::Written(result) => self.on_written(&result?),
                Event::BatchDue => self.flush_batch().await,
                // As long as hints wait, the history has still to be proven.
                Event::LookDue => self.start_look(!self.following, "interval"),
            }
        }
    }

    /// Waits for whatever comes first; decides nothing.
    async fn next_event(&mut self, end: &End) -> Event {
        let batch_due = self.settling.as_ref().and_then(|settling| self.batch.due_at(settling));
        let may_look = self.session.is_some() && self.gate.is_open() && self.look.is_none() && self.pass.is_none();
        let look_due = may_look.then_some(self.next_look_at);
        let Self { parts, standing, subscription, look, reads, writes, leaves_by, .. } = self;
        tokio::select! {
            biased;
            () = end.now.cancelled() => Event::Stop,
            () = parts.leadership.lost().cancelled() => Event::Stop,
            () = end.edit.cancelled(), if leaves_by.is_none() => Event::Leave,
            () = sleep_until(*leaves_by) => Event::LeaveNow,
            () = gates_changed(&mut parts.gates) => Event::Gate,
            () = standing_changed(standing) => Event::Standing,
            result = writes.next() => Event::Written(result),
            Some(read) = reads.next(), if !reads.is_empty() => Event::Read(read),
            result = poll_look(look) => Event::Looked(result),
            () = sleep_until(batch_due) => Event::BatchDue,
            () = subscription.changed() => Event::Hinted,
            () = sleep_until(look_due) => Event::LookDue,
        }
    }

    /// Whether nothing may be compared any more; says what is waited for meanwhile.
    fn is_stopped(&self) -> bool {
        let standing = self.parts.lineage.standing().borrow().clone();
        if let Standing::Unchecked { reason: Some(reason) } = &standing {
            self.trouble(Some(reason.clone()));
        }
        matches!(standing, Standing::Two(_))
    }

    /// Waits for the writes under way, so that none of them comes after an operator's decision. What was
    /// not written yet is dropped: its cursors have not moved.
    async fn settle_writes(mut self, end: &End) -> Result<Ended, ZnodeTriggerError> {
        let lost = self.parts.leadership.lost().clone();
        while self.writes.len() > 0 {
            tokio::select! {
                () = end.now.cancelled() => return Ok(Ended::Over),
                () = lost.cancelled() => return Ok(Ended::Over),
                written = self.writes.next() => drop(written?),
            }
        }
        Ok(Ended::Stopped)
    }

    /// The trigger is edited or gone: everything is compared once more by its rule, if it can be. Where only
    /// the policies are others, the cursors tell its successor where to go on.
    fn begin_to_leave(&mut self) {
        self.leaves_by = Some(Instant::now() + LAST_LOOK_PATIENCE);
        if !self.parts.handover.is_ending(&self.rules.schedule.name) {
            self.stop_reading();
        } else if self.following {
            self.start_look(true, "edit");
        } else if self.look.is_none() {
            // There is no session, or a pause: nothing can be compared, or is to be.
            self.pass = None;
        }
    }

    /// Hands over what is due, and waits until it is in the ledger.
    async fn leave(mut self, end: &End) -> Result<Ended, ZnodeTriggerError> {
        // Where it could not compare once more, the latest time that it could counts.
        let compared = self.initialized.map(|first| first.max(self.seen_zxid));
        if let Some(zxid) = compared {
            self.parts.handover.leave(&self.rules.schedule.name, zxid);
        }
        self.flush_withheld().await;
        self.flush_batch().await;
        self.settle_writes(end).await.map(|_| Ended::Over)
    }

    /// Takes up a new session, or lets go of one that is gone. A session that was not cleared may show
    /// another history, and waits.
    fn adopt_session(&mut self) {
        let cleared = match *self.parts.lineage.standing().borrow() {
            Standing::One { session, .. } => session,
            Standing::Unchecked { .. } | Standing::Two(_) => 0,
        };
        match self.subscription.arming() {
            Some(arming) if arming.session.number() > cleared => {
                if self.session.as_ref().is_some_and(|session| session.number() != arming.session.number()) {
                    self.let_go();
                }
            }
            Some(arming) if arming.session.number() > self.lost_session => {
                let current = self.session.as_ref().map(Session::number);
                if current != Some(arming.session.number()) {
                    self.let_go();
                    self.session = Some(arming.session);
                    self.watched = arming.watched;
                    self.start_look(true, "session");
                }
            }
            Some(_) => {}
            None => self.let_go(),
        }
    }

    /// Forgets everything that belongs to the session; the cursors stay.
    fn let_go(&mut self) {
        if let Some(session) = self.session.take() {
            self.lost_session = session.number();
            self.parts.status.set_armed(&self.rules.schedule.name, false);
        }
        self.stop_reading();
    }

    fn give_up_session(&mut self) {
        if let Some(session) = &self.session {
            session.give_up();
        }
        self.let_go();
    }

    fn stop_reading(&mut self) {
        self.look = None;
        self.pass = None;
        self.following = false;
        self.queue.clear();
        self.unseen.clear();
        self.reads = FuturesOrdered::new();
    }

    async fn on_gate(&mut self) {
        self.gate = self.parts.gates.borrow_and_update().get(&self.rules.schedule.name).cloned().unwrap_or_default();
        match self.gate.clone() {
            Gate::Paused { reason, .. } => {
                // What came due before the pause is not of the pause.
                self.flush_batch().await;
                self.stop_reading();
                self.catch_up = Some(CatchUp::Paused { reason });
            }
            Gate::Open | Gate::Submitting | Gate::Skipping { .. } if self.look.is_none() && !self.following => {
                self.start_look(true, "resume");
            }
            Gate::Open | Gate::Submitting | Gate::Skipping { .. } => {}
        }
    }

    /// Begins to compare everything, if there is a session and no pause.
    fn start_look(&mut self, fresh: bool, cause: &'static str) {
        let Some(session) = self.session.clone().filter(|_| self.gate.is_open()) else { return };
        if fresh {
            self.stop_reading();
            // The look sees all that was hinted at before it began.
            self.subscription.take(usize::MAX);
        }
        metrics::znode_reconciled(&self.label, cause);
        let trigger = &self.rules.trigger;
        // As long as the list of children is the same, none of them came or went.
        let unchanged = self.clean.filter(|_| trigger.watch == WatchScope::Children && !trigger.on.changed);
        self.look_again = false;
        let answer =
            Box::pin(look(session, Arc::clone(&trigger.path), trigger.watch, self.rules.left_out.clone(), unchanged));
        self.look = Some(Look { fresh, answer });
    }

    async fn on_look(&mut self, result: Result<Option<Snapshot>, ZooKeeperError>) -> Result<(), ZnodeTriggerError> {
        let fresh = self.look.take().is_some_and(|look| look.fresh);
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(error) if error.ends_session() => {
                debug!(schedule = %self.rules.schedule.name, %error, "a look at the znodes was cut off");
                self.give_up_session();
                return Ok(());
            }
            Err(error) => {
                self.trouble(Some(format!("{}: {error}", self.rules.trigger.path)));
                self.next_look_at = Instant::now() + RETRY_LOOK_AFTER;
                return Ok(());
            }
        };
        let mut pass = Pass { parent: None, clean: self.clean, highest_zxid: 0, problem: None, marked: false };
        if let Some(snapshot) = snapshot {
            let trigger = &self.rules.trigger;
            let known = Known {
                root: &trigger.path,
                scope: trigger.watch,
                cursors: &self.cursors,
                initialized: self.initialized.is_some(),
                initial: trigger.initial,
                needs_data: self.rules.uses_previous,
                fresh,
            };
            let plan = plan(&snapshot, &known, |path| self.rules.wants(path)).map_err(|other| {
                ZnodeTriggerError::OtherHistory {
                    schedule: self.rules.schedule.name.clone(),
                    path: other.path,
                    source: other.error,
                }
            })?;
            pass.parent = plan.parent;
            pass.clean = snapshot.root.as_ref().map(ZnodeStat::seen_as_parent);
            pass.highest_zxid = snapshot.highest_zxid();
            if let Some(path) = snapshot.unreadable.first() {
                pass.problem = Some(format!(
                    "{path} cannot be read ({} znodes in all): the session has no permission for it",
                    snapshot.unreadable.len()
                ));
            }
            drop(snapshot);
            let at_first_sight = plan.reads.iter().filter(|(_, sight)| *sight == Sight::First);
            self.unseen = at_first_sight.map(|(path, _)| Arc::clone(path)).collect();
            self.queue = plan.reads.into_iter().map(|(path, _)| path).collect();
            for moves in plan.moves.chunks(RECORDING_MAX * 4) {
                let mut recording = Recording::default();
                for (path, seen) in moves {
                    let moved = self.cursor_to(path, Some(*seen), None);
                    recording.cursors.push(moved);
                }
                self.writes.record(recording, false).await;
            }
        }
        self.pass = Some(pass);
        self.following = true;
        Ok(())
    }

    /// Sends as many reads as there is room for.
    fn pump(&mut self) {
        if !self.following || !self.gate.is_open() {
            return;
        }
        let Some(session) = self.session.clone() else { return };
        let window = (READS_BYTES / self.largest_read_bytes.max(1)).clamp(4, READS_MAX);
        while self.reads.len() < window && self.writes.len() < RECORDS_MAX {
            let room = window - self.reads.len();
            // A long plan does not hold up what happens now, nor the other way round.
            let share = if self.queue.is_empty() { room } else { room.div_ceil(2) };
            let touched = self.subscription.take(share);
            self.look_again |= touched.overflowed;
            let hinted = touched.paths.len();
            metrics::znode_events(&self.label, hinted as u64);
            for path in touched.paths {
                if self.rules.wants(&path) {
                    self.read(&session, path, false);
                }
            }
            let planned: Vec<_> = self.queue.drain(..(room - hinted).min(self.queue.len())).collect();
            if hinted == 0 && planned.is_empty() {
                break;
            }
            for path in planned {
                self.read(&session, path, true);
            }
        }
        if self.look_again && self.pass.is_none() {
            self.next_look_at = Instant::now();
        }
        if self.queue.is_empty()
            && let Some(pass) = self.pass.as_mut().filter(|pass| !pass.marked)
        {
            pass.marked = true;
            self.reads.push_back(Box::pin(ready(Read::PassDone)));
        }
    }

    fn read(&mut self, session: &Session, path: Arc<str>, planned: bool) {
        // The request goes out here; the future is the answer.
        let answer = session.get_data(&path);
        self.reads.push_back(Box::pin(async move { Read::Znode { path, planned, answer: answer.await } }));
    }

    fn look_interval(&self) -> Duration {
        if !self.watched {
            return POLL_INTERVAL;
        }
        let seed = self.rules.schedule.name.as_str().bytes();
        let hash = seed.fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        LOOK_INTERVAL + Duration::from_millis(hash % LOOK_JITTER_MS)
    }

    fn on_written(&self, written: &Written) {
        if written.arms && self.session.is_some() {
            let name = &self.rules.schedule.name;
            if !self.parts.status.is_armed(name) {
                self.parts.status.set_armed(name, true);
                self.parts.announcements.tell(Armed {
                    schedule: name.clone(),
                    ensemble: self.label.clone(),
                    path: Arc::clone(&self.rules.trigger.path),
                    znodes: self.cursors.len(),
                });
            }
        }
    }

    fn trouble(&self, trouble: Option<String>) {
        let name = &self.rules.schedule.name;
        if let Some(trouble) = &trouble
            && self.parts.status.trouble(name).as_ref() != Some(trouble)
        {
            warn!(schedule = %name, ensemble = self.label, "a znode trigger does not see everything: {trouble}");
        }
        self.parts.status.set_trouble(name, trouble);
    }
}

/// Waits for a word from the gates. Those that can no longer move stay as they are.
async fn gates_changed(gates: &mut watch::Receiver<Gates>) {
    if gates.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for a word on the ensemble's history. Once there can be none, it stays as it is.
async fn standing_changed(standing: &mut watch::Receiver<Standing>) {
    if standing.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn poll_look(look: &mut Option<Look>) -> Result<Option<Snapshot>, ZooKeeperError> {
    match look {
        Some(look) => (&mut look.answer).await,
        None => std::future::pending().await,
    }
}
