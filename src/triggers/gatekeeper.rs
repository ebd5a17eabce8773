//! Opens and closes the gates: watches pauses in the ledger and paused DAGs in Airflow.
//!
//! It decides nothing by itself: `judge` is a pure function over what is known, and the loop only
//! waits for one of its sources to change, or for a pause to run out. Which schedules wait for a paused
//! DAG is noted in the ledger: for whoever reads it, and for the next start while Airflow is away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::gate::{Gate, Gates};
use crate::airflow::dags::DagDirectory;
use crate::clock::Clock;
use crate::domain::schedule::{PausedDag, Schedule, ScheduleName};
use crate::store::model::{Pause, ScheduleStates};
use crate::store::{Leadership, Ledger, StoreError};

/// How long to wait before the ledger is asked again after it did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The directories of all Airflows, by name.
pub type Directories = HashMap<Arc<str>, watch::Receiver<DagDirectory>>;

/// What is guarded: the schedules in force, and what is known of their DAGs.
#[derive(Debug, Clone)]
pub struct Guarded {
    /// The schedules.
    pub schedules: Arc<Vec<Arc<Schedule>>>,
    /// What Airflow says of their DAGs.
    pub directories: Directories,
}

impl Guarded {
    /// The gates at `now`: what triggers must know before they start.
    pub fn gates(&self, states: &ScheduleStates, now: Timestamp) -> Gates {
        let paused = |schedule: &Schedule| dag_is_paused(&self.directories, states, schedule);
        Arc::new(judge(&self.schedules, states, paused, now))
    }

    /// Whether `states` are of this set. Between the moment at which the ledger takes another one and the moment at
    /// which it is guarded here, a schedule that is renamed is not known by its old name, and neither is its pause.
    fn is_what_the_ledger_has(&self, states: &ScheduleStates) -> bool {
        self.schedules.iter().all(|schedule| states.contains_key(&schedule.name))
    }
}

