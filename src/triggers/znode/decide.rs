//! From one read of a znode to what the ledger is told: pure.
//!
//! `when` and `conf` are evaluated on data and stat of the same read. Nothing here waits, reads a
//! clock or remembers.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use super::left_out::LeftOut;
use crate::domain::occurrence::{Occurrence, batch_hash};
use crate::domain::run::RunState;
use crate::domain::schedule::{
    Catchup, ChangeKinds, DataInterval, Initial, LogicalDate, Schedule, WatchScope, ZnodeTrigger,
};
use crate::domain::template::{EnsembleVariable, RenderContext, RenderError, ZnodeFacts};
use crate::domain::znode::{Change, ChangeKind, TimeWentBack, ZnodeStat, ZnodeVersion, compare};
use crate::store::model::{ConsumeWork, Covered, Decision, NewRun};

/// How much of its data a change keeps while it waits for its batch.
const BATCHED_DATA_BYTES: usize = 64 * 1024;

/// The kind of the decision that `when` was false.
pub(super) const WHEN_FALSE: &str = "when_false";

/// A schedule with its znode trigger, and what follows from the two.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) schedule: Arc<Schedule>,
    pub(super) trigger: ZnodeTrigger,
    /// The ensemble's generation, part of run ids.
    pub(super) generation: u32,
    /// Whether the data of the state last handled is needed.
    pub(super) uses_previous: bool,
    /// What is no change at all.
    pub(super) left_out: LeftOut,
}

/// Whether a znode is looked at for the first time by a trigger that has just begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It was there when the trigger began: `initial` decides.
    First,
    /// What the cursors do not know did not exist.
    Usual,
}

/// What a read means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing new.
    Unchanged,
    /// Something that the trigger does not fire on; the cursor moves.
    Moved,
    /// A change.
    Fires(Change),
}

/// Why changes that are found by a look do not run as they would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CatchUp {
    /// The schedule was paused.
    Paused {
        /// Why.
        reason: Arc<str>,
    },
    /// Nobody was watching.
    Down,
}

/// A change on its way into the ledger.
#[derive(Debug, Clone)]
pub(super) struct Fired {
    pub(super) change: Change,
    pub(super) facts: Arc<ZnodeFacts>,
    pub(super) due_at: Timestamp,
}

impl Fired {
    /// The zxid that identifies the change.
    fn zxid(&self, scope: WatchScope) -> i64 {
        let version = self.change.version;
        match (self.change.kind, scope) {
            (ChangeKind::Deleted, _) | (ChangeKind::Created, WatchScope::Children) => version.czxid,
            _ => version.mzxid,
        }
    }
}

/// Judges a read against what was last handled.
///
/// `initialized` is the highest zxid that the trigger's first look saw. A single znode that was
/// absent then can only have been created later.
pub(super) fn judge(
    rules: &Rules,
    handled: Option<ZnodeVersion>,
    initialized: Option<i64>,
    sight: Sight,
    now: Option<&ZnodeStat>,
) -> Result<Judgement, TimeWentBack> {
    let on = rules.trigger.on;
    if handled.is_none()
        && let Some(now) = now
    {
        if sight == Sight::First {
            return Ok(at_first_sight(rules.trigger.initial, on, now));
        }
        if let Some(first_look) = initialized
            && rules.trigger.watch == WatchScope::Node
            && now.czxid <= first_look
        {
            return Err(TimeWentBack { handled: first_look, now: now.czxid });
        }
    }
    Ok(match compare(handled, now.map(ZnodeStat::seen))? {
        None => Judgement::Unchanged,
        Some(difference) => difference.change(on).map_or(Judgement::Moved, Judgement::Fires),
    })
}

