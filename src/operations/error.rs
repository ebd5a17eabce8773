//! Why an action was not carried out, and what the operator can do about it.

use jiff::Timestamp;

use crate::airflow;
use crate::domain::run::{RunId, RunState};
use crate::domain::team::OutOfReach;
use crate::store::StoreError;

/// Why an action was not carried out; fits "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The configuration has no such schedule.
    #[error("find the schedule `{name}`: the configuration has none of that name")]
    NoSchedule {
        /// As asked for.
        name: String,
        /// A name that is close.
        near: Option<String>,
    },
    /// The ledger has no such run.
    #[error("find the run `{id}`: the ledger has none")]
    NoRun {
        /// As asked for.
        id: String,
    },
    /// The caller is bound to a team, and this is not the team's.
    #[error("{action} {what}: the token `{actor}` is {reason}")]
    OutOfReach {
        /// What was asked.
        action: &'static str,
        /// On what.
        what: String,
        /// The name of the token.
        actor: String,
        /// Why not.
        reason: OutOfReach,
    },
    /// Another member leads, or none does yet.
    #[error("{action}: this member does not lead")]
    NotLeading {
        /// What was asked.
        action: &'static str,
    },
    /// The key may not stand in a run id.
    #[error("trigger `{schedule}`: the key `{key}` may not stand in a run id")]
    BadKey {
        /// The schedule.
        schedule: String,
        /// As given.
        key: String,
    },
    /// The conf of the schedule cannot be rendered for this run.
    #[error("render the conf of `{schedule}`: {reason}")]
    Conf {
        /// The schedule.
        schedule: String,
        /// What is wrong.
        reason: String,
        /// Whether it was for a run by hand, which can bring its own.
        by_hand: bool,
    },
    /// The key was used before, with another conf.
    #[error("trigger `{schedule}`: the key `{key}` is that of run {run}, which has another conf")]
    KeyTaken {
        /// The schedule.
        schedule: String,
        /// The key.
        key: String,
        /// The run that has it.
        run: RunId,
    },
    /// The run is in a state that does not allow it.
    #[error("{action} run {run}: it is {state}")]
    WrongState {
        /// What was asked.
        action: &'static str,
        /// The run.
        run: RunId,
        /// Its state.
        state: RunState,
        /// What can be done instead.
        hint: &'static str,
    },
    /// The row stands for several occurrences.
    #[error("retry run {run}: it covers {count} occurrences, {from} to {to}")]
    CoversSeveral {
        /// The row.
        run: RunId,
        /// The schedule.
        schedule: String,
        /// How many.
        count: i64,
        /// The first.
        from: Timestamp,
        /// The last.
        to: Timestamp,
    },
    /// The data that its conf would be made from is gone.
    #[error("retry run {run}: its conf could not be rendered, and the znode that it came from is not kept")]
    NothingToSend {
        /// The run.
        run: RunId,
        /// The schedule.
        schedule: String,
    },
    /// The schedule has no nominal times.
    #[error("backfill `{schedule}`: its trigger is not cron, so there are no nominal times")]
    NotCron {
        /// The schedule.
        schedule: String,
    },
    /// The range is empty.
    #[error("backfill `{schedule}`: the range ends before it begins ({from} to {to})")]
    EmptyRange {
        /// The schedule.
        schedule: String,
        /// First.
        from: Timestamp,
        /// Last.
        to: Timestamp,
    },
    /// A pause that is over before it begins.
    #[error("pause `{schedule}`: {until} is not in the future")]
    PauseInThePast {
        /// The schedule.
        schedule: String,
        /// As asked for.
        until: Timestamp,
    },
    /// The Airflow of a run is no longer in the configuration.
    #[error("{action} run {run}: its Airflow `{airflow}` is not in the configuration")]
    NoAirflow {
        /// What was asked.
        action: &'static str,
        /// The run.
        run: RunId,
        /// The Airflow.
        airflow: String,
    },
    /// Airflow did not do it, or it is not known whether it did.
    #[error("{action} run {run}: failed to {source}")]
    Airflow {
        /// What was asked.
        action: &'static str,
        /// The run.
        run: RunId,
        /// What went wrong.
        source: Box<airflow::Error>,
    },
    /// No schedule watches such an ensemble.
    #[error("adopt the ensemble `{name}`: no schedule watches one of that name")]
    NoEnsemble {
        /// As asked for.
        name: String,
    },
    /// There is no home ensemble.
    #[error("adopt the home ensemble: the configuration has none")]
    NoHome,
    /// Its triggers do not wait for a decision.
    #[error("adopt the ensemble `{ensemble}`: {reason}")]
    NothingToAdopt {
        /// Which ensemble.
        ensemble: String,
        /// Why there is nothing to decide.
        reason: String,
    },
    /// Its triggers have not ended what they had under way.
    #[error("adopt the ensemble `{ensemble}`: its triggers are still writing down what they found before")]
    StillAtWork {
        /// Which ensemble.
        ensemble: String,
    },
    /// The configuration has no such sync.
    #[error("find the sync `{name}`: the configuration has none of that name")]
    NoSync {
        /// As asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The loop of the sync does not run.
    #[error("compare the sync `{name}`: it does not run at the moment")]
    SyncAtRest {
        /// The sync.
        name: String,
    },
    /// The ledger refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OperationError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSchedule { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::NoSchedule { near: None, .. } => "`flowkeeper schedules` lists them".into(),
            Self::NoRun { .. } => "`flowkeeper runs` lists them; an id is a number or a `dag_run_id`".into(),
            Self::OutOfReach { reason: OutOfReach::NoTeam { team }, .. } => {
                format!("bring [team.{team}] back into the definitions, or use a token without `team`")
            }
            Self::OutOfReach { reason: OutOfReach::OtherOwner { .. }, .. } => {
                "use a token of the owner's team, or one without `team`".into()
            }
            Self::NotLeading { .. } => "ask again in a moment, or ask the member that leads".into(),
            Self::BadKey { .. } => "use letters, digits and `_.~:+-`, at most 171 of them".into(),
            Self::Conf { by_hand: true, .. } => "give the conf yourself: `flowkeeper trigger NAME --conf '{…}'`".into(),
            Self::Conf { by_hand: false, .. } => "correct `conf` in the configuration".into(),
            Self::KeyTaken { run, .. } => {
                format!("choose another key for another run; `flowkeeper runs {run}` shows that one")
            }
            Self::WrongState { hint, .. } => (*hint).to_owned(),
            Self::CoversSeveral { schedule, from, to, .. } => {
                format!("choose which of them to run: `flowkeeper backfill {schedule} --from {from} --to {to}`")
            }
            Self::NothingToSend { schedule, .. } => {
                format!("run it by hand: `flowkeeper trigger {schedule} --conf '{{…}}'`")
            }
            Self::NotCron { .. } => "run it by hand with `flowkeeper trigger`".into(),
            Self::EmptyRange { .. } => "exchange `from` and `to`".into(),
            Self::PauseInThePast { .. } => "leave `until` out to pause until it is resumed".into(),
            Self::NoAirflow { .. } => "bring `[airflow.…]` back, or act in Airflow itself".into(),
            Self::Airflow { source, .. } => source.hint().to_owned(),
            Self::NoEnsemble { .. } => "leave `--ensemble` out for the home ensemble".into(),
            Self::NoHome => "name the ensemble: `flowkeeper adopt --ensemble NAME`".into(),
            Self::NothingToAdopt { .. } => "`flowkeeper schedules` shows what troubles a trigger".into(),
            Self::StillAtWork { .. } => "ask again in a moment; is the ledger writable?".into(),
            Self::NoSync { known, .. } if known.is_empty() => "add a [[sync]]; docs/sync.md tells how".into(),
            Self::NoSync { known, .. } => format!("there are {known}"),
            Self::SyncAtRest { .. } => "ask again in a moment; a shadow runs no syncs".into(),
            Self::Store(error) => return error.hint(),
        })
    }
}
