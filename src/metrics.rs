//! Every metric that flowkeeper exports: its name, its help and the one function that moves it.
//!
//! Other modules call these functions and know no names, so what a dashboard depends on is in one
//! file. Names follow Prometheus: base units, `_total` on counters. Labels have few values: states,
//! outcomes, names from the configuration; never run ids or paths.

pub mod ensembles;

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::domain::component::{ComponentKind, ComponentState};
use crate::domain::run::RunState;
use crate::domain::schedule::TriggerKind;
use crate::domain::sync::plan::Step;

const RUNS: &str = "flowkeeper_runs_total";
const OCCURRENCES: &str = "flowkeeper_occurrences_total";
const ATTEMPTS: &str = "flowkeeper_attempts_total";
const LATENESS: &str = "flowkeeper_lateness_seconds";
const RUN_DURATION: &str = "flowkeeper_run_duration_seconds";
const PENDING: &str = "flowkeeper_pending_runs";
const OPEN: &str = "flowkeeper_open_runs";
const AIRFLOW_IN_FLIGHT: &str = "flowkeeper_airflow_requests_in_flight";
const AIRFLOW_LIMIT: &str = "flowkeeper_airflow_in_flight_limit";
const AIRFLOW_UP: &str = "flowkeeper_airflow_up";
const AIRFLOW_COMPONENTS: &str = "flowkeeper_airflow_components";
const AIRFLOW_HEARTBEAT_AGE: &str = "flowkeeper_airflow_heartbeat_age_seconds";
const AIRFLOW_WARNINGS: &str = "flowkeeper_airflow_warnings";
const ZNODE_EVENTS: &str = "flowkeeper_znode_events_total";
const ZNODE_RECONCILES: &str = "flowkeeper_znode_reconciles_total";
const ZNODE_COALESCED: &str = "flowkeeper_znode_coalesced_changes_total";
const ZOOKEEPER_CONNECTED: &str = "flowkeeper_zookeeper_connected";
const ZOOKEEPER_SESSIONS: &str = "flowkeeper_zookeeper_sessions_total";
const ADOPTION_NEEDED: &str = "flowkeeper_adoption_needed";
const ZOOKEEPER_GENERATION: &str = "flowkeeper_zookeeper_generation";
const LOCK_WAIT: &str = "flowkeeper_lock_wait_seconds";
const LOCKS_HELD: &str = "flowkeeper_lock_held_runs";
const LOCKS_WAITING: &str = "flowkeeper_lock_waiting_runs";
const ENSEMBLE_INSPECTION: &str = "flowkeeper_ensemble_inspection_seconds";
const CANARY: &str = "flowkeeper_ensemble_canary_seconds";
const LEDGER_COMMIT: &str = "flowkeeper_ledger_commit_seconds";
const LEDGER_BATCH: &str = "flowkeeper_ledger_batch_writes";
const LEDGER_WRITABLE: &str = "flowkeeper_ledger_writable";
const LEADER: &str = "flowkeeper_leader";
const EPOCH: &str = "flowkeeper_epoch";
const MEMBERS: &str = "flowkeeper_members";
const MEMBERS_OUT_OF_STEP: &str = "flowkeeper_members_out_of_step";
const TERMS: &str = "flowkeeper_terms_total";
const TAKING_LEAD: &str = "flowkeeper_taking_lead_seconds";
const FORWARDED: &str = "flowkeeper_forwarded_requests_total";
const SCHEDULES: &str = "flowkeeper_schedules";
const RELOADS: &str = "flowkeeper_definitions_reloads_total";
const APPLYING: &str = "flowkeeper_definitions_apply_seconds";
const REFUSED: &str = "flowkeeper_definitions_refused";
const CLOCK_JUMPS: &str = "flowkeeper_clock_jumps_total";
const SYNC_ENTRIES: &str = "flowkeeper_sync_entries";
const SYNC_COMPARISONS: &str = "flowkeeper_sync_comparisons_total";
const SYNC_WRITES: &str = "flowkeeper_sync_writes_total";
const SYNC_FAILING: &str = "flowkeeper_sync_failing";
const HTTP_REQUESTS: &str = "flowkeeper_http_requests_total";

