//! What the page of the cluster says at its top, and of each part.

use super::*;
use crate::definitions::reloads::RefusedSet;
use crate::definitions::{Provenance, Source};
use crate::domain::health::Check;
use crate::ensembles::Freshness;
use crate::members::{Home, Sight};
use crate::zookeeper::{Member, MemberCard};

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("a time")
}

fn card(id: &str, version: &str) -> MemberCard {
    let started = Some(now() - SignedDuration::from_hours(3));
    MemberCard {
        id: id.into(),
        url: Some(format!("http://{id}")),
        version: "0.1.0".into(),
        configuration_version: version.into(),
        configuration_since: started,
        schedules: Some(12),
        started,
        ..MemberCard::default()
    }
}

fn provenance(version: &str) -> Provenance {
    Provenance {
        source: Source::File,
        version: version.into(),
        zookeeper_version: None,
        author: None,
        message: None,
        at: now(),
    }
}

/// Two members, an ensemble and an Airflow, of which all is well.
fn facts() -> Facts {
    let live =
        vec![Member { card: card("a:1~0", "one"), leads: true }, Member { card: card("b:1~0", "one"), leads: false }];
    let sight = Sight { own: Some(card("a:1~0", "one")), live, lead: None, home: Home::Connected };
    let ensemble = EnsembleOverview {
        name: "main".into(),
        home: true,
        connect: "zk1:2181".into(),
        interval_ms: 15_000,
        verdict: Some(Verdict::Ok),
        freshness: Freshness { checked_at: Some(now()), age_ms: Some(4_000), stale: false },
        leader: Some("zk1:2181".into()),
        quorum: None,
        servers: Vec::new(),
    };
    let airflow = overview::of("main", "http://airflow", None, &[]);
    let airflow = AirflowOverview { state: Reach::Up, ..airflow };
    let definitions = Definitions {
        in_force: provenance("one"),
        since: now(),
        schedules: 12,
        airflows: 1,
        ensembles: 1,
        warnings: Vec::new(),
        restart: Vec::new(),
        refused: None,
        applying: None,
    };
    Facts {
        definitions: Arc::new(definitions),
        own: Some("a:1~0".into()),
        members: sight.list(now()),
        ensembles: vec![(ensemble, Vec::new())],
        airflows: vec![airflow],
    }
}

#[test]
fn what_is_well_needs_no_attention() {
    let view = view(&facts());
    assert_eq!(view.attention, [""; 0]);
    let row = &view.members[0];
    assert_eq!((row.id.as_str(), row.role.text.as_str(), row.schedules.as_str()), ("a:1~0", "leader", "12"));
    assert_eq!((row.lag.text.as_str(), row.started.as_str()), ("0 s", "3 h"));
    assert_eq!((view.ensembles[0].verdict.tone, view.ensembles[0].checked.as_str()), ("ok", "4 s ago"));
    assert_eq!(view.airflows[0].state.text, "up");
}

#[test]
fn each_thing_that_is_not_well_is_said_at_the_top() {
    type Change = fn(&mut Facts);
    let cases: [(Change, &str); 7] = [
        (
            |facts| facts.members.items[1].warning = Some("it runs other definitions".into()),
            "b:1~0 is out of step: it runs other definitions.",
        ),
        (|facts| facts.members.items[0].role = MemberRole::Standby, "No member leads."),
        (
            |facts| {
                let since = Some(now() - SignedDuration::from_mins(2));
                facts.members.zookeeper =
                    HomeOverview { state: "disconnected".into(), since, reason: Some("reset".into()) };
            },
            "ZooKeeper cannot be reached from here for 2 min (reset): the members are those that were known last.",
        ),
        (
            |facts| {
                facts.ensembles[0].0.verdict = Some(Verdict::Critical);
                facts.ensembles[0].1 = vec![Finding::told(Check::Quorum, None, Verdict::Critical, "It is lost.")];
            },
            "The health of the ensemble main is critical.",
        ),
        (
            |facts| {
                let refused = RefusedSet { provenance: provenance("two"), since: now(), faults: Vec::new() };
                Arc::make_mut(&mut facts.definitions).refused = Some(refused);
            },
            "The newest definitions are refused; those before stay in force.",
        ),
        (
            |facts| facts.members.items[1].refuses = Some("d.toml:3: unknown key `corn`".into()),
            "b:1~0 refuses the newest definitions: d.toml:3: unknown key `corn`.",
        ),
        (
            |facts| facts.airflows[0].warnings = vec!["The scheduler is late.".into()],
            "Airflow main: The scheduler is late.",
        ),
    ];
    for (change, sentence) in cases {
        let mut facts = facts();
        change(&mut facts);
        assert_eq!(view(&facts).attention, [sentence]);
    }
}

#[test]
fn an_old_report_is_shown_as_one() {
    let mut facts = facts();
    facts.ensembles[0].0.freshness.stale = true;
    let row = &view(&facts).ensembles[0];
    assert_eq!((row.verdict.tone, row.verdict.text.as_str()), ("quiet", "ok (old)"));
}
