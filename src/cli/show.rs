//! How runs and states look, wherever they are shown.

use jiff::tz::TimeZone;

use super::context::Zones;
use super::output::{Cell, Fit, Rows, Tone};
use super::time::{show_milliseconds, show_time};
use crate::domain::run::RunState;
use crate::store::model::Run;

/// The fields of a run in CSV.
pub(super) const RUN_FIELDS: [&str; 27] = [
    "id",
    "schedule",
    "owner",
    "airflow",
    "dag_id",
    "dag_run_id",
    "trigger",
    "nominal_time",
    "from",
    "to",
    "count",
    "due_at",
    "recorded_at",
    "submitted_at",
    "accepted_at",
    "started_at",
    "ended_at",
    "state",
    "reason",
    "coalesced",
    "reopened",
    "conf",
    "lateness_ms.record",
    "lateness_ms.submit",
    "lateness_ms.queue",
    "duration_ms",
    "attempts",
];

/// What a state's colour says.
pub(super) fn tone(state: RunState) -> Tone {
    match state {
        RunState::Success => Tone::Good,
        RunState::Pending | RunState::Queued | RunState::Running => Tone::Active,
        RunState::Skipped | RunState::Missed | RunState::Removed => Tone::Warning,
        RunState::Failed | RunState::Rejected => Tone::Bad,
    }
}

/// A state, and how many occurrences it stands for.
pub(super) fn state_cell(state: RunState, count: i64) -> Cell {
    let text = if count > 1 { format!("{state} ×{count}") } else { state.to_string() };
    Cell::toned(text, tone(state))
}

/// Runs as a table.
pub(super) fn run_rows(runs: &[Run], zones: &Zones) -> Rows {
    let mut rows = Rows::new([
        ("ID", Fit::Number),
        ("SCHEDULE", Fit::Wrap),
        ("STATE", Fit::Whole),
        ("DUE", Fit::Whole),
        ("LATE", Fit::OptionalNumber),
        ("TOOK", Fit::OptionalNumber),
        ("DAG", Fit::Optional),
        ("REASON", Fit::Wrap),
    ]);
    for run in runs {
        let late = run.lateness_ms.submit.or(run.lateness_ms.record.filter(|_| run.state.is_open()));
        rows.push([
            run.id.to_string().into(),
            run.schedule.clone().into(),
            state_cell(run.state, run.count),
            show_time(run.due_at, zones.of(&run.schedule)).into(),
            late.map(show_milliseconds).unwrap_or_default().into(),
            run.duration_ms.map(show_milliseconds).unwrap_or_default().into(),
            run.dag_id.clone().into(),
            run.reason.clone().unwrap_or_default().into(),
        ]);
    }
    rows
}

/// One run in full.
pub(super) fn run_properties(run: &Run, zone: &TimeZone) -> Vec<(&'static str, Cell)> {
    let time = |time: Option<jiff::Timestamp>| time.map(|time| show_time(time, zone)).unwrap_or_default().into();
    let text = |text: &Option<String>| text.clone().unwrap_or_default().into();
    let number = |number: i64| if number > 0 { number.to_string() } else { String::new() }.into();
    let milliseconds = |value: Option<i64>| value.map(show_milliseconds).unwrap_or_default();
    let late = [
        ("recorded", milliseconds(run.lateness_ms.record)),
        ("submitted", milliseconds(run.lateness_ms.submit)),
        ("started", milliseconds(run.lateness_ms.queue)),
    ];
    let late: Vec<_> = late
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(step, value)| format!("{step} {value}"))
        .collect();
    let conf = if run.conf.is_null() { String::new() } else { run.conf.to_string() };
    let attempts: Vec<_> = run
        .attempts
        .iter()
        .map(|attempt| {
            let status = attempt.http_status.map(|status| format!(" ({status})")).unwrap_or_default();
            let detail = attempt.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{} {}{status}{detail}", show_time(attempt.started_at, zone), attempt.outcome)
        })
        .collect();
    let timeline: Vec<_> = run
        .timeline
        .iter()
        .map(|entry| {
            let reason = entry.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{} {}{reason}", show_time(entry.at, zone), entry.state)
        })
        .collect();
    vec![
        ("run", run.id.to_string().into()),
        ("schedule", run.schedule.clone().into()),
        ("owner", text(&run.owner)),
        ("state", state_cell(run.state, run.count)),
        ("reason", text(&run.reason)),
        ("hint", text(&run.hint)),
        ("trigger", run.trigger.as_str().into()),
        ("nominal time", time(run.nominal_time)),
        ("covers from", time(run.from)),
        ("covers to", time(run.to)),
        ("due", time(Some(run.due_at))),
        ("recorded", time(Some(run.recorded_at))),
        ("submitted", time(run.submitted_at)),
        ("accepted", time(run.accepted_at)),
        ("started", time(run.started_at)),
        ("ended", time(run.ended_at)),
        ("took", milliseconds(run.duration_ms).into()),
        ("after due", late.join(", ").into()),
        ("coalesced", number(run.coalesced)),
        ("reopened", number(run.reopened)),
        ("airflow", run.airflow.clone().into()),
        ("dag", run.dag_id.clone().into()),
        ("dag_run_id", run.dag_run_id.clone().into()),
        ("conf", conf.into()),
        ("attempts", attempts.join("\n").into()),
        ("timeline", timeline.join("\n").into()),
    ]
}
