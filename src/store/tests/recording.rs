//! What triggers record: once each, with their cursors, under the epoch in force.

use super::*;

on_both_stores! {
    World:
    an_occurrence_is_recorded_once_however_often_it_is_found,
    the_same_identity_with_other_content_is_an_error_with_a_name,
    a_skipping_schedule_has_one_open_run_and_one_row_for_what_it_skipped,
    a_time_that_a_row_for_several_covers_is_not_recorded_again_when_the_clock_goes_back,
    only_the_newest_of_those_that_wait_keeps_its_place_under_queue_one,
    a_replaced_leader_is_refused,
    cursors_survive_with_the_runs_they_made,
}

async fn an_occurrence_is_recorded_once_however_often_it_is_found(world: World) {
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let first = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let again = world.record(cron_run(minute(0), Overlap::Allow)).await;
    assert!(first.fresh && !again.fresh);
    assert_eq!(first.id, again.id);
    assert_eq!(tickets.try_recv().unwrap().conf.get(), r#"{"b": 1, "a": 2}"#);
    assert!(tickets.try_recv().is_err(), "the second finding is not submitted");
}

async fn the_same_identity_with_other_content_is_an_error_with_a_name(world: World) {
    let by_hand = |conf: &str| NewRun {
        trigger: TriggerKind::Manual,
        nominal_time: None,
        dag_run_id: "flowkeeper__nightly__mfix".into(),
        conf: json(conf),
        ..cron_run(minute(0), Overlap::Allow)
    };
    world.record(by_hand("{}")).await;
    let recording = Recording { runs: vec![by_hand("[]")], ..Recording::default() };
    let error = world.ledger.record(&world.leadership, recording).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "record the run `flowkeeper__nightly__mfix`: it is already recorded with another conf"
    );
}

async fn a_skipping_schedule_has_one_open_run_and_one_row_for_what_it_skipped(world: World) {
    let recording =
        Recording { runs: (0..4).map(|n| cron_run(minute(n), Overlap::Skip)).collect(), ..Recording::default() };
    let states: Vec<_> =
        world.ledger.record(&world.leadership, recording).await.unwrap().into_iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Pending, RunState::Skipped, RunState::Skipped, RunState::Skipped]);
    world.record(cron_run(minute(4), Overlap::Skip)).await;
    let page = world.ledger.runs(&RunFilter::default(), 10, None).await.unwrap();
    let shown: Vec<_> = page.items.iter().map(|run| (run.state, run.count, run.from, run.to)).collect();
    assert_eq!(shown, [(RunState::Skipped, 4, Some(minute(1)), Some(minute(4))), (RunState::Pending, 1, None, None)],);
    // The row's identity is that of the last time it covers.
    assert_eq!(page.items[0].dag_run_id, format!("flowkeeper__nightly__{}", minute(4)));
}

async fn a_time_that_a_row_for_several_covers_is_not_recorded_again_when_the_clock_goes_back(world: World) {
    let covers = Covered { from: minute(0), to: minute(9), count: 10 };
    let missed = NewRun {
        state: RunState::Missed,
        reason: Some("down".into()),
        covers: Some(covers),
        ..cron_run(minute(9), Overlap::Allow)
    };
    let to = minute(9);
    let cursors = vec![CursorMove::Cron { schedule: name("nightly"), to }];
    let recording = Recording { runs: vec![missed], cursors, ..Recording::default() };
    world.ledger.record(&world.leadership, recording).await.unwrap();
    let again = world.record(cron_run(minute(4), Overlap::Allow)).await;
    assert_eq!((again.fresh, again.state), (false, RunState::Missed));
    assert!(world.record(cron_run(minute(10), Overlap::Allow)).await.fresh);
}

async fn only_the_newest_of_those_that_wait_keeps_its_place_under_queue_one(world: World) {
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(world.record(cron_run(minute(n), Overlap::QueueOne)).await.id);
    }
    let mut states = Vec::new();
    for run in runs {
        states.push(world.state(run).await);
    }
    assert_eq!(states, [RunState::Pending, RunState::Skipped, RunState::Skipped, RunState::Pending]);
}

async fn a_replaced_leader_is_refused(world: World) {
    let newer = world.ledger.take_lead("other").await.unwrap();
    let recording = Recording { runs: vec![cron_run(minute(0), Overlap::Allow)], ..Recording::default() };
    let error = world.ledger.record(&world.leadership, recording.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { held: 1, current: 2 }), "{error}");
    assert!(world.leadership.lost().is_cancelled() && !newer.lost().is_cancelled());
    world.ledger.record(&newer, recording).await.unwrap();
    let error = world.ledger.skip(&world.leadership, RunId(1), "no").await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
}

async fn cursors_survive_with_the_runs_they_made(world: World) {
    let seen = ZnodeVersion { czxid: 5, mzxid: 9, version: 3 };
    let znode = |path: &str, seen| CursorMove::Znode {
        schedule: name("inbox"),
        path: path.into(),
        seen,
        data: Some(b"old".to_vec()),
    };
    let recording = Recording {
        cursors: vec![
            znode("/inbox/a", Some(ZnodeVersion { mzxid: 7, ..seen })),
            znode("/inbox/a", Some(seen)),
            znode("/inbox/b", Some(seen)),
            CursorMove::ZnodeInitialized { schedule: name("inbox"), zxid: 9 },
            CursorMove::Cron { schedule: name("nightly"), to: minute(5) },
            CursorMove::Cron { schedule: name("nightly"), to: minute(4) },
        ],
        ..Recording::default()
    };
    world.ledger.record(&world.leadership, recording).await.unwrap();
    let gone = Recording { cursors: vec![znode("/inbox/b", None)], ..Recording::default() };
    world.ledger.record(&world.leadership, gone).await.unwrap();

    let again = Ledger::open(&world.place.url, world.clock.clone()).await.unwrap();
    let states = again.schedule_states().await.unwrap();
    assert_eq!(states[&name("nightly")].cron_cursor, minute(5));
    assert_eq!(states[&name("inbox")].znode_initialized, Some(9));
    let cursors = again.znode_cursors(&name("inbox")).await.unwrap();
    assert_eq!(cursors.iter().map(|c| (c.path.as_str(), c.seen)).collect::<Vec<_>>(), [("/inbox/a", seen)]);
    assert_eq!(again.previous_data(&name("inbox"), "/inbox/a").await.unwrap().as_deref(), Some(&b"old"[..]));
}
