//! The page of the cluster: members, their definitions, ensembles and Airflows.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use minijinja::Value;
use minijinja::value::Serde;
use serde::Serialize;

use super::{page, problem, shown, span};
use crate::components::overview::{self, AirflowOverview};
use crate::config::{Fault, Severity};
use crate::definitions::reloads::State as Definitions;
use crate::domain::component::{ComponentState, Reach};
use crate::domain::health::{Finding, Verdict};
use crate::ensembles::EnsembleOverview;
use crate::http::{Api, Problem};
use crate::members::{HomeOverview, MemberList, MemberOverview, MemberRole, SessionState};

/// What the page is made of.
struct Facts {
    /// The id of the member that shows it.
    own: Option<String>,
    members: MemberList,
    definitions: Arc<Definitions>,
    /// Each with what is bad about it.
    ensembles: Vec<(EnsembleOverview, Vec<Finding>)>,
    airflows: Vec<AirflowOverview>,
}

/// A word with a colour: `ok`, `warning`, `critical` or `quiet`.
#[derive(Debug, Serialize)]
struct Badge {
    tone: &'static str,
    text: String,
}

#[derive(Debug, Serialize)]
struct View {
    at: String,
    shown_by: Option<String>,
    /// What somebody should look at, a sentence each.
    attention: Vec<String>,
    zookeeper: Option<String>,
    members: Vec<MemberRow>,
    definitions: DefinitionsView,
    ensembles: Vec<EnsembleRow>,
    airflows: Vec<AirflowRow>,
}

#[derive(Debug, Serialize)]
struct MemberRow {
    id: String,
    url: Option<String>,
    role: Badge,
    session: Badge,
    version: String,
    configuration: String,
    schedules: String,
    lag: Badge,
    started: String,
    warning: Option<String>,
}

#[derive(Debug, Serialize)]
struct DefinitionsView {
    version: String,
    source: &'static str,
    author: Option<String>,
    since: String,
    schedules: usize,
    /// Sections that a restart would apply.
    restart: String,
    refused: Option<RefusedView>,
}

#[derive(Debug, Serialize)]
struct RefusedView {
    version: String,
    since: String,
    faults: Vec<FaultRow>,
}

