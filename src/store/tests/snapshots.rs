//! What is read together belongs together, however much is written meanwhile.

use super::*;

on_both_stores! {
    World:
    in_a_snapshot_nothing_changes,
    snapshots_give_back_what_they_take,
    a_run_is_told_with_the_timeline_that_it_has_then,
    statistics_are_of_one_moment,
    a_trigger_that_begins_learns_of_one_moment,
}

/// Asks again and again while something is written; how often it was answered.
async fn while_writing<W: Future<Output = ()>>(writing: W, asking: impl AsyncFn()) -> u32 {
    let mut answers = 0;
    let reading = async {
        loop {
            asking().await;
            answers += 1;
        }
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
    }
    answers
}

async fn in_a_snapshot_nothing_changes(world: World) {
    let first = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let count = async |ledger: &Ledger| ledger.runs(&RunFilter::default(), 10, None).await.unwrap().items.len();
    let before = world.ledger.snapshot().await.unwrap();
    assert_eq!(count(&before).await, 1);
    world.record(cron_run(minute(1), Overlap::Allow)).await;
    world.see(&first.dag_run_id, AirflowState::Running).await;
    let pause = Pause { by: "me".into(), reason: None, until: None, at: start() };
    world.ledger.pause(&world.leadership, &name("nightly"), pause, World::audit()).await.unwrap();

    assert_eq!(count(&before).await, 1);
    let run = before.run(&first.dag_run_id).await.unwrap().unwrap();
    assert_eq!((run.state, run.timeline.len()), (RunState::Pending, 0), "also what was not read before");
    let states = before.snapshot().await.unwrap().schedule_states().await.unwrap();
    assert_eq!(states[&name("nightly")].pause, None, "a snapshot of a snapshot is the same");

    let after = world.ledger.snapshot().await.unwrap();
    assert_eq!((count(&after).await, count(&world.ledger).await), (2, 2));
    assert_eq!(after.run(&first.dag_run_id).await.unwrap().unwrap().state, RunState::Running);
    assert!(after.schedule_state(&name("nightly")).await.unwrap().unwrap().pause.is_some());
}

async fn snapshots_give_back_what_they_take(world: World) {
    world.record(cron_run(minute(0), Overlap::Allow)).await;
    let look = async || {
        let snapshot = world.ledger.snapshot().await.unwrap();
        assert_eq!(snapshot.runs(&RunFilter::default(), 10, None).await.unwrap().items.len(), 1);
    };
    // Far more than there are readers, also at once.
    for _ in 0..20 {
        futures_util::future::join_all((0..5).map(|_| look())).await;
    }
    // One that is dropped in the middle of a read, and one that was never read from.
    for _ in 0..20 {
        drop(world.ledger.snapshot().await.unwrap());
        let snapshot = world.ledger.snapshot().await.unwrap();
        tokio::select! {
            biased;
            _ = snapshot.schedule_states() => {}
            () = tokio::task::yield_now() => {}
        }
    }
    look().await;
    // What fails in one does not stay with the connection.
    let snapshot = world.ledger.snapshot().await.unwrap();
    assert!(snapshot.fetch("SELECT nothing FROM nowhere", []).await.is_err());
    drop(snapshot);
    for _ in 0..5 {
        look().await;
    }
}

async fn a_run_is_told_with_the_timeline_that_it_has_then(world: World) {
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 1)).await.unwrap();
    let writing = async {
        for turn in 0..40 {
            world.see(&run.dag_run_id, AirflowState::Failed).await;
            // Cleared, and tried once more.
            world.see(&run.dag_run_id, AirflowState::Queued).await;
            world.ledger.record_attempt(&world.leadership, accepted(run.id, turn + 2)).await.unwrap();
        }
    };
    let answers = while_writing(writing, async || {
        let run = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
        assert_eq!(run.timeline.last().map(|entry| entry.state), Some(run.state), "{run:#?}");
        let closings = run.timeline.iter().filter(|entry| entry.state == RunState::Failed).count();
        let reopened = usize::try_from(run.reopened).unwrap();
        assert_eq!(closings, reopened + usize::from(run.state == RunState::Failed), "{run:#?}");
        assert!((reopened..=reopened + 1).contains(&run.attempts.len()), "{run:#?}");
    });
    assert!(answers.await > 0);
}

async fn statistics_are_of_one_moment(world: World) {
    let mut runs = Vec::new();
    for n in 0..40 {
        runs.push(world.record(cron_run(minute(n), Overlap::Allow)).await);
    }
    let writing = async {
        for (run, seconds) in runs.iter().zip(1..) {
            // Each takes a second longer than the one before.
            let ended_at = Some(start() + SignedDuration::from_secs(seconds));
            let note = Some(format!("flowkeeper store {}", world.ledger.store_id()));
            let seen = Sighting { ended_at, note, ..sighting(&run.dag_run_id, AirflowState::Success) };
            world.ledger.record_sightings(&world.leadership, "main", vec![seen], None).await.unwrap();
        }
    };
    let answers = while_writing(writing, async || {
        let stats = world.ledger.stats(StatsBy::Schedule, None).await.unwrap().remove(0);
        let ended = stats.states.get("success").copied();
        assert_eq!(stats.duration_ms.max, ended.map(|ended| ended * 1000), "{stats:?}");
        assert_eq!(stats.duration_ms.p50, ended.map(|ended| (ended + 1) / 2 * 1000), "{stats:?}");
    });
    assert!(answers.await > 0);
}

async fn a_trigger_that_begins_learns_of_one_moment(world: World) {
    let schedule = name("inbox");
    let writing = async {
        for zxid in 1..=50 {
            let seen = Some(ZnodeVersion { czxid: zxid, mzxid: zxid, version: 0 });
            let znode = CursorMove::Znode { schedule: schedule.clone(), path: format!("/in/{zxid}"), seen, data: None };
            let looked = CursorMove::ZnodeInitialized { schedule: schedule.clone(), zxid };
            let recording = Recording { cursors: vec![znode, looked], ..Recording::default() };
            world.ledger.record(&world.leadership, recording).await.unwrap();
        }
    };
    let answers = while_writing(writing, async || {
        let progress = world.ledger.znode_progress(&schedule).await.unwrap();
        let looked = progress.state.unwrap().znode_initialized;
        assert_eq!(progress.cursors.iter().map(|cursor| cursor.seen.czxid).max(), looked);
    });
    assert!(answers.await > 0);
}
