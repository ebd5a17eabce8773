//! Taking up an ensemble that was rebuilt, or a ledger that was restored: what an operator is shown, and
//! what becomes of the decision.
//!
//! Nothing is written to ZooKeeper here. The ledger remembers the decision first, and the keeper of the
//! history, which looks again right after it, brings the znode `store` into line.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OperationError, Operations, Order};
use crate::domain::lineage::{Adopt, CursorsAfter, adoption};
use crate::domain::schedule::{Schedule, ScheduleName, Trigger, ZnodeTrigger};
use crate::store::Leadership;
use crate::triggers::lineage::{Lineage, Standing, TwoHistories};

/// How long triggers may take to end what they have under way.
const QUIET_PATIENCE: Duration = Duration::from_secs(10);

/// How an ensemble that schedules watch stands to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LineageOverview {
    /// Its name; null is the home ensemble.
    pub ensemble: Option<String>,
    /// `one` history, `two` (an operator decides), or `unknown`: the ensemble could not be asked, or this
    /// member does not lead.
    pub histories: String,
    /// How often a rebuilt ensemble was adopted; part of run ids. Null while it is unknown.
    pub generation: Option<u32>,
    /// What was found, in a word: `missing`, `older`, `recreated`, `foreign`, `unreadable`,
    /// `ledger_restored`, `moved` or `contradicted`.
    pub cause: Option<String>,
    /// What was found and what is remembered, or why it is unknown.
    pub reason: Option<String>,
    /// What can be done.
    pub hint: Option<String>,
}

/// What adopting did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdoptionReport {
    /// Name of the ensemble; null is the home ensemble.
    pub ensemble: Option<String>,
    /// What had been found, as in a list of ensembles.
    pub cause: String,
    /// What was decided about the znodes that exist.
    pub decision: Adopt,
    /// The generation from now on; part of the ids of runs to come.
    pub generation: u32,
    /// Whether the triggers go on from where the ledger says that they were.
    pub cursors_kept: bool,
    /// The schedules whose triggers begin to work again.
    pub schedules: Vec<String>,
    /// Those of them whose children stay where they are, since they were taken as handled.
    pub left: Vec<String>,
    /// Those of them that gather anew what a restored ledger does not know: in another grouping than
    /// before, some changes may run again.
    pub regrouped: Vec<String>,
}

impl Operations {
    /// How the watched ensembles stand, the home ensemble first.
    pub fn lineages(&self) -> Vec<LineageOverview> {
        let lineages = Arc::clone(&self.0.lineages.borrow());
        let mut lineages: Vec<_> = lineages.values().collect();
        lineages.sort_by_key(|lineage| lineage.ensemble().map(ToOwned::to_owned));
        lineages.into_iter().map(overview).collect()
    }

    /// Takes up what an ensemble (`None`: the home ensemble) has become. Its znode triggers, which stand
    /// still, begin again by themselves.
    pub async fn adopt(
        &self,
        ensemble: Option<&str>,
        decision: Adopt,
        order: Order,
    ) -> Result<AdoptionReport, OperationError> {
        let lineage = self.lineage(ensemble)?;
        let leadership = self.leadership("adopt")?;
        two_histories(&lineage)?;
        let quiet = tokio::time::timeout(QUIET_PATIENCE, lineage.quiet()).await;
        let _nobody_compares = quiet.map_err(|_| OperationError::StillAtWork { ensemble: label(&lineage) })?;
        // Somebody else may have decided, or the ensemble come back, while we waited.
        let two = two_histories(&lineage)?;
        let report = self.decide(&lineage, &leadership, &two, decision, order).await;
        // Also after an error: it may be that nothing is as it was found.
        lineage.look_again();
        report
    }