/// From a millisecond, which a cron run should meet, to an hour, which is an outage.
const LATENESS_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// From a second to half a day.
const DURATION_BUCKETS: [f64; 12] =
    [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 43_200.0];
/// An inspection waits two seconds between its samples, and for each server that is silent.
const INSPECTION_BUCKETS: [f64; 9] = [0.1, 0.5, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 60.0];
/// A step takes milliseconds; from a quarter of a second on it is a warning, from one on critical.
const CANARY_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
/// One fdatasync takes 0.2 to 4 ms; a busy disk far longer.
const COMMIT_BUCKETS: [f64; 11] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];
/// Writes that share one transaction.
const BATCH_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Which step of a run is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatenessStep {
    /// From due to recorded.
    Record,
    /// From due to the first request.
    Submit,
}

impl LatenessStep {
    fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Submit => "submit",
        }
    }
}

/// A set of definitions was `taken` or `refused`.
pub fn definitions_reloaded(outcome: &'static str) {
    counter!(RELOADS, "outcome" => outcome).increment(1);
}

/// A leader went over to other definitions.
pub fn definitions_applied(took: Duration) {
    histogram!(APPLYING).record(took.as_secs_f64());
}

/// Whether the newest definitions are refused.
pub fn definitions_refused(refused: bool) {
    gauge!(REFUSED).set(if refused { 1.0 } else { 0.0 });
}

/// What was done to an entry of an Airflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryWrite {
    /// It was made.
    Create,
    /// It was changed.
    Update,
    /// It was deleted.
    Delete,
}

impl EntryWrite {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Makes the recorder of this process and returns what renders it. Metrics that were moved before
/// are lost; a second call fails.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(full(LATENESS), &LATENESS_BUCKETS)?
        .set_buckets_for_metric(full(RUN_DURATION), &DURATION_BUCKETS)?
        .set_buckets_for_metric(full(LOCK_WAIT), &DURATION_BUCKETS)?
        .set_buckets_for_metric(full(ENSEMBLE_INSPECTION), &INSPECTION_BUCKETS)?
        .set_buckets_for_metric(full(CANARY), &CANARY_BUCKETS)?
        .set_buckets_for_metric(full(LEDGER_COMMIT), &COMMIT_BUCKETS)?
        .set_buckets_for_metric(full(TAKING_LEAD), &LATENESS_BUCKETS)?
        .set_buckets_for_metric(full(APPLYING), &LATENESS_BUCKETS)?
        .set_buckets_for_metric(full(LEDGER_BATCH), &BATCH_BUCKETS)
}

