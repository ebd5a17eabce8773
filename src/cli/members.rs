//! `members`: who takes part, and who leads.
//!
//! The command reads ZooKeeper and the store itself, so it works while this host's member is down. Where
//! ZooKeeper cannot be reached, it asks that member for what it knew last; then there is still the store.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::error::CommandError;
use super::output::{Cell, Fit, Rows, Tone};
use super::time::{show_milliseconds, show_time};
use crate::app::connect::{self, ConnectError};
use crate::config::Config;
use crate::members::{Home, MemberList, MemberOverview, MemberRole, SessionState, Sight};
use crate::store::Lead;
use crate::zookeeper::{Member, read_members};

/// How long the home ensemble may take to open a session.
const ZOOKEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a member may take to answer.
const API_PATIENCE: Duration = Duration::from_secs(2);

const FIELDS: [&str; 17] = [
    "id",
    "role",
    "epoch",
    "since",
    "url",
    "host",
    "pid",
    "version",
    "store_id",
    "configuration_version",
    "refuses",
    "configuration_since",
    "schedules",
    "lag_ms",
    "warning",
    "session",
    "started",
];

pub(super) async fn run(context: &Context) -> Result<(), CommandError> {
    let config = context.config()?;
    let zones = context.zones(&config);
    let list = look(context, &config).await?;
    let rows = || {
        let mut rows = Rows::new([
            ("MEMBER", Fit::Whole),
            ("ROLE", Fit::Whole),
            ("EPOCH", Fit::Number),
            ("SINCE", Fit::Whole),
            ("URL", Fit::Wrap),
            ("ZOOKEEPER", Fit::Whole),
            ("VERSION", Fit::Optional),
            ("PID", Fit::OptionalNumber),
            ("CONFIGURATION", Fit::Optional),
            ("SCHEDULES", Fit::OptionalNumber),
            ("LAG", Fit::OptionalNumber),
            ("STARTED", Fit::Optional),
        ]);
        let time = |time: Option<_>| time.map(|time| show_time(time, zones.common())).unwrap_or_default();
        for member in &list.items {
            rows.push([
                member.id.clone().into(),
                role_cell(member.role),
                member.epoch.map(|epoch| epoch.to_string()).unwrap_or_default().into(),
                time(member.since).into(),
                member.url.clone().unwrap_or_default().into(),
                session_cell(member.session),
                member.version.clone().into(),
                if member.pid == 0 { String::new() } else { member.pid.to_string() }.into(),
                member.configuration_version.clone().into(),
                member.schedules.map(|count| count.to_string()).unwrap_or_default().into(),
                lag_cell(member),
                time(member.started).into(),
            ]);
        }
        rows
    };
    context.output.list(&list.items, &FIELDS, rows, "no member takes part")?;
    for (member, reason) in list.items.iter().filter_map(|member| Some((member, member.refuses.as_ref()?))) {
        eprintln!("{} refuses the newest definitions, and goes by those before: {reason}", member.id);
    }
    for (id, warning) in list.items.iter().filter_map(|member| Some((&member.id, member.warning.as_ref()?))) {
        eprintln!("warning: {id} is out of step: {warning}");
    }
    if let Some(reason) = &list.zookeeper.reason {
        let since = list.zookeeper.since.map(|since| format!(" since {}", show_time(since, zones.common())));
        eprintln!("ZooKeeper cannot be reached{} ({reason}): this is what was known last", since.unwrap_or_default());
    }
    if let Some(last) = led_last(&list) {
        eprintln!(
            "no member takes part: {last} led last, as the store remembers it, and is gone or cut off from ZooKeeper"
        );
    }
    Ok(())
}

/// The leader that the store remembers, where ZooKeeper is there and knows nobody.
fn led_last(list: &MemberList) -> Option<&str> {
    let is_gone = |member: &MemberOverview| member.session == SessionState::Absent;
    let nobody = list.zookeeper.reason.is_none() && list.items.iter().all(is_gone);
    let leader = list.items.iter().find(|member| member.role == MemberRole::Leader)?;
    nobody.then_some(leader.id.as_str())
}