#[derive(Debug, Serialize)]
struct FaultRow {
    severity: Badge,
    place: String,
    key: String,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct EnsembleRow {
    name: String,
    connect: String,
    verdict: Badge,
    leader: String,
    servers: Vec<Badge>,
    checked: String,
    findings: Vec<FindingRow>,
}

#[derive(Debug, Serialize)]
struct FindingRow {
    verdict: Badge,
    check: &'static str,
    server: Option<String>,
    meaning: String,
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct AirflowRow {
    name: String,
    url: String,
    version: String,
    state: Badge,
    reason: Option<String>,
    warnings: Vec<String>,
    components: Vec<ComponentRow>,
}

#[derive(Debug, Serialize)]
struct ComponentRow {
    kind: String,
    host: String,
    state: Badge,
    heartbeat: String,
}

/// The page of the cluster.
pub(in crate::http) async fn cluster(State(api): State<Api>) -> Response {
    let made = match facts(&api).await {
        Ok(facts) => page(StatusCode::OK, "Cluster", "cluster.html", &Value::from(Serde(view(&facts)))),
        Err(error) => Err(error),
    };
    made.unwrap_or_else(|error| problem(&error))
}

async fn facts(api: &Api) -> Result<Facts, Problem> {
    let now = api.clock.now();
    let (members, own) = {
        let sight = api.peers.sight();
        (sight.list(now), sight.own.as_ref().map(|own| own.id.clone()))
    };
    let config = Arc::clone(&api.config.borrow());
    let states = api.ledger.ensemble_states().await?;
    let ensembles = config.ensembles_to_check();
    let ensembles = ensembles.iter().map(|ensemble| {
        let state = states.iter().find(|state| state.report.ensemble == *ensemble.name);
        let findings = state.map(|state| state.report.checks.as_slice()).unwrap_or_default();
        let bad = findings.iter().filter(|finding| finding.verdict.is_bad()).cloned().collect();
        (EnsembleOverview::of(&config, ensemble, state, now), bad)
    });
    let ensembles = ensembles.collect();
    let airflows = overview::read(&api.ledger, api.operations.airflows()).await?;
    let definitions = Arc::clone(&api.reloads.state.borrow());
    Ok(Facts { own, members, definitions, ensembles, airflows })
}

/// What the page says of these facts.
fn view(facts: &Facts) -> View {
    let now = facts.members.at;
    let mut attention = Vec::new();
    let zookeeper = home(&facts.members.zookeeper, now);
    attention.extend(zookeeper.clone());
    if !facts.members.items.iter().any(|member| member.role == MemberRole::Leader) {
        attention.push("No member leads.".to_owned());
    }
    for member in &facts.members.items {
        attention.extend(member.warning.as_ref().map(|warning| format!("{} is out of step: {warning}.", member.id)));
        // What this member refuses itself is told below, with all its faults.
        if let Some(reason) = member.refuses.as_ref().filter(|_| facts.own.as_ref() != Some(&member.id)) {
            attention.push(format!("{} refuses the newest definitions: {reason}.", member.id));
        }
    }
    if facts.definitions.refused.is_some() {
        attention.push("The newest definitions are refused; those before stay in force.".to_owned());
    }
    for (ensemble, _) in &facts.ensembles {
        if let Some(verdict) = ensemble.verdict.filter(|verdict| verdict.is_bad()) {
            attention.push(format!("The health of the ensemble {} is {}.", ensemble.name, word(verdict)));
        }
    }
    for airflow in &facts.airflows {
        attention.extend(airflow.warnings.iter().map(|warning| format!("Airflow {}: {warning}", airflow.name)));
    }
    View {
        at: shown(now),
        shown_by: facts.own.clone(),
        attention,
        zookeeper,
        members: facts.members.items.iter().map(|member| member_row(member, now)).collect(),
        definitions: definitions_view(&facts.definitions),
        ensembles: facts.ensembles.iter().map(|(ensemble, bad)| ensemble_row(ensemble, bad)).collect(),
        airflows: facts.airflows.iter().map(|airflow| airflow_row(airflow, now)).collect(),
    }
}

/// What is wrong with the home ensemble as it is seen from here.
fn home(zookeeper: &HomeOverview, now: Timestamp) -> Option<String> {
    if matches!(zookeeper.state.as_str(), "connected" | "none") {
        return None;
    }
    let since = zookeeper.since.map(|since| format!(" for {}", span(now.duration_since(since))));
    let reason = zookeeper.reason.as_ref().map(|reason| format!(" ({reason})"));
    Some(format!(
        "ZooKeeper cannot be reached from here{}{}: the members are those that were known last.",
        since.unwrap_or_default(),
        reason.unwrap_or_default()
    ))
}

fn badge(tone: &'static str, text: impl Into<String>) -> Badge {
    Badge { tone, text: text.into() }
}

fn member_row(member: &MemberOverview, now: Timestamp) -> MemberRow {
    let lag = member.lag_ms.map_or_else(|| "–".to_owned(), |lag| span(SignedDuration::from_millis(lag)));
    MemberRow {
        id: member.id.clone(),
        url: member.url.clone(),
        role: match member.role {
            MemberRole::Leader => badge("ok", "leader"),
            MemberRole::Standby => badge("quiet", "standby"),
        },
        session: match member.session {
            SessionState::Connected => badge("ok", "connected"),
            SessionState::Absent => badge("warning", "absent"),
            SessionState::Unknown => badge("warning", "unknown"),
            SessionState::None => badge("quiet", "none"),
        },
        version: member.version.clone(),
        configuration: member.configuration_version.clone(),
        schedules: member.schedules.map_or_else(|| "–".to_owned(), |count| count.to_string()),
        lag: badge(if member.warning.is_some() { "warning" } else { "plain" }, lag),
        started: member.started.map_or_else(|| "–".to_owned(), |started| span(now.duration_since(started))),
        warning: member.warning.clone(),
    }
}

fn definitions_view(definitions: &Definitions) -> DefinitionsView {
    let in_force = &definitions.in_force;
    DefinitionsView {
        version: in_force.version.clone(),
        source: in_force.source.as_str(),
        author: in_force.author.clone(),
        since: shown(definitions.since),
        schedules: definitions.schedules,
        restart: definitions.restart.join(", "),
        refused: definitions.refused.as_ref().map(|refused| RefusedView {
            version: refused.provenance.version.clone(),
            since: shown(refused.since),
            faults: refused.faults.iter().map(fault_row).collect(),
        }),
    }
}

fn fault_row(fault: &Fault) -> FaultRow {
    FaultRow {
        severity: match fault.severity {
            Severity::Error => badge("critical", "error"),
            Severity::Warning => badge("warning", "warning"),
        },
        place: if fault.line == 0 { fault.file.clone() } else { format!("{}:{}", fault.file, fault.line) },
        key: fault.key.clone(),
        message: fault.message.clone(),
        hint: fault.hint.clone(),
    }
}

/// A verdict as people read it.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::NotApplicable => "not applicable",
        other => other.as_str(),
    }
}