fn describe() {
    describe_counter!(RELOADS, Unit::Count, "Sets of definitions that were proposed and new, by outcome");
    describe_histogram!(APPLYING, Unit::Seconds, "Time in which a leader went over to other definitions");
    describe_gauge!(REFUSED, "1 while the newest definitions are refused, and older ones are in force");
    describe_counter!(RUNS, Unit::Count, "Moves of runs into a state, by state and trigger");
    describe_counter!(OCCURRENCES, Unit::Count, "Occurrences recorded, by trigger");
    describe_counter!(ATTEMPTS, Unit::Count, "Requests to Airflow for runs, by Airflow and outcome");
    describe_histogram!(LATENESS, Unit::Seconds, "From the due time to the step: recorded, or first request sent");
    describe_histogram!(RUN_DURATION, Unit::Seconds, "From start to end of a DAG run of ours, by final state");
    describe_gauge!(PENDING, Unit::Count, "Runs recorded and not yet known to be accepted, by Airflow");
    describe_gauge!(OPEN, Unit::Count, "Runs that Airflow holds and has not ended, by Airflow");
    describe_gauge!(AIRFLOW_IN_FLIGHT, Unit::Count, "Submitting requests under way, by Airflow");
    describe_gauge!(AIRFLOW_LIMIT, Unit::Count, "Submitting requests allowed at a time, by Airflow");
    describe_gauge!(
        AIRFLOW_UP,
        "1 when the last request to the Airflow was answered, 0 when not; NaN where nobody asks"
    );
    describe_gauge!(AIRFLOW_COMPONENTS, Unit::Count, "Parts of an Airflow that are not gone, by kind and state");
    describe_gauge!(
        AIRFLOW_HEARTBEAT_AGE,
        Unit::Seconds,
        "Age of the latest heartbeat of a kind of part when Airflow was asked last"
    );
    describe_gauge!(AIRFLOW_WARNINGS, Unit::Count, "What somebody may want to look at in an Airflow; 0 is well");
    describe_counter!(ZNODE_EVENTS, Unit::Count, "Watch events received, by ensemble");
    describe_counter!(ZNODE_RECONCILES, Unit::Count, "Comparisons of znodes with the ledger, by ensemble and cause");
    describe_counter!(ZNODE_COALESCED, Unit::Count, "Changes that ZooKeeper merged into others, by ensemble");
    describe_gauge!(ZOOKEEPER_CONNECTED, "1 while the session with the ensemble is connected");
    describe_counter!(ZOOKEEPER_SESSIONS, Unit::Count, "Sessions established, by ensemble");
    describe_gauge!(
        ADOPTION_NEEDED,
        "1 while znode triggers stand still, since the ensemble was rebuilt or the ledger restored, by ensemble"
    );
    describe_gauge!(ZOOKEEPER_GENERATION, "How often a rebuilt ensemble was adopted, by ensemble");
    describe_histogram!(LOCK_WAIT, Unit::Seconds, "From asking for a lock to holding it, by lock");
    describe_gauge!(SYNC_ENTRIES, Unit::Count, "Keys of a sync as its last comparison found or left them, by step");
    describe_counter!(SYNC_COMPARISONS, Unit::Count, "Comparisons of a sync, by outcome");
    describe_counter!(SYNC_WRITES, Unit::Count, "Entries of Airflow that a sync wrote or deleted, by what it did");
    describe_gauge!(SYNC_FAILING, "1 while the last comparison of a sync failed");
    describe_gauge!(LOCKS_HELD, Unit::Count, "Runs of ours that hold a lock, by lock");
    describe_gauge!(LOCKS_WAITING, Unit::Count, "Runs of ours that wait for a lock, by lock");
    describe_histogram!(ENSEMBLE_INSPECTION, Unit::Seconds, "Time of one inspection of an ensemble, by ensemble");
    describe_histogram!(CANARY, Unit::Seconds, "Time of one step of the canary, by ensemble and step");
    describe_histogram!(LEDGER_COMMIT, Unit::Seconds, "Time of one commit of the ledger, the disk's part included");
    describe_histogram!(LEDGER_BATCH, Unit::Count, "Writes that shared one commit");
    describe_gauge!(LEDGER_WRITABLE, "1 while the ledger can be written");
    describe_gauge!(LEADER, "1 while this member schedules");
    describe_gauge!(EPOCH, Unit::Count, "The epoch in force in the store; grows when a leader is replaced");
    describe_gauge!(MEMBERS, Unit::Count, "Members that have a session with the home ensemble, as seen from here");
    describe_gauge!(
        MEMBERS_OUT_OF_STEP,
        Unit::Count,
        "Members that run other definitions than the leader or do not record what came due, as seen from here"
    );
    describe_counter!(TERMS, Unit::Count, "Terms that this member has led");
    describe_histogram!(TAKING_LEAD, Unit::Seconds, "From being first in the queue to all triggers started");
    describe_counter!(FORWARDED, Unit::Count, "Requests that this member was to pass on to the leader, by outcome");
    describe_gauge!(SCHEDULES, Unit::Count, "Schedules in the configuration, by trigger");
    describe_counter!(CLOCK_JUMPS, Unit::Count, "Jumps of the wall clock and suspends that were noticed");
    describe_counter!(HTTP_REQUESTS, Unit::Count, "Requests to flowkeeper's own API, by route, method and status");
}

/// A run moved into a state.
pub fn run_moved(trigger: TriggerKind, state: RunState) {
    counter!(RUNS, "trigger" => trigger.as_str(), "state" => state.as_str()).increment(1);
}

/// Occurrences were recorded: one, or as many as a row covers.
pub fn occurrences_recorded(trigger: TriggerKind, count: u64) {
    counter!(OCCURRENCES, "trigger" => trigger.as_str()).increment(count);
}