fn role_cell(role: MemberRole) -> Cell {
    match role {
        MemberRole::Leader => Cell::toned("leader", Tone::Good),
        MemberRole::Standby => "standby".into(),
    }
}

fn lag_cell(member: &MemberOverview) -> Cell {
    let text = member.lag_ms.map(show_milliseconds).unwrap_or_default();
    if member.warning.is_some() { Cell::toned(text, Tone::Warning) } else { text.into() }
}

fn session_cell(session: SessionState) -> Cell {
    match session {
        SessionState::Connected => "connected".into(),
        SessionState::Absent => Cell::toned("absent", Tone::Warning),
        SessionState::Unknown => Cell::toned("unknown", Tone::Warning),
        SessionState::None => "none".into(),
    }
}

/// Everything that can be learned.
async fn look(context: &Context, config: &Config) -> Result<MemberList, CommandError> {
    let lead = match store_lead(context, config).await {
        Ok(lead) => lead,
        // ZooKeeper, or a member, knows most of it.
        Err(error) => {
            eprintln!("{error}");
            None
        }
    };
    match live_members(context, config).await? {
        Seen::Live(live) => Ok(list(context, live, lead, Home::Connected)),
        Seen::Unreachable(home) => match asked(context, config).await {
            Some(list) => Ok(list),
            None => Ok(list(context, Vec::new(), lead, home)),
        },
    }
}

/// Who took the lead last; `None` before anybody has served.
async fn store_lead(context: &Context, config: &Config) -> Result<Option<Lead>, CommandError> {
    match context.ledger_if_any(config).await? {
        Some(ledger) => Ok(Some(ledger.lead().await?)),
        None => Ok(None),
    }
}

fn list(context: &Context, live: Vec<Member>, lead: Option<Lead>, home: Home) -> MemberList {
    Sight { own: None, live, lead, home }.list(context.now())
}

/// What ZooKeeper says.
enum Seen {
    Live(Vec<Member>),
    Unreachable(Home),
}

async fn live_members(context: &Context, config: &Config) -> Result<Seen, CommandError> {
    let Some(zookeeper) = &config.zookeeper else { return Ok(Seen::Unreachable(Home::None)) };
    let environment = Arc::new(context.environment.clone());
    let settings = connect::zookeeper(zookeeper.connection.clone(), environment, "zookeeper".to_owned())
        .map_err(|error: ConnectError| CommandError::usage(format!("failed to {error}")))?;
    let reason = match connect::visit(None, settings, context.clock.clone(), ZOOKEEPER_PATIENCE).await {
        Ok(visit) => match read_members(&visit.session, &zookeeper.root).await {
            Ok(live) => return Ok(Seen::Live(live)),
            Err(error) => format!("failed to read the members under {}: {error}", zookeeper.root),
        },
        Err(reason) => reason,
    };
    Ok(Seen::Unreachable(Home::Disconnected { since: None, reason }))
}

/// What the member of this configuration knows.
async fn asked(context: &Context, config: &Config) -> Option<MemberList> {
    let api = context.api(config).ok()?;
    tokio::time::timeout(API_PATIENCE, api.get::<MemberList>(&["members"])).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::zookeeper::MemberCard;

    #[test]
    fn who_led_last_is_told_where_nobody_takes_part() {
        let member = |id: &str| Member { card: MemberCard { id: id.into(), ..MemberCard::default() }, leads: false };
        let away = || Home::Disconnected { since: None, reason: "refused".into() };
        let gone = "a:1~0f".to_owned();
        for (case, live, leader, home, expected) in [
            ("all have ended", vec![], Some(gone.clone()), Home::Connected, Some("a:1~0f")),
            ("another is about to lead", vec![member("b:1~0f")], Some(gone.clone()), Home::Connected, None),
            ("nobody ever led", vec![], None, Home::Connected, None),
            ("ZooKeeper cannot be asked", vec![], Some(gone.clone()), away(), None),
            ("there is no ZooKeeper", vec![], Some(gone), Home::None, None),
        ] {
            let lead = Some(Lead { epoch: 7, leader, since: None });
            let list = Sight { own: None, live, lead, home }.list(Timestamp::UNIX_EPOCH);
            assert_eq!(led_last(&list), expected, "{case}");
        }
    }
}
