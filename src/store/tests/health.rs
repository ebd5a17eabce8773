//! The health of ensembles: what a look writes, what readers get, and what is kept.

use super::*;
use crate::domain::ensemble::{Condition, EnsembleEvent, Happening, Recount, Standing, Transition};
use crate::domain::health::{Check, Finding, Report, Verdict};

on_both_stores! {
    World:
    a_look_writes_its_report_and_the_changes_of_its_verdicts,
    a_change_has_its_number_or_none,
    a_transition_comes_with_its_runs_or_not_at_all,
    what_comes_again_raises_the_count_of_what_was_told,
    a_leader_that_was_replaced_writes_nothing,
    history_is_read_in_pages_and_kept_as_long_as_the_runs,
}

fn report(serving: Verdict, latency_ms: f64) -> Report {
    let latency = Finding::told(Check::Latency, Some("zk1:2181"), Verdict::Ok, "Requests are quick.");
    let latency = latency.counting(latency_ms);
    Report::new(
        "main".into(),
        vec![Finding::told(Check::Serving, Some("zk1:2181"), serving, "It says so itself."), latency],
    )
}

fn look(minutes: i64, expected_revision: i64, serving: Verdict) -> HealthRecord {
    HealthRecord {
        report: report(serving, 2.5),
        at: minute(minutes),
        expected_revision,
        standing: Standing::default(),
        recounts: Vec::new(),
        transition: None,
        recording: Recording::default(),
    }
}

fn quorum_lost(at: Timestamp) -> Transition {
    Transition {
        ensemble: "main".into(),
        at,
        events: vec![Happening { event: EnsembleEvent::QuorumLost, server: None, count: 1 }],
        before: Condition::Healthy,
        after: Condition::QuorumLost,
        leader_before: Some("zk1:2181".into()),
        leader_after: None,
        servers: Vec::new(),
        failing: report(Verdict::Critical, 2.5).checks,
    }
}

fn ensemble_run(id: &str) -> NewRun {
    let run = cron_run(start(), Overlap::Allow);
    NewRun { trigger: TriggerKind::Ensemble, dag_run_id: id.into(), nominal_time: None, logical_date: None, ..run }
}

impl World {
    async fn write(&self, health: &HealthRecord) -> Option<i64> {
        self.ledger.record_health(&self.leadership, health).await.unwrap()
    }

    async fn changes(&self) -> Vec<HealthChange> {
        self.ledger.health_changes("main", &HealthFilter::default(), 100, None).await.unwrap().items
    }
}

async fn a_look_writes_its_report_and_the_changes_of_its_verdicts(world: World) {
    assert_eq!(world.ledger.ensemble_state("main").await.unwrap(), None);
    assert_eq!(world.write(&look(0, 0, Verdict::Ok)).await, Some(1));
    assert_eq!(world.changes().await, [], "all is well at first sight");
    assert_eq!(world.write(&look(1, 1, Verdict::Critical)).await, Some(2));
    assert_eq!(world.write(&look(2, 2, Verdict::Critical)).await, Some(3));
    assert_eq!(world.write(&look(3, 3, Verdict::Ok)).await, Some(4));
    assert_eq!(world.write(&look(4, 3, Verdict::Critical)).await, None, "another has written since");

    let changes = world.changes().await;
    let told: Vec<_> = changes.iter().map(|change| (change.at, change.before, change.after)).collect();
    let (well, bad) = (Verdict::Ok, Verdict::Critical);
    assert_eq!(told, [(minute(3), Some(bad), well), (minute(1), Some(well), bad)]);
    let first = &changes[1];
    assert_eq!((first.check.as_str(), first.server.as_deref()), ("serving", Some("zk1:2181")));
    assert_eq!((first.value, first.meaning.as_str()), (None, "It says so itself."));

    let state = world.ledger.ensemble_state("main").await.unwrap().unwrap();
    assert_eq!((state.revision, state.reported_at), (4, minute(3)));
    assert_eq!(state.report, report(Verdict::Ok, 2.5));
    let other = HealthRecord { report: Report { ensemble: "solr".into(), ..report(bad, 2.0) }, ..look(0, 0, bad) };
    assert_eq!(world.write(&other).await, Some(1));
    let names: Vec<_> = world.ledger.ensemble_states().await.unwrap();
    assert_eq!(names.iter().map(|state| state.report.ensemble.as_str()).collect::<Vec<_>>(), ["main", "solr"]);
    let solr = world.ledger.health_changes("solr", &HealthFilter::default(), 9, None).await.unwrap().items;
    assert_eq!(solr.iter().map(|change| change.before).collect::<Vec<_>>(), [None], "bad at first sight");
}

async fn a_change_has_its_number_or_none(world: World) {
    let found = |value: Option<f64>, verdict| {
        let finding = Finding::told(Check::Clock, None, verdict, "The clocks differ.");
        Report::new("main".into(), vec![Finding { value, unit: Some("s".into()), ..finding }])
    };
    let values = [None, Some(0.25), None, Some(1e18), Some(-3.0), Some(f64::NAN)];
    for (revision, value) in (0..).zip(values) {
        let verdict = if revision % 2 == 0 { Verdict::Warning } else { Verdict::Critical };
        let look = HealthRecord { report: found(value, verdict), ..look(revision, revision, Verdict::Ok) };
        assert_eq!(world.write(&look).await, Some(revision + 1));
    }
    let kept: Vec<_> = world.changes().await.into_iter().rev().map(|change| change.value).collect();
    assert_eq!(kept, [None, Some(0.25), None, Some(1e18), Some(-3.0), None]);
}

