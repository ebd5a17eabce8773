//! Opens and closes the gates: watches pauses in the ledger and paused DAGs in Airflow.
//!
//! It decides nothing by itself: `judge` is a pure function over what is known, and the loop only
//! waits for one of its sources to change, or for a pause to run out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::gate::{Gate, Gates};
use crate::airflow::dags::DagDirectory;
use crate::clock::Clock;
use crate::domain::schedule::{PausedDag, Schedule, ScheduleName};
use crate::store::model::{Pause, ScheduleState};
use crate::store::{Leadership, Ledger, StoreError};

/// How long to wait before the ledger is asked again after it did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The directories of all Airflows, by name.
pub type Directories = HashMap<Arc<str>, watch::Receiver<DagDirectory>>;

/// Publishes the gates until the leadership is lost.
pub async fn run(
    ledger: Ledger,
    leadership: Leadership,
    schedules: Arc<Vec<Arc<Schedule>>>,
    mut directories: Directories,
    gates: watch::Sender<Gates>,
    clock: Clock,
) -> Result<(), StoreError> {
    let mut pauses = ledger.pauses();
    let lost = leadership.lost().clone();
    loop {
        pauses.mark_unchanged();
        let until = match ledger.schedule_states().await {
            Ok(states) => {
                let now = clock.now();
                let closed = judge(&schedules, &states, |schedule| is_paused(&mut directories, schedule), now);
                gates.send_if_modified(|known| {
                    let news = **known != closed;
                    if news {
                        *known = Arc::new(closed);
                    }
                    news
                });
                next_expiry(&states, now).map(|until| until.duration_since(now))
            }
            Err(error) => {
                tracing::warn!(error = %error, "pauses could not be read; the gates stay as they are");
                jiff::SignedDuration::try_from(RETRY_PAUSE).ok()
            }
        };
        let expiry = async {
            match until.map(|until| Duration::try_from(until).unwrap_or_default()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = lost.cancelled() => return Ok(()),
            changed = pauses.changed() => if changed.is_err() { return Ok(()) },
            () = any_changed(&mut directories) => {}
            () = expiry => {}
        }
    }
}

fn is_paused(directories: &mut Directories, schedule: &Schedule) -> bool {
    directories
        .get_mut(&schedule.airflow)
        .is_some_and(|directory| directory.borrow_and_update().is_paused(&schedule.dag_id))
}

/// Waits until a directory changes; for ever when all their refreshers have gone.
async fn any_changed(directories: &mut Directories) {
    let mut waits: futures_util::stream::FuturesUnordered<_> =
        directories.values_mut().map(|directory| async { directory.changed().await.is_ok() }).collect();
    loop {
        match futures_util::StreamExt::next(&mut waits).await {
            Some(true) => return,
            Some(false) => {}
            None => std::future::pending().await,
        }
    }
}

/// When the next pause runs out.
fn next_expiry(states: &HashMap<ScheduleName, ScheduleState>, now: Timestamp) -> Option<Timestamp> {
    states.values().filter_map(|state| state.pause.as_ref()?.until).filter(|until| *until > now).min()
}

/// Which gates are not open at `now`, and why. The configuration comes first, then the operator,
/// then Airflow.
fn judge(
    schedules: &[Arc<Schedule>],
    states: &HashMap<ScheduleName, ScheduleState>,
    mut dag_is_paused: impl FnMut(&Schedule) -> bool,
    now: Timestamp,
) -> HashMap<ScheduleName, Gate> {
    let mut closed = HashMap::new();
    for schedule in schedules {
        let pause = states.get(&schedule.name).and_then(|state| state.pause.as_ref());
        let pause = pause.filter(|pause| pause.until.is_none_or(|until| until > now));
        let gate = if schedule.paused {
            Gate::Paused { reason: "the schedule was paused in the configuration".into() }
        } else if let Some(pause) = pause {
            Gate::Paused { reason: pause_reason(pause).into() }
        } else if schedule.paused_dag != PausedDag::Submit && dag_is_paused(schedule) {
            let reason = format!("the DAG {} was paused in Airflow {}", schedule.dag_id, schedule.airflow).into();
            match schedule.paused_dag {
                PausedDag::Skip => Gate::Skipping { reason },
                PausedDag::Hold | PausedDag::Submit => Gate::Paused { reason },
            }
        } else {
            continue;
        };
        closed.insert(schedule.name.clone(), gate);
    }
    closed
}

fn pause_reason(pause: &Pause) -> String {
    match &pause.reason {
        Some(reason) => format!("the schedule was paused by {}: {reason}", pause.by),
        None => format!("the schedule was paused by {}", pause.by),
    }
}