/// What `initial` makes of a znode that exists when the trigger begins.
fn at_first_sight(initial: Initial, on: ChangeKinds, now: &ZnodeStat) -> Judgement {
    let version = now.seen();
    let fires = |kind, fires: bool| {
        if fires {
            Judgement::Fires(Change { kind, version, coalesced: 0, recreated: false })
        } else {
            Judgement::Moved
        }
    };
    let (created_since, set_since) = match initial {
        Initial::Ignore => return Judgement::Moved,
        Initial::Fire => (true, true),
        Initial::AfterZxid(zxid) => (now.czxid > zxid, now.mzxid > zxid),
        // The time of creation is not read; a znode that was never set has that of its last set.
        Initial::After(time) => {
            let since = now.mtime_ms > time.as_millisecond();
            (since && now.version == 0, since)
        }
    };
    if created_since && on.created {
        fires(ChangeKind::Created, true)
    } else {
        fires(ChangeKind::Changed, set_since && on.changed)
    }
}

/// Gathers what templates see of a change.
pub(super) fn fired(path: &str, change: Change, read: Option<(Vec<u8>, ZnodeStat)>, now: Timestamp) -> Fired {
    let due_at = read
        .as_ref()
        .and_then(|(_, stat)| Timestamp::from_millisecond(stat.mtime_ms).ok())
        // The ensemble's clock may be ahead of ours; nothing is due in the future.
        .map_or(now, |modified| modified.min(now));
    let data = match change.kind {
        ChangeKind::Deleted => None,
        _ => read.map(|(data, _)| data),
    };
    let facts = ZnodeFacts {
        path: path.to_owned(),
        event: Some(change.kind),
        data,
        version: change.version.version,
        czxid: change.version.czxid,
        mzxid: change.version.mzxid,
        recreated: change.recreated,
        coalesced: change.coalesced,
        truncated: false,
    };
    Fired { change, facts: Arc::new(facts), due_at }
}

/// The state last handled, as templates see it.
pub(super) fn previous_facts(path: &str, handled: ZnodeVersion, data: Option<Vec<u8>>) -> Arc<ZnodeFacts> {
    Arc::new(ZnodeFacts {
        path: path.to_owned(),
        event: None,
        data,
        version: handled.version,
        czxid: handled.czxid,
        mzxid: handled.mzxid,
        recreated: false,
        coalesced: 0,
        truncated: false,
    })
}

/// What `when` says of a change.
#[derive(Debug)]
pub(super) enum Condition {
    /// It runs.
    Holds,
    /// It does not, and there is a row that says so.
    Row(Box<NewRun>),
    /// It does not; the decision is kept.
    Decided(Decision),
}

impl Rules {
    /// Makes the rules of a schedule. `own_root` is flowkeeper's root in the trigger's ensemble.
    pub(super) fn new(
        schedule: Arc<Schedule>,
        trigger: ZnodeTrigger,
        generation: u32,
        own_root: Option<&Arc<str>>,
    ) -> Self {
        let left_out = LeftOut::of(&trigger, own_root);
        let uses_previous = schedule.when.as_ref().is_some_and(|when| when.uses("previous"))
            || schedule.conf.as_ref().is_some_and(|conf| conf.uses("previous"));
        Self { schedule, trigger, generation, uses_previous, left_out }
    }

    /// Whether a znode can fire at all. The root of a subtree is not part of it, and a parent none
    /// of its children.
    pub(super) fn wants(&self, path: &str) -> bool {
        let root = &*self.trigger.path;
        if self.trigger.watch == WatchScope::Node {
            return path == root;
        }
        let Some(name) = path.strip_prefix(root).map(|rest| rest.strip_prefix('/').unwrap_or(rest)) else {
            return false;
        };
        let in_scope = !name.is_empty() && (self.trigger.watch == WatchScope::Subtree || !name.contains('/'));
        in_scope
            && !self.left_out.covers(path)
            && self.trigger.include.as_ref().is_none_or(|globs| globs.is_match(name))
    }

    /// The identity of a change that runs by itself.
    pub(super) fn dag_run_id(&self, fired: &Fired) -> String {
        Occurrence::Znode {
            generation: self.generation,
            deleted: fired.change.kind == ChangeKind::Deleted,
            zxid: fired.zxid(self.trigger.watch),
            path: fired.facts.path.clone(),
        }
        .dag_run_id(&self.schedule.name)
    }