async fn a_transition_comes_with_its_runs_or_not_at_all(world: World) {
    let transition = quorum_lost(minute(1));
    let run = |id: &str| Recording { runs: vec![ensemble_run(id)], ..Recording::default() };
    let health = HealthRecord {
        transition: Some(transition.clone()),
        recording: run("flowkeeper__nightly__e1-main"),
        ..look(1, 0, Verdict::Critical)
    };
    assert_eq!(world.write(&health).await, Some(1));
    assert_eq!(world.ledger.transitions(None, 9, None).await.unwrap().items, [transition]);
    let recorded = world.ledger.run("flowkeeper__nightly__e1-main").await.unwrap().unwrap();
    assert_eq!((recorded.state, recorded.trigger), (RunState::Pending, TriggerKind::Ensemble));

    // The same from the same standing once more, as after a crash or by an earlier leader.
    assert_eq!(world.write(&health).await, None);
    // A run that cannot be takes the whole look with it.
    let conflict = HealthRecord {
        transition: Some(quorum_lost(minute(2))),
        recording: Recording {
            runs: vec![NewRun { schedule: name("inbox"), ..ensemble_run("flowkeeper__nightly__e1-main") }],
            ..Recording::default()
        },
        ..look(2, 1, Verdict::Ok)
    };
    let refused = world.ledger.record_health(&world.leadership, &conflict).await;
    assert!(matches!(refused, Err(StoreError::IdentityConflict { .. })), "{refused:?}");
    assert_eq!(world.ledger.transitions(Some("main"), 9, None).await.unwrap().items.len(), 1);
    assert_eq!(world.ledger.ensemble_state("main").await.unwrap().unwrap().revision, 1);
}

async fn what_comes_again_raises_the_count_of_what_was_told(world: World) {
    let told = HealthRecord { transition: Some(quorum_lost(minute(1))), ..look(1, 0, Verdict::Critical) };
    world.write(&told).await;
    let again = |event, count| Recount { at: minute(1), event, server: None, count };
    let unknown = Recount { at: minute(9), ..again(EnsembleEvent::QuorumLost, 5) };
    let recounts = vec![again(EnsembleEvent::QuorumLost, 3), again(EnsembleEvent::Degraded, 7), unknown];
    assert_eq!(world.write(&HealthRecord { recounts, ..look(2, 1, Verdict::Critical) }).await, Some(2));
    let transitions = world.ledger.transitions(Some("main"), 9, None).await.unwrap().items;
    assert_eq!(transitions.iter().map(Transition::count).collect::<Vec<_>>(), [3]);
}

async fn a_leader_that_was_replaced_writes_nothing(world: World) {
    world.ledger.take_lead("another").await.unwrap();
    let refused = world.ledger.record_health(&world.leadership, &look(1, 0, Verdict::Ok)).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    assert!(world.leadership.lost().is_cancelled());
    assert_eq!(world.ledger.ensemble_states().await.unwrap(), []);
}

async fn history_is_read_in_pages_and_kept_as_long_as_the_runs(world: World) {
    for step in 0..6 {
        let serving = if step % 2 == 0 { Verdict::Critical } else { Verdict::Ok };
        let transition = Some(quorum_lost(minute(step)));
        world.write(&HealthRecord { transition, ..look(step, step, serving) }).await;
    }
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = world.ledger.transitions(Some("main"), 4, cursor.as_deref()).await.unwrap();
        seen.extend(page.items.iter().map(|transition| transition.at));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..6).rev().map(minute).collect::<Vec<_>>());
    let page = world.ledger.health_changes("main", &HealthFilter::default(), 4, None).await.unwrap();
    let rest = world.ledger.health_changes("main", &HealthFilter::default(), 4, page.next_cursor.as_deref()).await;
    assert_eq!((page.items.len(), rest.unwrap().items.len()), (4, 2));
    let bad = world.ledger.health_changes("main", &HealthFilter::default(), 4, Some("x")).await;
    assert!(matches!(bad, Err(StoreError::BadCursor { .. })));
    let narrow = HealthFilter {
        check: Some("serving".into()),
        server: Some("zk1:2181".into()),
        since: Some(minute(2)),
        until: Some(minute(4)),
    };
    let narrow = world.ledger.health_changes("main", &narrow, 9, None).await.unwrap().items;
    assert_eq!(narrow.iter().map(|change| change.at).collect::<Vec<_>>(), [minute(3), minute(2)]);

    world.clock.advance(SignedDuration::from_hours(2));
    world.ledger.retain(&world.leadership, Duration::from_hours(1)).await.unwrap();
    assert_eq!(world.changes().await, []);
    let kept = world.ledger.transitions(Some("main"), 9, None).await.unwrap().items;
    assert_eq!(kept.iter().map(|transition| transition.at).collect::<Vec<_>>(), [minute(5)], "the newest stays");
    assert_eq!(world.ledger.ensemble_state("main").await.unwrap(), None, "nobody looks at it any more");
}
