//! `airflow`: each Airflow and its parts, as the leader saw them last. Reads the ledger, so it works when
//! nothing serves.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::arguments::OutputFormat;
use super::context::Context;
use super::error::CommandError;
use super::output::{Cell, Fit, Rows, Tone};
use super::time::{show_milliseconds, show_time};
use crate::airflow;
use crate::components::overview::{self, AirflowOverview, ComponentOverview};
use crate::config::Config;
use crate::domain::component::{ComponentState, Reach};

const FIELDS: [&str; 10] =
    ["name", "url", "version", "state", "since", "reason", "checked_at", "answered_at", "warnings", "components"];

/// How many intervals may pass without a look before that is told.
const INTERVALS_MISSED: u32 = 4;

pub(super) async fn run(context: &Context) -> Result<(), CommandError> {
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let zone = zones.common();
    let named = config.airflows.values().map(|airflow| (airflow.name.to_string(), address(&airflow.url)));
    let airflows = match context.ledger_if_any(&config).await? {
        Some(ledger) => overview::read(&ledger, named).await?,
        None => named.map(|(name, url)| overview::of(&name, &url, None, &[])).collect(),
    };
    let rows = || airflow_rows(&airflows, zone);
    context.output.list(&airflows, &FIELDS, rows, "the configuration has no Airflow")?;
    if context.output.format() == OutputFormat::Table && airflows.iter().any(|airflow| !airflow.components.is_empty()) {
        super::output::line("")?;
        context.output.table(&component_rows(&airflows, zone))?;
    }
    for airflow in &airflows {
        if let Some(silent) = not_asked_since(&config, airflow, context.now()) {
            let since = show_time(silent, zone);
            eprintln!("{} was not asked since {since}: does a member lead? `flowkeeper members` says", airflow.name);
        }
    }
    Ok(())
}

/// The address as an Airflow's client gives it. A checked configuration has no other URLs.
fn address(url: &str) -> String {
    url.parse().map_or_else(|_| url.to_owned(), |url| airflow::address(&url))
}

/// When an Airflow was asked last, if that is long ago.
fn not_asked_since(config: &Config, airflow: &AirflowOverview, now: Timestamp) -> Option<Timestamp> {
    let interval = config.airflows.get(airflow.name.as_str())?.health_interval;
    let patience = SignedDuration::try_from(interval * INTERVALS_MISSED).ok()?;
    airflow.checked_at.filter(|checked| now.duration_since(*checked) > patience)
}

fn airflow_rows(airflows: &[AirflowOverview], zone: &TimeZone) -> Rows {
    let mut rows = Rows::new([
        ("AIRFLOW", Fit::Whole),
        ("STATE", Fit::Whole),
        ("SINCE", Fit::Whole),
        ("LAST ANSWER", Fit::Whole),
        ("VERSION", Fit::Optional),
        ("URL", Fit::Optional),
        ("WARNING", Fit::Wrap),
    ]);
    let time = |time: Option<Timestamp>| time.map(|time| show_time(time, zone)).unwrap_or_default();
    for airflow in airflows {
        let state = match airflow.state {
            Reach::Up if airflow.warnings.is_empty() => Cell::toned("up", Tone::Good),
            Reach::Up => Cell::toned("up", Tone::Warning),
            Reach::Unreachable => Cell::toned("unreachable", Tone::Bad),
            Reach::Unknown => Cell::toned("not asked yet", Tone::Muted),
        };
        let trouble = airflow.reason.clone().unwrap_or_else(|| airflow.warnings.join("; "));
        rows.push([
            airflow.name.clone().into(),
            state,
            time(airflow.since).into(),
            time(airflow.answered_at).into(),
            airflow.version.clone().unwrap_or_default().into(),
            airflow.url.clone().into(),
            Cell::toned(trouble, Tone::Warning),
        ]);
    }
    rows
}

fn component_rows(airflows: &[AirflowOverview], zone: &TimeZone) -> Rows {
    let mut rows = Rows::new([
        ("AIRFLOW", Fit::Whole),
        ("COMPONENT", Fit::Whole),
        ("HOST", Fit::Wrap),
        ("STATE", Fit::Whole),
        ("HEARTBEAT", Fit::Number),
        ("LAST SEEN", Fit::Optional),
        ("JOB", Fit::OptionalNumber),
        ("REASON", Fit::Optional),
    ]);
    for airflow in airflows {
        for part in &airflow.components {
            rows.push([
                airflow.name.clone().into(),
                part.kind.as_str().into(),
                part.hostname.clone().unwrap_or_default().into(),
                state_cell(part),
                heartbeat(part).into(),
                show_time(part.gone_at.unwrap_or(part.last_seen_at), zone).into(),
                part.job.map(|job| job.to_string()).unwrap_or_default().into(),
                part.reason.clone().unwrap_or_default().into(),
            ]);
        }
    }
    rows
}

fn state_cell(part: &ComponentOverview) -> Cell {
    let tone = match part.state {
        ComponentState::Healthy => Tone::Good,
        ComponentState::Stale => Tone::Warning,
        ComponentState::Gone | ComponentState::Unknown => Tone::Muted,
    };
    Cell::toned(part.state.as_str(), tone)
}

/// How old the heartbeat was when Airflow was asked.
fn heartbeat(part: &ComponentOverview) -> String {
    let age = part.heartbeat_age_ms.filter(|_| part.gone_at.is_none());
    age.map(|age| format!("{} ago", show_milliseconds(age))).unwrap_or_default()
}