fn verdict_badge(verdict: Verdict) -> Badge {
    let tone = match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Critical => "critical",
        Verdict::NotApplicable | Verdict::Unknown => "quiet",
    };
    badge(tone, word(verdict))
}

fn ensemble_row(ensemble: &EnsembleOverview, bad: &[Finding]) -> EnsembleRow {
    let age = ensemble.freshness.age_ms.map(|age| span(SignedDuration::from_millis(age)));
    EnsembleRow {
        name: ensemble.name.clone(),
        connect: ensemble.connect.clone(),
        verdict: match ensemble.verdict {
            // What was true a while ago may not be any more.
            Some(verdict) if ensemble.freshness.stale => badge("quiet", format!("{} (old)", word(verdict))),
            Some(verdict) => verdict_badge(verdict),
            None => badge("quiet", "not looked at yet"),
        },
        leader: ensemble.leader.clone().unwrap_or_else(|| "–".to_owned()),
        servers: ensemble
            .servers
            .iter()
            .map(|server| badge(server.verdict.map_or("quiet", |verdict| verdict_badge(verdict).tone), &server.server))
            .collect(),
        checked: age.map_or_else(|| "never".to_owned(), |age| format!("{age} ago")),
        findings: bad
            .iter()
            .map(|finding| FindingRow {
                verdict: verdict_badge(finding.verdict),
                check: finding.check.as_str(),
                server: finding.server.clone(),
                meaning: finding.meaning.clone(),
                remedy: finding.remedy.clone(),
            })
            .collect(),
    }
}

fn airflow_row(airflow: &AirflowOverview, now: Timestamp) -> AirflowRow {
    AirflowRow {
        name: airflow.name.clone(),
        url: airflow.url.clone(),
        version: airflow.version.clone().unwrap_or_else(|| "–".to_owned()),
        state: match airflow.state {
            Reach::Up => badge("ok", "up"),
            Reach::Unreachable => badge("critical", "unreachable"),
            Reach::Unknown => badge("quiet", "not asked yet"),
        },
        reason: airflow.reason.clone(),
        warnings: airflow.warnings.clone(),
        components: airflow
            .components
            .iter()
            .map(|component| ComponentRow {
                kind: component.kind.to_string(),
                host: component.hostname.clone().unwrap_or_else(|| "–".to_owned()),
                state: match component.state {
                    ComponentState::Healthy => badge("ok", "healthy"),
                    ComponentState::Stale => badge("warning", "stale"),
                    ComponentState::Gone => badge("quiet", "gone"),
                    ComponentState::Unknown => badge("quiet", "unknown"),
                },
                heartbeat: component
                    .heartbeat_at
                    .map_or_else(|| "–".to_owned(), |beat| format!("{} ago", span(now.duration_since(beat)))),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
