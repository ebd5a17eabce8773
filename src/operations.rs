//! What operators do: trigger by hand, pause, resume, backfill, retry, cancel, adopt, apply a sync.
//!
//! Each is checked here, written to the ledger together with its line in the audit, and safe to
//! repeat. Nothing here closes a run that Airflow holds: it asks Airflow, and the monitor sees what
//! came of it.

pub mod adopt;
pub mod backfill;
mod error;
mod runs;
mod sync;
mod trigger;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

pub use backfill::{BACKFILL_PAGE, BackfillAction, BackfillItem, BackfillRange, BackfillReport};
pub use error::OperationError;

use crate::airflow::Airflow;
use crate::clock::Clock;
use crate::domain::schedule::Schedule;
use crate::domain::team::{Reach, Teams};
use crate::store::model::{NewAudit, Pause, Run};
use crate::store::{Leadership, Ledger};
use crate::sync::Desks;
use crate::triggers::lineage::Lineages;

/// The schedules in force, in the order of the configuration.
pub type Schedules = Arc<Vec<Arc<Schedule>>>;

/// The clients of the Airflows in force, by name.
pub type Airflows = Arc<BTreeMap<Arc<str>, Airflow>>;

/// Carries out what operators ask for. Cheap to clone.
#[derive(Clone)]
pub struct Operations(Arc<OperationsParts>);

/// What [`Operations`] works with.
pub struct OperationsParts {
    /// The ledger.
    pub ledger: Ledger,
    /// The lead, while this member has it.
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// The schedules in force.
    pub schedules: watch::Receiver<Schedules>,
    /// The teams in force.
    pub teams: watch::Receiver<Teams>,
    /// Every Airflow by name.
    pub airflows: watch::Receiver<Airflows>,
    /// How the ledger and each watched ensemble stand to each other.
    pub lineages: watch::Receiver<Arc<Lineages>>,
    /// Where syncs take orders.
    pub desks: Desks,
    /// The time.
    pub clock: Clock,
}

/// Who asks, and why; what the audit keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Name of the token, or `local`.
    pub actor: String,
    /// Address that the request came from.
    pub source: String,
    /// The reason given.
    pub reason: Option<String>,
    /// What the caller may act on.
    pub reach: Reach,
}

impl Operations {
    /// Puts the parts together.
    pub fn new(parts: OperationsParts) -> Self {
        Self(Arc::new(parts))
    }

    /// The lead, if this member has it.
    pub fn lead(&self) -> Option<Leadership> {
        self.0.leadership.borrow().clone()
    }

    /// The name and the address of every Airflow.
    pub fn airflows(&self) -> Vec<(String, String)> {
        self.0.airflows.borrow().iter().map(|(name, airflow)| (name.to_string(), airflow.address())).collect()
    }

    /// Pauses a schedule until it is resumed, or until a time. A second pause replaces the first.
    pub async fn pause(
        &self,
        schedule: &str,
        until: Option<Timestamp>,
        order: Order,
    ) -> Result<Arc<Schedule>, OperationError> {
        let schedule = self.schedule_within("pause", schedule, &order)?;
        let now = self.0.clock.now();
        if let Some(until) = until.filter(|&until| until <= now) {
            return Err(OperationError::PauseInThePast { schedule: schedule.name.to_string(), until });
        }
        let leadership = self.leadership("pause")?;
        let pause = Pause { by: order.actor.clone(), reason: order.reason.clone(), until, at: now };
        let detail = until.map(|until| format!("until {until}"));
        let audit = order.audit("pause", schedule.name.to_string(), detail);
        self.0.ledger.pause(&leadership, &schedule.name, pause, audit).await?;
        Ok(schedule)
    }

    /// Ends an operator's pause; without one, nothing happens and nothing is audited.
    pub async fn resume(&self, schedule: &str, order: Order) -> Result<Arc<Schedule>, OperationError> {
        let schedule = self.schedule_within("resume", schedule, &order)?;
        let leadership = self.leadership("resume")?;
        let audit = order.audit("resume", schedule.name.to_string(), None);
        self.0.ledger.resume(&leadership, &schedule.name, audit).await?;
        Ok(schedule)
    }

    /// Notes in the audit that somebody had definitions read again, by this member or by one that stands by.
    pub async fn audit_reload(&self, order: Order, outcome: String) -> Result<(), OperationError> {
        let leadership = self.leadership("note a reload in the audit")?;
        let audit = order.audit("reload", "definitions".to_owned(), Some(outcome));
        self.0.ledger.write_audit(&leadership, audit).await?;
        Ok(())
    }

    fn schedule(&self, name: &str) -> Result<Arc<Schedule>, OperationError> {
        find_schedule(&self.0.schedules.borrow(), name)
    }

    /// The schedule, if the caller may act on it.
    fn schedule_within(
        &self,
        action: &'static str,
        name: &str,
        order: &Order,
    ) -> Result<Arc<Schedule>, OperationError> {
        let schedule = self.schedule(name)?;
        self.check_reach(order, action, || format!("`{}`", schedule.name), schedule.owner.as_deref())?;
        Ok(schedule)
    }

    /// The run, if the caller may act on it. It is of the owner that it was recorded with; where its
    /// schedule has another one by now, it is of both, so that neither acts on what is the other's.
    async fn run_within(&self, action: &'static str, id: &str, order: &Order) -> Result<Run, OperationError> {
        let run = self.run(id).await?;
        self.check_reach(order, action, || format!("run {}", run.id), run.owner.as_deref())?;
        if let Ok(schedule) = self.schedule(&run.schedule) {
            let what = || format!("run {} of `{}`", run.id, schedule.name);
            self.check_reach(order, action, what, schedule.owner.as_deref())?;
        }
        Ok(run)
    }

    fn check_reach(
        &self,
        order: &Order,
        action: &'static str,
        what: impl Fn() -> String,
        owner: Option<&str>,
    ) -> Result<(), OperationError> {
        order.reach.check(&self.0.teams.borrow(), owner).map_err(|reason| {
            let (actor, what) = (order.actor.clone(), what());
            tracing::info!(%actor, source = %order.source, %action, %what, %reason, "a caller may not act on this");
            OperationError::OutOfReach { action, what, actor, reason }
        })
    }

    async fn run(&self, id: &str) -> Result<Run, OperationError> {
        self.0.ledger.run(id).await?.ok_or_else(|| OperationError::NoRun { id: id.to_owned() })
    }

    fn leadership(&self, action: &'static str) -> Result<Leadership, OperationError> {
        self.lead().ok_or(OperationError::NotLeading { action })
    }
}

impl Order {
    /// The line in the audit for what was done.
    pub(crate) fn audit(self, action: &'static str, target: String, detail: Option<String>) -> NewAudit {
        NewAudit { actor: self.actor, source: self.source, action, target, detail, reason: self.reason }
    }
}

/// The schedule of this name, or an error that names one that is close.
pub fn find_schedule(schedules: &[Arc<Schedule>], name: &str) -> Result<Arc<Schedule>, OperationError> {
    schedules.iter().find(|schedule| schedule.name.as_str() == name).cloned().ok_or_else(|| {
        let near = schedules
            .iter()
            .map(|schedule| (strsim::damerau_levenshtein(schedule.name.as_str(), name), schedule))
            .filter(|(distance, _)| *distance <= 1 + name.len() / 4)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, schedule)| schedule.name.to_string());
        OperationError::NoSchedule { name: name.to_owned(), near }
    })
}