/// A request to Airflow for a run has ended: `accepted`, `retry`, `unknown` or `rejected`.
pub fn attempt_ended(airflow: &str, outcome: &'static str) {
    counter!(ATTEMPTS, "airflow" => airflow.to_owned(), "outcome" => outcome).increment(1);
}

/// A step of a run came this long after its due time; earlier than due counts as not late.
pub fn lateness(trigger: TriggerKind, step: LatenessStep, late: jiff::SignedDuration) {
    histogram!(LATENESS, "trigger" => trigger.as_str(), "step" => step.as_str()).record(late.as_secs_f64().max(0.0));
}

/// A DAG run of ours has ended.
pub fn run_ended(state: RunState, duration: Duration) {
    histogram!(RUN_DURATION, "state" => state.as_str()).record(duration.as_secs_f64());
}

/// How many runs wait to be accepted by an Airflow.
#[expect(clippy::cast_precision_loss, reason = "a gauge of rows is exact far beyond any ledger")]
pub fn pending_runs(airflow: &str, count: usize) {
    gauge!(PENDING, "airflow" => airflow.to_owned()).set(count as f64);
}

/// How many runs an Airflow holds open.
#[expect(clippy::cast_precision_loss, reason = "a gauge of rows is exact far beyond any ledger")]
pub fn open_runs(airflow: &str, count: usize) {
    gauge!(OPEN, "airflow" => airflow.to_owned()).set(count as f64);
}

/// How many submitting requests are under way, and how many may be.
#[expect(clippy::cast_precision_loss, reason = "limits are small numbers")]
pub fn airflow_pace(airflow: &str, in_flight: usize, limit: usize) {
    gauge!(AIRFLOW_IN_FLIGHT, "airflow" => airflow.to_owned()).set(in_flight as f64);
    gauge!(AIRFLOW_LIMIT, "airflow" => airflow.to_owned()).set(limit as f64);
}

/// Whether an Airflow answers.
pub fn airflow_up(airflow: &str, up: bool) {
    gauge!(AIRFLOW_UP, "airflow" => airflow.to_owned()).set(flag(up));
}

/// How many parts of a kind, in this state, an Airflow has.
#[expect(clippy::cast_precision_loss, reason = "parts are few")]
pub fn airflow_components(airflow: &str, kind: ComponentKind, state: ComponentState, count: usize) {
    gauge!(
        AIRFLOW_COMPONENTS,
        "airflow" => airflow.to_owned(),
        "component" => kind.as_str(),
        "state" => state.as_str()
    )
    .set(count as f64);
}

/// How old the latest heartbeat of a kind of part was when Airflow was asked.
pub fn airflow_heartbeat_age(airflow: &str, kind: ComponentKind, age: Duration) {
    gauge!(AIRFLOW_HEARTBEAT_AGE, "airflow" => airflow.to_owned(), "component" => kind.as_str()).set(age.as_secs_f64());
}

/// How much there is in an Airflow that somebody may want to look at.
#[expect(clippy::cast_precision_loss, reason = "warnings are few")]
pub fn airflow_warnings(airflow: &str, count: usize) {
    gauge!(AIRFLOW_WARNINGS, "airflow" => airflow.to_owned()).set(count as f64);
}

/// A run got its lock after waiting this long.
pub fn lock_granted(lock: &str, waited: jiff::SignedDuration) {
    histogram!(LOCK_WAIT, "lock" => lock.to_owned()).record(waited.as_secs_f64().max(0.0));
}

/// How many runs hold a lock (more than one only after somebody interfered), and how many wait for it.
#[expect(clippy::cast_precision_loss, reason = "a gauge of rows is exact far beyond any ledger")]
pub fn lock_runs(lock: &str, held: usize, waiting: usize) {
    gauge!(LOCKS_HELD, "lock" => lock.to_owned()).set(held as f64);
    gauge!(LOCKS_WAITING, "lock" => lock.to_owned()).set(waiting as f64);
}

/// Watch events came in.
pub fn znode_events(ensemble: &str, count: u64) {
    counter!(ZNODE_EVENTS, "ensemble" => ensemble.to_owned()).increment(count);
}

