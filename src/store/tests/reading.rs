//! Pages, filters, counts, and what is kept.

use super::*;

on_both_stores! {
    World:
    pages_follow_each_other_without_gap_or_repeat_while_rows_arrive,
    filters_hold_together,
    retention_keeps_what_is_open_what_is_newest_and_keys_by_hand,
    statistics_count_occurrences_and_rank_lateness,
    triggers_that_begin_at_once_each_learn_how_far_they_have_got,
}

async fn pages_follow_each_other_without_gap_or_repeat_while_rows_arrive(world: World) {
    for n in 0..25 {
        world.record(cron_run(minute(n), Overlap::Allow)).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = world.ledger.runs(&RunFilter::default(), 10, cursor.as_deref()).await.unwrap();
        seen.extend(page.items.iter().filter_map(|run| run.nominal_time));
        world.record(cron_run(minute(100 + i64::try_from(seen.len()).unwrap()), Overlap::Allow)).await;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().map(minute).collect::<Vec<_>>());
    let error = world.ledger.runs(&RunFilter::default(), 10, Some("x")).await.unwrap_err();
    assert!(matches!(error, StoreError::BadCursor { .. }));
}

async fn filters_hold_together(world: World) {
    for n in 0..6 {
        let mut run = cron_run(minute(n), Overlap::Allow);
        if n % 2 == 0 {
            (run.schedule, run.owner) = (name("inbox"), None);
            run.dag_id = "ingest".into();
        }
        if n == 5 {
            run.state = RunState::Rejected;
        }
        world.record(run).await;
    }
    let count = async |filter: RunFilter| world.ledger.runs(&filter, 100, None).await.unwrap().items.len();
    let all = RunFilter::default;
    assert_eq!(count(all()).await, 6);
    assert_eq!(count(RunFilter { schedule: Some("nightly".into()), ..all() }).await, 3);
    assert_eq!(count(RunFilter { dag_id: Some("ingest".into()), ..all() }).await, 3);
    assert_eq!(count(RunFilter { owner: Some("platform".into()), ..all() }).await, 3);
    assert_eq!(count(RunFilter { states: vec![RunState::Rejected, RunState::Pending], ..all() }).await, 6);
    assert_eq!(count(RunFilter { states: vec![RunState::Rejected], ..all() }).await, 1);
    assert_eq!(count(RunFilter { since: Some(minute(2)), until: Some(minute(4)), ..all() }).await, 2);
    let rejected = RunFilter { states: vec![RunState::Rejected], schedule: Some("inbox".into()), ..all() };
    assert_eq!(count(rejected).await, 0);
}

async fn retention_keeps_what_is_open_what_is_newest_and_keys_by_hand(world: World) {
    let mut ids = Vec::new();
    for n in 0..3 {
        let run = world.record(cron_run(minute(n), Overlap::Allow)).await;
        ids.push(run.id);
        if n != 1 {
            world.see(&run.dag_run_id, AirflowState::Success).await;
        }
    }
    let by_hand = NewRun {
        trigger: TriggerKind::Manual,
        nominal_time: None,
        dag_run_id: "flowkeeper__nightly__mkey".into(),
        state: RunState::Skipped,
        ..cron_run(minute(0), Overlap::Allow)
    };
    let by_hand = world.record(by_hand).await.id;
    world.clock.advance(SignedDuration::from_hours(24 * 100));
    // A backfill of an old time has only just ended.
    let long_ago = minute(0) - SignedDuration::from_hours(24 * 365);
    let backfilled = world.record(NewRun { state: RunState::Skipped, ..cron_run(long_ago, Overlap::Allow) }).await.id;
    world.ledger.retain(&world.leadership, Duration::from_hours(2160)).await.unwrap();
    let kept: Vec<_> =
        world.ledger.runs(&RunFilter::default(), 10, None).await.unwrap().items.iter().map(|run| run.id).collect();
    let why = "the newest, the open one, the one by hand, and the one that ended late";
    assert_eq!(kept, [ids[2], ids[1], by_hand, backfilled], "{why}");
}

async fn statistics_count_occurrences_and_rank_lateness(world: World) {
    for n in 0..10 {
        let run = world.record(cron_run(minute(n), Overlap::Allow)).await;
        let late = SignedDuration::from_millis(n + 1);
        let mut attempt = accepted(run.id, 1);
        attempt.started_at = minute(n) + late;
        world.ledger.record_attempt(&world.leadership, attempt).await.unwrap();
        let state = if n < 9 { AirflowState::Success } else { AirflowState::Failed };
        world.see(&run.dag_run_id, state).await;
    }
    let missed = NewRun {
        state: RunState::Missed,
        reason: Some("down".into()),
        covers: Some(Covered { from: minute(10), to: minute(19), count: 10 }),
        ..cron_run(minute(19), Overlap::Allow)
    };
    world.record(missed).await;
    let stats = world.ledger.stats(StatsBy::Schedule, None).await.unwrap().remove(0);
    assert_eq!((stats.group.as_str(), stats.occurrences, stats.success_rate), ("nightly", 20, Some(0.9)));
    assert_eq!(stats.states.get("missed"), Some(&10));
    let lateness = stats.lateness_ms;
    assert_eq!((lateness.p50, lateness.p95, lateness.p99, lateness.max), (Some(5), Some(10), Some(10), Some(10)));
    let by_owner = world.ledger.stats(StatsBy::Owner, Some(minute(15))).await.unwrap().remove(0);
    assert_eq!((by_owner.group.as_str(), by_owner.occurrences), ("platform", 10));
}

async fn triggers_that_begin_at_once_each_learn_how_far_they_have_got(world: World) {
    const TRIGGERS: i64 = 600;
    let names: Vec<String> = (0..TRIGGERS).map(|n| format!("znode-{n}")).collect();
    let schedules: Vec<_> = names.iter().map(|name| (name.as_str(), "znode 1")).collect();
    world.adopt(&schedules).await;
    // Each third one has handled znodes, two in different versions.
    let handled = (0..TRIGGERS).filter(|n| n % 3 == 0).flat_map(|n| {
        [(n, "a", 1), (n, "b", 2)].map(|(n, znode, version)| CursorMove::Znode {
            schedule: name(&format!("znode-{n}")),
            path: format!("/{n}/{znode}"),
            seen: Some(ZnodeVersion { czxid: n, mzxid: n, version }),
            data: None,
        })
    });
    let recording = Recording { cursors: handled.collect(), ..Recording::default() };
    world.ledger.record(&world.leadership, recording).await.unwrap();

    // One is asked for twice, one is not there.
    let asked: Vec<ScheduleName> = names.iter().map(String::as_str).chain(["znode-3", "nobody"]).map(name).collect();
    let answers = asked.iter().map(async |schedule| world.ledger.znode_progress(schedule).await.unwrap());
    let answers = futures_util::future::join_all(answers).await;
    for (schedule, progress) in asked.iter().zip(answers) {
        let known = progress.state.map(|state| state.name.to_string());
        let mut paths: Vec<_> = progress.cursors.into_iter().map(|cursor| (cursor.path, cursor.seen.version)).collect();
        paths.sort_unstable();
        let Some(n) = schedule.as_str().strip_prefix("znode-").and_then(|n| n.parse::<i64>().ok()) else {
            assert_eq!((known, paths), (None, vec![]));
            continue;
        };
        let expected = if n % 3 == 0 { vec![(format!("/{n}/a"), 1), (format!("/{n}/b"), 2)] } else { vec![] };
        assert_eq!((known.as_deref(), paths), (Some(schedule.as_str()), expected));
    }
}
