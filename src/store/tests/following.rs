//! What becomes of runs, as the dispatcher and the monitor find out.

use super::*;

on_both_stores! {
    World:
    a_run_follows_airflow_to_its_end_and_back,
    a_run_that_was_cleared_and_ended_again_unseen_was_reopened,
    an_old_answer_does_not_undo_what_the_monitor_saw,
    a_dag_run_of_ours_without_a_row_is_entered_and_a_foreign_one_is_not,
    a_waiting_row_is_not_moved_by_another_flowkeepers_dag_run_of_the_same_id,
    a_consume_is_owed_until_it_is_settled,
}

async fn a_run_follows_airflow_to_its_end_and_back(world: World) {
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 1)).await.unwrap();
    for (seen, expected) in [
        (AirflowState::Running, RunState::Running),
        (AirflowState::Failed, RunState::Failed),
        // Cleared in Airflow.
        (AirflowState::Queued, RunState::Queued),
        (AirflowState::Success, RunState::Success),
    ] {
        world.see(&run.dag_run_id, seen).await;
        assert_eq!(world.state(run.id).await, expected);
    }
    let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
    assert_eq!((shown.reopened, shown.duration_ms, shown.attempts.len()), (1, Some(9000), 1));
    let moves: Vec<_> = shown.timeline.iter().map(|entry| entry.state.as_str()).collect();
    assert_eq!(moves, ["queued", "running", "failed", "queued", "success"]);
    let followed = world.ledger.dag_runs(&DagRunFilter::default(), 10, None).await.unwrap().items;
    assert_eq!((followed.len(), followed[0].state, followed[0].run), (1, RunState::Success, Some(run.id)));
}

async fn a_run_that_was_cleared_and_ended_again_unseen_was_reopened(world: World) {
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let second = |n| Some(minute(0) + SignedDuration::from_secs(n));
    let looks = [
        (AirflowState::Failed, (1, 5), 0),
        // Marked as a success by hand: the same life.
        (AirflowState::Success, (1, 6), 0),
        (AirflowState::Failed, (7, 9), 1),
        // Ended alike, and still another life.
        (AirflowState::Failed, (20, 21), 2),
        (AirflowState::Failed, (20, 21), 2),
    ];
    for (state, (started, ended), reopened) in looks {
        let (started_at, ended_at) = (second(started), second(ended));
        let note = Some(format!("flowkeeper store {}", world.ledger.store_id()));
        let seen = vec![Sighting { started_at, ended_at, note, ..sighting(&run.dag_run_id, state) }];
        world.ledger.record_sightings(&world.leadership, "main", seen, None).await.unwrap();
        let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
        assert_eq!((shown.reopened, shown.started_at, shown.ended_at), (reopened, started_at, ended_at));
    }
    let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
    let moves: Vec<_> = shown.timeline.iter().map(|entry| entry.state.as_str()).collect();
    assert_eq!(moves, ["failed", "success", "failed", "failed"], "every end is kept");
}

async fn an_old_answer_does_not_undo_what_the_monitor_saw(world: World) {
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    world.see(&run.dag_run_id, AirflowState::Success).await;
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 1)).await.unwrap();
    assert_eq!(world.state(run.id).await, RunState::Success);
}

async fn a_dag_run_of_ours_without_a_row_is_entered_and_a_foreign_one_is_not(world: World) {
    let id = "flowkeeper__nightly__2026-11-22T02:30:00Z";
    let foreign = vec![sighting(id, AirflowState::Running)];
    world.ledger.record_sightings(&world.leadership, "main", foreign.clone(), None).await.unwrap();
    assert!(world.ledger.run(id).await.unwrap().is_none(), "no note: another flowkeeper's");
    let note = Some(format!("flowkeeper store {}", world.ledger.store_id()));
    let seen = vec![Sighting { note, ..sighting(id, AirflowState::Running) }];
    world.ledger.record_sightings(&world.leadership, "main", seen, None).await.unwrap();
    let run = world.ledger.run(id).await.unwrap().unwrap();
    assert_eq!((run.state, run.nominal_time), (RunState::Running, Some(minute(0))));
}

async fn a_waiting_row_is_not_moved_by_another_flowkeepers_dag_run_of_the_same_id(world: World) {
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let foreign = vec![sighting(&run.dag_run_id, AirflowState::Success)];
    world.ledger.record_sightings(&world.leadership, "main", foreign, None).await.unwrap();
    assert_eq!(world.state(run.id).await, RunState::Pending);
    world.see(&run.dag_run_id, AirflowState::Success).await;
    assert_eq!(world.state(run.id).await, RunState::Success);
}

async fn a_consume_is_owed_until_it_is_settled(world: World) {
    let work = ConsumeWork { ensemble: None, path: "/inbox/a".into(), czxid: 5, when: Consume::Accepted };
    let run = world.record(NewRun { consume: Some(work.clone()), ..cron_run(minute(0), Overlap::Allow) }).await;
    let first = RunId(0);
    assert!(world.ledger.consume_due(None, first).await.unwrap().is_empty(), "not accepted yet");
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 1)).await.unwrap();
    let due = world.ledger.consume_due(None, first).await.unwrap();
    assert_eq!(due.iter().map(|due| (due.run, due.work.clone())).collect::<Vec<_>>(), [(run.id, work)]);
    assert!(world.ledger.consume_due(Some("solr"), first).await.unwrap().is_empty());
    assert!(world.ledger.consume_due(None, run.id).await.unwrap().is_empty(), "a page later");
    world.ledger.consumes_settled(&world.leadership, &[(run.id, "deleted")]).await.unwrap();
    assert!(world.ledger.consume_due(None, first).await.unwrap().is_empty());
}