/// Znodes were compared with the ledger, because of: `event`, `reconnect`, `interval`, …
pub fn znode_reconciled(ensemble: &str, cause: &'static str) {
    counter!(ZNODE_RECONCILES, "ensemble" => ensemble.to_owned(), "cause" => cause).increment(1);
}

/// A change stood for others before it.
pub fn znode_coalesced(ensemble: &str, count: u64) {
    counter!(ZNODE_COALESCED, "ensemble" => ensemble.to_owned()).increment(count);
}

/// Whether the session with an ensemble is connected.
pub fn zookeeper_connected(ensemble: &str, connected: bool) {
    gauge!(ZOOKEEPER_CONNECTED, "ensemble" => ensemble.to_owned()).set(flag(connected));
}

/// A new session with an ensemble was established.
pub fn zookeeper_session(ensemble: &str) {
    counter!(ZOOKEEPER_SESSIONS, "ensemble" => ensemble.to_owned()).increment(1);
}

/// Whether an ensemble's znode triggers stand still until an operator decides.
pub fn adoption_needed(ensemble: &str, needed: bool) {
    gauge!(ADOPTION_NEEDED, "ensemble" => ensemble.to_owned()).set(flag(needed));
}

/// The generation of an ensemble.
pub fn zookeeper_generation(ensemble: &str, generation: u32) {
    gauge!(ZOOKEEPER_GENERATION, "ensemble" => ensemble.to_owned()).set(f64::from(generation));
}

/// An ensemble was inspected.
pub fn ensemble_inspected(ensemble: &str, took: Duration) {
    histogram!(ENSEMBLE_INSPECTION, "ensemble" => ensemble.to_owned()).record(took.as_secs_f64());
}

/// The canary took a step on a server of an ensemble.
pub fn canary_stepped(ensemble: &str, step: &'static str, took: Duration) {
    histogram!(CANARY, "ensemble" => ensemble.to_owned(), "step" => step).record(took.as_secs_f64());
}

/// The ledger committed this many writes at once.
#[expect(clippy::cast_precision_loss, reason = "batches are small numbers")]
pub fn ledger_committed(took: Duration, writes: usize) {
    histogram!(LEDGER_COMMIT).record(took.as_secs_f64());
    histogram!(LEDGER_BATCH).record(writes as f64);
}

/// Whether the ledger can be written.
pub fn ledger_writable(writable: bool) {
    gauge!(LEDGER_WRITABLE).set(flag(writable));
}

/// Whether this member schedules.
pub fn leader(leading: bool) {
    gauge!(LEADER).set(flag(leading));
}

/// The epoch that the store has.
#[expect(clippy::cast_precision_loss, reason = "an epoch counts leaders, far below what is exact")]
pub fn epoch(epoch: i64) {
    gauge!(EPOCH).set(epoch as f64);
}

/// How many members are seen, and how many of them are out of step.
#[expect(clippy::cast_precision_loss, reason = "members are few")]
pub fn members(live: usize, out_of_step: usize) {
    gauge!(MEMBERS).set(live as f64);
    gauge!(MEMBERS_OUT_OF_STEP).set(out_of_step as f64);
}

/// This member has begun to lead.
pub fn term_begun(took: Duration) {
    counter!(TERMS).increment(1);
    histogram!(TAKING_LEAD).record(took.as_secs_f64());
}

/// A request for the leader was passed on: `answered`, `unreachable`, `silent`, `foreign`; or not:
/// `no_leader`, `astray`.
pub fn request_forwarded(outcome: &'static str) {
    counter!(FORWARDED, "outcome" => outcome).increment(1);
}

/// No trigger watches this ensemble any more: it is neither connected nor cut off, and nothing in it waits
/// for an adoption.
pub fn ensemble_unwatched(ensemble: &str) {
    gauge!(ZOOKEEPER_CONNECTED, "ensemble" => ensemble.to_owned()).set(f64::NAN);
    adoption_needed(ensemble, false);
}