/// Publishes the gates until the leadership is lost.
///
/// Whoever changes what is guarded publishes the gates that follow in the same step. What is read here of the
/// ledger may be of the set before that or of one to come, and is then not used.
pub async fn run(
    ledger: Ledger,
    leadership: Leadership,
    mut guarded: watch::Receiver<Guarded>,
    gates: watch::Sender<Gates>,
    clock: Clock,
) -> Result<(), StoreError> {
    let mut pauses = ledger.pauses();
    let lost = leadership.lost().clone();
    loop {
        pauses.mark_unchanged();
        let mut known = guarded.borrow_and_update().clone();
        for directory in known.directories.values_mut() {
            directory.mark_unchanged();
        }
        let until = match ledger.schedule_states().await {
            Ok(states) if !known.is_what_the_ledger_has(&states) => {
                tracing::debug!("the ledger has other schedules by now; the gates stay until they are in force");
                jiff::SignedDuration::try_from(RETRY_PAUSE).ok()
            }
            Ok(states) => {
                let now = clock.now();
                let closed = known.gates(&states, now);
                let mut is_past = false;
                gates.send_if_modified(|open| {
                    is_past = guarded.has_changed().unwrap_or(false);
                    let news = !is_past && *open != closed;
                    if news {
                        *open = closed;
                    }
                    news
                });
                if is_past {
                    continue;
                }
                let Guarded { schedules, directories } = &known;
                let news = news_of_dags(schedules, &states, |schedule| dag_is_paused(directories, &states, schedule));
                let noted = if news.is_empty() { Ok(()) } else { ledger.note_paused_dags(&leadership, news).await };
                match noted {
                    Ok(()) => next_expiry(&states, now).map(|until| until.duration_since(now)),
                    // The gates are where they belong; only the note is owed.
                    Err(error) if error.is_transient() => {
                        tracing::warn!(error = %error, "which DAGs are paused could not be noted; tried again");
                        jiff::SignedDuration::try_from(RETRY_PAUSE).ok()
                    }
                    Err(error) => return Err(error),
                }
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
            changed = guarded.changed() => if changed.is_err() { return Ok(()) },
            () = any_changed(&mut known.directories) => {}
            () = expiry => {}
        }
    }
}

/// Whether Airflow has the schedule's DAG paused; what the ledger remembers while Airflow has not said.
fn dag_is_paused(directories: &Directories, states: &ScheduleStates, schedule: &Schedule) -> bool {
    let said = directories
        .get(&schedule.airflow)
        .and_then(|directory| directory.borrow().facts(&schedule.dag_id).map(|facts| facts.is_paused));
    said.unwrap_or_else(|| states.get(&schedule.name).is_some_and(|state| state.dag_paused_at.is_some()))
}

/// What the ledger does not know yet of the schedules that wait for a paused DAG.
fn news_of_dags(
    schedules: &[Arc<Schedule>],
    states: &ScheduleStates,
    mut dag_is_paused: impl FnMut(&Schedule) -> bool,
) -> Vec<(ScheduleName, bool)> {
    let mut news = Vec::new();
    for schedule in schedules {
        let Some(state) = states.get(&schedule.name) else { continue };
        let paused = schedule.paused_dag == PausedDag::Hold && dag_is_paused(schedule);
        if paused != state.dag_paused_at.is_some() {
            news.push((schedule.name.clone(), paused));
        }
    }
    news
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
fn next_expiry(states: &ScheduleStates, now: Timestamp) -> Option<Timestamp> {
    states.values().filter_map(|state| state.pause.as_ref()?.until).filter(|until| *until > now).min()
}

/// Which gates are not open at `now`, and why. The configuration comes first, then the operator,
/// then Airflow.
fn judge(
    schedules: &[Arc<Schedule>],
    states: &ScheduleStates,
    mut dag_is_paused: impl FnMut(&Schedule) -> bool,
    now: Timestamp,
) -> HashMap<ScheduleName, Gate> {
    let mut closed = HashMap::new();
    for schedule in schedules {
        let pause = states.get(&schedule.name).and_then(|state| state.pause.as_ref());
        let pause = pause.filter(|pause| pause.until.is_none_or(|until| until > now));
        let dag = dag_is_paused(schedule);
        let gate = if schedule.paused {
            Gate::Paused { reason: "the schedule was paused in the configuration".into(), dag }
        } else if let Some(pause) = pause {
            Gate::Paused { reason: pause_reason(pause).into(), dag }
        } else if dag {
            let reason = format!("the DAG {} was paused in Airflow {}", schedule.dag_id, schedule.airflow).into();
            match schedule.paused_dag {
                PausedDag::Skip => Gate::Skipping { reason },
                PausedDag::Hold => Gate::Paused { reason, dag },
                PausedDag::Submit => Gate::Submitting,
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

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;
    use crate::airflow::DagFacts;
    use crate::config::{self, Environment};
    use crate::store::TriggerIdentity;
    use crate::store::model::ScheduleState;

    /// Schedules named after their `paused_dag`, and one that the configuration pauses.
    fn schedules() -> Vec<Arc<Schedule>> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("flowkeeper.toml");
        let mut text = "[airflow.main]\nurl = \"http://127.0.0.1:1\"\nauth = { token = { env = \"T\" } }\n".to_owned();
        for name in ["hold", "submit", "skip"] {
            text +=
                &["[[schedule]]\nname = \"", name, "\"\ncron = \"@daily\"\ndag = \"d\"\npaused_dag = \"", name, "\"\n"]
                    .concat();
        }
        text += "[[schedule]]\nname = \"off\"\ncron = \"@daily\"\ndag = \"d\"\npaused = true\n";
        std::fs::write(&file, text).unwrap();
        config::check(&file, &Environment::default()).unwrap().0.schedules
    }

    fn state(name: &str, until: Option<Timestamp>) -> (ScheduleName, ScheduleState) {
        let name = ScheduleName::new(name).unwrap();
        let at = Timestamp::UNIX_EPOCH;
        let pause = Pause { by: "ada".into(), reason: Some("upgrade".into()), until, at };
        let state = ScheduleState {
            name: name.clone(),
            trigger_key: String::new(),
            since: at,
            cron_cursor: at,
            znode_initialized: None,
            znode_after: None,
            first_look: None,
            pause: Some(pause),
            dag_paused_at: None,
        };
        (name, state)
    }

    #[test]
    fn what_airflow_says_is_noted_once_and_remembered_while_it_says_nothing() {
        let schedules = schedules();
        let hold = &schedules[0];
        let mut states = HashMap::from([state("hold", None), state("submit", None)]);
        let noted = vec![(hold.name.clone(), true)];
        assert_eq!(news_of_dags(&schedules, &states, |_| true), noted, "only who holds waits for the DAG");
        assert_eq!(news_of_dags(&schedules, &states, |_| false), []);

        let directories = |facts: Option<bool>| {
            let facts = facts.map(|is_paused| DagFacts {
                dag_id: "d".into(),
                is_paused,
                has_import_errors: false,
                own_schedule: None,
            });
            Directories::from([("main".into(), watch::channel(facts.into_iter().collect()).1)])
        };
        for (said, remembered, expected) in
            [(None, false, false), (None, true, true), (Some(false), true, false), (Some(true), false, true)]
        {
            let state = states.get_mut(&hold.name).unwrap();
            state.dag_paused_at = remembered.then_some(Timestamp::UNIX_EPOCH);
            let paused = dag_is_paused(&directories(said), &states, hold);
            assert_eq!(paused, expected, "said {said:?}, remembered {remembered}");
        }
    }

    #[test]
    fn each_cause_closes_the_gate_that_it_is_meant_for() {
        let schedules = schedules();
        let gate = |gates: &HashMap<ScheduleName, Gate>, name: &str| gates.get(name).cloned().unwrap_or_default();
        let paused = |reason: &str, dag: bool| Gate::Paused { reason: reason.into(), dag };
        let now = Timestamp::UNIX_EPOCH;

        let gates = judge(&schedules, &HashMap::new(), |_| false, now);
        assert_eq!(gate(&gates, "off"), paused("the schedule was paused in the configuration", false));
        assert_eq!(gates.len(), 1);

        let gates = judge(&schedules, &HashMap::new(), |_| true, now);
        let reason = "the DAG d was paused in Airflow main";
        assert_eq!(gate(&gates, "hold"), paused(reason, true));
        assert_eq!(gate(&gates, "off"), paused("the schedule was paused in the configuration", true));
        assert_eq!(gate(&gates, "skip"), Gate::Skipping { reason: reason.into() });
        assert_eq!(gate(&gates, "submit"), Gate::Submitting);

        let until = now + jiff::SignedDuration::from_hours(1);
        let states = HashMap::from([state("submit", Some(until))]);
        assert_eq!(
            gate(&judge(&schedules, &states, |_| true, now), "submit"),
            paused("the schedule was paused by ada: upgrade", true)
        );
        assert_eq!(gate(&judge(&schedules, &states, |_| true, until), "submit"), Gate::Submitting, "it has run out");
        assert_eq!(next_expiry(&states, now), Some(until));
        assert_eq!(next_expiry(&states, until), None);
    }

    #[tokio::test]
    async fn a_note_that_the_store_does_not_take_is_owed_and_ends_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&url, Clock::system()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let hold = Arc::clone(&schedules()[0]);
        let identity = TriggerIdentity { name: hold.name.clone(), was: Vec::new(), key: hold.trigger.identity() };
        ledger.adopt_schedules(&leadership, &[identity], Timestamp::UNIX_EPOCH).await.unwrap();
        let facts = DagFacts { dag_id: "d".into(), is_paused: true, has_import_errors: false, own_schedule: None };
        let directories = Directories::from([("main".into(), watch::channel(std::iter::once(facts).collect()).1)]);

        // Another process holds the file for longer than a write waits for it.
        let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
        let (gates, watched) = watch::channel(Gates::default());
        let lost = leadership.lost().clone();
        let guarded = watch::Sender::new(Guarded { schedules: Arc::new(vec![hold.clone()]), directories });
        let gatekeeper = tokio::spawn(run(ledger.clone(), leadership, guarded.subscribe(), gates, Clock::system()));
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert!(!gatekeeper.is_finished() && !lost.is_cancelled(), "it goes on");
        assert!(watched.borrow().contains_key(&hold.name), "the gate is closed all the same");
        sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
        let noted = async {
            while ledger.schedule_states().await.unwrap()[&hold.name].dag_paused_at.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), noted).await.expect("it is noted when the file is free");
        lost.cancel();
        gatekeeper.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn between_the_commit_of_an_edit_and_its_gates_nothing_that_is_paused_opens() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let ledger = Ledger::open(&url, Clock::system()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let before = schedules();
        let renamed = Schedule {
            name: ScheduleName::new("held").unwrap(),
            was: vec![before[0].name.clone()],
            ..(*before[0]).clone()
        };
        let after = vec![Arc::new(renamed), Arc::clone(&before[1])];
        let identities = |schedules: &[Arc<Schedule>]| -> Vec<TriggerIdentity> {
            let identity = |schedule: &Arc<Schedule>| TriggerIdentity {
                name: schedule.name.clone(),
                was: schedule.was.clone(),
                key: schedule.trigger.identity(),
            };
            schedules.iter().map(identity).collect()
        };
        let pause = async |schedule: &ScheduleName| {
            let pause = Pause { by: "ada".into(), reason: None, until: None, at: Timestamp::UNIX_EPOCH };
            let audit = crate::store::model::NewAudit {
                actor: "ada".into(),
                source: "test".into(),
                action: "pause",
                target: schedule.to_string(),
                detail: None,
                reason: None,
            };
            ledger.pause(&leadership, schedule, pause, audit).await.unwrap();
        };
        let guarded = |schedules: &[Arc<Schedule>]| Guarded {
            schedules: Arc::new(schedules.to_vec()),
            directories: Directories::new(),
        };
        ledger.adopt_schedules(&leadership, &identities(&before[..2]), Timestamp::UNIX_EPOCH).await.unwrap();
        pause(&before[0].name).await;
        let states = ledger.schedule_states().await.unwrap();
        let (gates, watched) = watch::channel(guarded(&before[..2]).gates(&states, Timestamp::UNIX_EPOCH));
        let (set, watched_set) = watch::channel(guarded(&before[..2]));
        let keeper = tokio::spawn(run(ledger.clone(), leadership.clone(), watched_set, gates, Clock::system()));
        // Each time that gates are published, whether both names of the paused one are open.
        let mut told = watched.clone();
        let publications = tokio::spawn(async move {
            let mut opened = Vec::new();
            while told.changed().await.is_ok() {
                let gates = told.borrow_and_update();
                opened.push(!["hold", "held"].iter().any(|name| gates.contains_key(*name)));
            }
            opened
        });

        let (now, compared) = (Timestamp::UNIX_EPOCH, HashMap::new());
        ledger.edit_schedules(&leadership, &identities(&after), now, &compared).await.unwrap();
        // Something wakes the gatekeeper before it is told of the edit; a while later it is told.
        pause(&before[1].name).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        set.send_replace(guarded(&after));
        let mut all = watched;
        let both = |gates: &Gates| ["held", "submit"].iter().all(|name| gates.contains_key(*name));
        drop(all.wait_for(both).await.unwrap());
        leadership.give_up();
        keeper.await.unwrap().unwrap();
        assert_eq!(publications.await.unwrap(), [false]);
    }
}