    fn batch_id(&self, changes: &[Fired]) -> String {
        let zxids = || changes.iter().map(|fired| fired.zxid(self.trigger.watch));
        Occurrence::Batch {
            generation: self.generation,
            highest_zxid: zxids().max().unwrap_or_default(),
            hash: batch_hash(
                changes.iter().zip(zxids()).map(|(fired, zxid)| (fired.change.kind, fired.facts.path.as_str(), zxid)),
            ),
        }
        .dag_run_id(&self.schedule.name)
    }

    /// Evaluates `when`.
    pub(super) fn condition(&self, fired: &Fired, previous: Option<&Arc<ZnodeFacts>>, now: Timestamp) -> Condition {
        let Some(when) = &self.schedule.when else { return Condition::Holds };
        let dag_run_id = self.dag_run_id(fired);
        match when.evaluate(&self.context(&dag_run_id, Some(&fired.facts), previous, &[])) {
            Ok(true) => Condition::Holds,
            Ok(false) if fired.change.is_merged() => Condition::Row(Box::new(self.row(
                dag_run_id,
                std::slice::from_ref(fired),
                RunState::Skipped,
                Some(format!(
                    "`when` was false for the last of several changes that ZooKeeper shows as one ({} at {})",
                    fired.change.kind.as_str(),
                    fired.facts.path
                )),
            ))),
            Ok(false) => Condition::Decided(Decision {
                schedule: self.schedule.name.clone(),
                at: now,
                kind: WHEN_FALSE,
                detail: format!(
                    "{} {} at zxid 0x{:x}: `when` was false",
                    fired.facts.path,
                    fired.change.kind.as_str(),
                    fired.change.version.mzxid
                ),
            }),
            Err(error) => Condition::Row(Box::new(self.row(
                dag_run_id,
                std::slice::from_ref(fired),
                RunState::Rejected,
                Some(format!("`when` could not be evaluated: {error}")),
            ))),
        }
    }

    /// The run of one change.
    pub(super) fn run(&self, fired: &Fired, previous: Option<&Arc<ZnodeFacts>>) -> NewRun {
        let dag_run_id = self.dag_run_id(fired);
        let conf = self.context(&dag_run_id, Some(&fired.facts), previous, &[]).conf();
        self.with_conf(dag_run_id, std::slice::from_ref(fired), conf)
    }

    /// The run of a batch.
    pub(super) fn batch_run(&self, changes: &[Fired]) -> NewRun {
        let facts: Vec<_> = changes.iter().map(|fired| Arc::clone(&fired.facts)).collect();
        let dag_run_id = self.batch_id(changes);
        let conf = self.context(&dag_run_id, None, None, &facts).conf();
        self.with_conf(dag_run_id, changes, conf)
    }

    /// One row for changes that do not run: `skipped` after a pause, `missed` after downtime.
    pub(super) fn withheld_row(&self, changes: &[Fired], cause: &Withheld) -> NewRun {
        let (state, reason) = match cause {
            Withheld::Paused { reason } => (RunState::Skipped, format!("the schedule was paused: {reason}")),
            Withheld::Skipping { reason } => (RunState::Skipped, reason.to_string()),
            Withheld::Down => (RunState::Missed, "nobody was watching when it changed (catchup = \"none\")".to_owned()),
            Withheld::OutsideWindow => {
                (RunState::Missed, "it changed longer ago than catchup_window reaches".to_owned())
            }
        };
        let dag_run_id = match changes {
            [fired] => self.dag_run_id(fired),
            _ => self.batch_id(changes),
        };
        let mut row = self.row(dag_run_id, changes, state, Some(reason));
        if let (Some(from), Some(to), true) = (
            changes.iter().map(|fired| fired.due_at).min(),
            changes.iter().map(|fired| fired.due_at).max(),
            changes.len() > 1,
        ) {
            row.covers = Some(Covered { from, to, count: i64::try_from(changes.len()).unwrap_or(i64::MAX) });
        }
        row
    }