    async fn decide(
        &self,
        lineage: &Lineage,
        leadership: &Leadership,
        two: &TwoHistories,
        decision: Adopt,
        order: Order,
    ) -> Result<AdoptionReport, OperationError> {
        let ensemble = lineage.ensemble();
        let already = || OperationError::NothingToAdopt {
            ensemble: label(lineage),
            reason: "somebody else has just decided".to_owned(),
        };
        let memory = self.0.ledger.lineage(ensemble).await?;
        if memory.generation != two.generation {
            return Err(already());
        }
        let adoption = adoption(&memory, &two.broken, decision);
        let schedules = self.0.schedules.borrow().clone();
        let watching = watching(&schedules, ensemble);
        let names: Vec<ScheduleName> = watching.iter().map(|(schedule, _)| schedule.name.clone()).collect();
        let detail = format!("{} ({}), generation {}", decision.as_str(), two.message, adoption.memory.generation);
        let audit = order.audit("adopt", label(lineage), Some(detail));
        if !self.0.ledger.adopt(leadership, ensemble, &memory, &adoption, &names, audit).await? {
            return Err(already());
        }
        let cursors_kept = adoption.cursors == CursorsAfter::Kept;
        let those = |which: &dyn Fn(&ZnodeTrigger) -> bool| -> Vec<String> {
            let chosen = watching.iter().filter(|(_, trigger)| which(trigger));
            chosen.map(|(schedule, _)| schedule.name.to_string()).collect()
        };
        tracing::info!(
            ensemble = label(lineage),
            decision = decision.as_str(),
            generation = adoption.memory.generation,
            "an operator has adopted the ensemble"
        );
        Ok(AdoptionReport {
            ensemble: ensemble.map(ToOwned::to_owned),
            cause: two.broken.as_str().to_owned(),
            decision,
            generation: adoption.memory.generation,
            cursors_kept,
            schedules: those(&|_| true),
            left: those(&|trigger| trigger.consume.is_some() && decision == Adopt::Ignore),
            regrouped: those(&|trigger| trigger.settle.is_some() && cursors_kept),
        })
    }

    fn lineage(&self, ensemble: Option<&str>) -> Result<Lineage, OperationError> {
        let known = self.0.lineages.borrow().get(&ensemble.map(Arc::from)).cloned();
        known.ok_or_else(|| match ensemble {
            Some(name) => OperationError::NoEnsemble { name: name.to_owned() },
            None => OperationError::NoHome,
        })
    }
}

fn label(lineage: &Lineage) -> String {
    lineage.ensemble().unwrap_or("home").to_owned()
}

/// The schedules that watch an ensemble.
fn watching<'s>(schedules: &'s [Arc<Schedule>], ensemble: Option<&str>) -> Vec<(&'s Schedule, &'s ZnodeTrigger)> {
    schedules
        .iter()
        .filter_map(|schedule| match &schedule.trigger {
            Trigger::Znode(trigger) if trigger.ensemble.as_deref() == ensemble => Some((&**schedule, trigger)),
            _ => None,
        })
        .collect()
}

/// What there is to decide about.
fn two_histories(lineage: &Lineage) -> Result<Arc<TwoHistories>, OperationError> {
    let reason = match &*lineage.standing().borrow() {
        Standing::Two(two) => return Ok(Arc::clone(two)),
        Standing::One { .. } => "it has the ledger's history, and its triggers work".to_owned(),
        Standing::Unchecked { reason: Some(reason) } => {
            format!("it is not known whether it has another history: {reason}")
        }
        Standing::Unchecked { reason: None } => {
            "it is not known whether it has another history: no session has shown it yet".to_owned()
        }
    };
    Err(OperationError::NothingToAdopt { ensemble: label(lineage), reason })
}

fn overview(lineage: &Lineage) -> LineageOverview {
    let standing = lineage.standing().borrow().clone();
    let shown = LineageOverview {
        ensemble: lineage.ensemble().map(ToOwned::to_owned),
        histories: "unknown".to_owned(),
        generation: None,
        cause: None,
        reason: None,
        hint: None,
    };
    match standing {
        Standing::Unchecked { reason } => LineageOverview { reason, ..shown },
        Standing::One { generation, .. } => {
            LineageOverview { histories: "one".to_owned(), generation: Some(generation), ..shown }
        }
        Standing::Two(two) => LineageOverview {
            histories: "two".to_owned(),
            generation: Some(two.generation),
            cause: Some(two.broken.as_str().to_owned()),
            reason: Some(two.message.clone()),
            hint: Some(two.hint.clone()),
            ..shown
        },
    }
}