/// Nobody here works with this Airflow any more: what only a leader counts is nothing.
pub fn term_ended(airflow: &str) {
    pending_runs(airflow, 0);
    open_runs(airflow, 0);
    // Neither up nor down: an alert on 0 would otherwise go on for ever.
    gauge!(AIRFLOW_UP, "airflow" => airflow.to_owned()).set(f64::NAN);
    gauge!(AIRFLOW_IN_FLIGHT, "airflow" => airflow.to_owned()).set(0.0);
}

/// Nobody looks at an Airflow's parts any more, here at least.
pub fn airflow_unwatched(airflow: &str) {
    for kind in ComponentKind::ALL {
        for state in ComponentState::OF_THOSE_THERE {
            airflow_components(airflow, kind, state, 0);
        }
        airflow_heartbeat_age(airflow, kind, Duration::ZERO);
    }
    airflow_warnings(airflow, 0);
}

/// How many schedules the configuration has.
#[expect(clippy::cast_precision_loss, reason = "a count of schedules is exact far beyond any configuration")]
pub fn schedules(trigger: TriggerKind, count: usize) {
    gauge!(SCHEDULES, "trigger" => trigger.as_str()).set(count as f64);
}

/// The wall clock jumped, or the machine slept.
pub fn clock_jumped() {
    counter!(CLOCK_JUMPS).increment(1);
}

/// A request to flowkeeper's own API was answered. `route` is the pattern, not the path.
pub fn http_request(route: &str, method: &str, status: u16) {
    counter!(
        HTTP_REQUESTS,
        "route" => route.to_owned(),
        "method" => method.to_owned(),
        "status" => status.to_string()
    )
    .increment(1);
}

fn flag(value: bool) -> f64 {
    if value { 1.0 } else { 0.0 }
}

/// A sync has compared; `counts` are keys by step.
#[expect(clippy::cast_precision_loss, reason = "a gauge of keys is exact far beyond any Airflow")]
pub fn sync_compared(sync: &str, counts: &BTreeMap<String, u64>, is_good: bool) {
    let sync = sync.to_owned();
    if is_good {
        for word in Step::WORDS {
            let count = counts.get(word).copied().unwrap_or_default();
            gauge!(SYNC_ENTRIES, "sync" => sync.clone(), "step" => word).set(count as f64);
        }
    }
    gauge!(SYNC_FAILING, "sync" => sync.clone()).set(if is_good { 0.0 } else { 1.0 });
    let outcome = if is_good { "ok" } else { "failed" };
    counter!(SYNC_COMPARISONS, "sync" => sync, "outcome" => outcome).increment(1);
}

/// A sync has written or deleted entries.
pub fn sync_written(sync: &str, write: EntryWrite, count: usize) {
    counter!(SYNC_WRITES, "sync" => sync.to_owned(), "action" => write.as_str()).increment(count as u64);
}

/// A sync runs here no more: another member tells how it stands.
pub fn sync_ended(sync: &str) {
    for word in Step::WORDS {
        gauge!(SYNC_ENTRIES, "sync" => sync.to_owned(), "step" => word).set(0.0);
    }
    gauge!(SYNC_FAILING, "sync" => sync.to_owned()).set(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_carry_help_units_and_labels() {
        let recorder = builder().expect("valid buckets").build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            run_moved(TriggerKind::Cron, RunState::Success);
            attempt_ended("main", "accepted");
            lateness(TriggerKind::Cron, LatenessStep::Submit, jiff::SignedDuration::from_millis(4));
            lateness(TriggerKind::Cron, LatenessStep::Submit, jiff::SignedDuration::from_millis(-4));
            airflow_pace("main", 3, 7);
            ledger_committed(Duration::from_micros(800), 12);
        });
        let text = handle.render();
        for line in [
            "# TYPE flowkeeper_runs_total counter",
            "flowkeeper_runs_total{trigger=\"cron\",state=\"success\"} 1",
            "flowkeeper_attempts_total{airflow=\"main\",outcome=\"accepted\"} 1",
            "flowkeeper_lateness_seconds_bucket{trigger=\"cron\",step=\"submit\",le=\"0.005\"} 2",
            "flowkeeper_airflow_in_flight_limit{airflow=\"main\"} 7",
            "flowkeeper_ledger_batch_writes_bucket{le=\"16\"} 1",
        ] {
            assert!(text.contains(line), "no `{line}` in:\n{text}");
        }
    }
}