    /// Whether a change found by a look after a pause or downtime is held back.
    pub(super) fn withholds(&self, fired: &Fired, catch_up: &CatchUp, now: Timestamp) -> Option<Withheld> {
        if self.schedule.catchup == Catchup::None {
            return Some(match catch_up {
                CatchUp::Paused { reason } => Withheld::Paused { reason: Arc::clone(reason) },
                CatchUp::Down => Withheld::Down,
            });
        }
        // Both other policies run it: the diff has already reduced each znode to its present
        // state, and different znodes are never merged.
        let age = now.duration_since(fired.due_at);
        let outside = |window: Duration| SignedDuration::try_from(window).is_ok_and(|window| age > window);
        self.schedule.catchup_window.is_some_and(outside).then_some(Withheld::OutsideWindow)
    }

    fn context<'a>(
        &'a self,
        dag_run_id: &'a str,
        znode: Option<&'a Arc<ZnodeFacts>>,
        previous: Option<&'a Arc<ZnodeFacts>>,
        changes: &'a [Arc<ZnodeFacts>],
    ) -> RenderContext<'a> {
        RenderContext {
            schedule: &self.schedule,
            dag_run_id,
            nominal_time: None,
            znode,
            previous,
            ensemble: self.trigger.ensemble.as_deref().map(EnsembleVariable::Name),
            changes,
        }
    }

    fn with_conf(&self, dag_run_id: String, changes: &[Fired], conf: Result<Box<RawValue>, RenderError>) -> NewRun {
        match conf {
            Ok(conf) => {
                let mut run = self.row(dag_run_id, changes, RunState::Pending, None);
                run.conf = conf;
                run.consume = match (self.trigger.consume, changes) {
                    (Some(when), [fired]) if fired.change.kind != ChangeKind::Deleted => Some(ConsumeWork {
                        ensemble: self.trigger.ensemble.as_deref().map(ToOwned::to_owned),
                        path: fired.facts.path.clone(),
                        czxid: fired.change.version.czxid,
                        when,
                    }),
                    _ => None,
                };
                run
            }
            Err(error) => {
                let reason = format!("the conf could not be rendered: {error}");
                self.row(dag_run_id, changes, RunState::Rejected, Some(reason))
            }
        }
    }

    /// A row without a conf.
    fn row(&self, dag_run_id: String, changes: &[Fired], state: RunState, reason: Option<String>) -> NewRun {
        let schedule = &self.schedule;
        let due_at = changes.iter().map(|fired| fired.due_at).max().unwrap_or(Timestamp::UNIX_EPOCH);
        // Only what somebody asked for: two changes of one millisecond would contend for one date.
        let logical_date = (schedule.logical_date != LogicalDate::None).then_some(due_at);
        NewRun {
            state,
            reason,
            coalesced: changes.iter().map(|fired| fired.change.coalesced).sum(),
            logical_date,
            data_interval: logical_date
                .filter(|_| schedule.data_interval != DataInterval::Dag)
                .map(|date| (date, date)),
            ..NewRun::of(schedule, dag_run_id, due_at, RawValue::NULL.to_owned())
        }
    }
}

/// Why changes got a row and no DAG run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Withheld {
    /// The schedule was paused, and does not catch up.
    Paused {
        /// Why it was paused.
        reason: Arc<str>,
    },
    /// Runs are turned down for now.
    Skipping {
        /// By what.
        reason: Arc<str>,
    },
    /// Nobody was watching, and the schedule does not catch up.
    Down,
    /// Longer ago than the schedule catches up.
    OutsideWindow,
}

impl Fired {
    /// Keeps as much of the data as a batch may hold.
    pub(super) fn for_batch(mut self) -> Self {
        if self.facts.data.as_ref().is_some_and(|data| data.len() > BATCHED_DATA_BYTES) {
            // Half a character at the end would make a text into something that is none.
            let kept =
                self.facts.text().map_or(BATCHED_DATA_BYTES, |text| text.floor_char_boundary(BATCHED_DATA_BYTES));
            let facts = Arc::make_mut(&mut self.facts);
            if let Some(data) = &mut facts.data {
                data.truncate(kept);
                data.shrink_to_fit();
                facts.truncated = true;
            }
        }
        self
    }
}
