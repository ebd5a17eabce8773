//! What operators and edits of the configuration do.

use std::collections::HashMap;

use super::*;

on_both_stores! {
    World:
    an_edited_trigger_begins_anew_and_a_renamed_one_goes_on,
    what_a_working_leader_removes_ends_and_begins_anew_when_it_comes_back,
    a_pause_survives_a_restart_and_is_audited,
    a_schedule_that_the_next_leaders_configuration_lacks_goes_on_where_it_was_when_it_comes_back,
    znodes_with_long_paths_have_cursors,
    a_backfill_takes_occurrences_out_of_a_row_that_covers_several,
    a_retry_sends_what_was_stored_and_a_cancel_gives_up_only_what_waits,
}

async fn an_edited_trigger_begins_anew_and_a_renamed_one_goes_on(world: World) {
    let to = minute(5);
    let cursors = vec![CursorMove::Cron { schedule: name("nightly"), to }];
    world.ledger.record(&world.leadership, Recording { cursors, ..Recording::default() }).await.unwrap();
    world.clock.advance(SignedDuration::from_hours(1));

    world.adopt(&[("nightly", "cron 1"), ("inbox", "znode 1")]).await;
    assert_eq!(world.ledger.schedule_states().await.unwrap()[&name("nightly")].cron_cursor, to, "unchanged");

    let renamed = TriggerIdentity { name: name("load"), was: Some(name("nightly")), key: "cron 1".into() };
    world.ledger.adopt_schedules(&world.leadership, &[renamed], world.clock.now()).await.unwrap();
    let states = world.ledger.schedule_states().await.unwrap();
    assert_eq!(states[&name("load")].cron_cursor, to, "renamed");
    assert!(!states.contains_key(&name("inbox")), "removed");

    world.adopt(&[("load", "cron 2")]).await;
    assert_eq!(world.ledger.schedule_states().await.unwrap()[&name("load")].cron_cursor, world.clock.now(), "edited");
}

async fn what_a_working_leader_removes_ends_and_begins_anew_when_it_comes_back(world: World) {
    let identity = |schedule: &str, was: Option<&str>, key: &str| TriggerIdentity {
        name: name(schedule),
        was: was.map(name),
        key: key.to_owned(),
    };
    let znode = "znode  /in Children created true changed false deleted false include None";
    let edited = "znode  /in Children created true changed true deleted false include None";
    let elsewhere = "znode  /out Children created true changed true deleted false include None";
    let daily = "cron|0 0 * * *|UTC|Shift|First";
    let edit = async |schedules: &[TriggerIdentity]| {
        world.clock.advance(SignedDuration::from_hours(1));
        let compared = HashMap::from([(name("inbox"), 5)]);
        world.ledger.edit_schedules(&world.leadership, schedules, world.clock.now(), &compared).await.unwrap();
        world.ledger.schedule_states().await.unwrap()
    };
    let states = edit(&[identity("nightly", None, daily), identity("inbox", None, znode)]).await;
    let began = states[&name("nightly")].cron_cursor;
    assert_eq!(began, world.clock.now());
    let seen = Some(ZnodeVersion { czxid: 1, mzxid: 2, version: 3 });
    let cursors = vec![
        CursorMove::Znode { schedule: name("inbox"), path: "/in/a".into(), seen, data: None },
        CursorMove::ZnodeInitialized { schedule: name("inbox"), zxid: 9 },
    ];
    world.ledger.record(&world.leadership, Recording { cursors, ..Recording::default() }).await.unwrap();

    // Only spelled otherwise; and the same znodes by another rule, which looks anew.
    let respelled = identity("nightly", None, "cron|@daily|UTC|Shift|First");
    let states = edit(&[respelled.clone(), identity("inbox", None, edited)]).await;
    assert_eq!(states[&name("nightly")].cron_cursor, began);
    assert_eq!(states[&name("inbox")].znode_initialized, None);
    assert_eq!(states[&name("inbox")].znode_after, Some(9), "the later of the two is known to be compared");
    assert_eq!(world.ledger.znode_cursors(&name("inbox")).await.unwrap().len(), 1, "no change falls between");
    // Edited again before it has looked: what it owes stays owed.
    let states = edit(&[respelled.clone(), identity("inbox", None, znode)]).await;
    assert_eq!(states[&name("inbox")].znode_after, Some(9));
    let states = edit(&[respelled.clone(), identity("inbox", None, elsewhere)]).await;
    assert_eq!(states[&name("inbox")].znode_after, None);
    assert!(world.ledger.znode_cursors(&name("inbox")).await.unwrap().is_empty());

    // Removed and made again: it begins at that moment, and an operator's pause holds.
    let pause = Pause { by: "ada".into(), reason: None, until: None, at: world.clock.now() };
    world.ledger.pause(&world.leadership, &name("nightly"), pause.clone(), World::audit()).await.unwrap();
    assert!(!edit(&[identity("inbox", None, elsewhere)]).await.contains_key(&name("nightly")));
    let states = edit(&[respelled.clone(), identity("inbox", None, elsewhere)]).await;
    assert_eq!(states[&name("nightly")].cron_cursor, world.clock.now());
    assert_eq!(states[&name("nightly")].pause, Some(pause.clone()));

    // Renamed to a name that somebody had before who has gone.
    let back = states[&name("nightly")].cron_cursor;
    edit(&[respelled]).await;
    let states = edit(&[identity("inbox", Some("nightly"), daily)]).await;
    assert_eq!(states[&name("inbox")].cron_cursor, back, "it goes on under that name");
    assert_eq!(states[&name("inbox")].pause, Some(pause));
    // The same edit twice, as after an answer that was lost, changes nothing.
    let again = edit(&[identity("inbox", Some("nightly"), daily)]).await;
    assert_eq!(again[&name("inbox")].cron_cursor, back);
}

async fn a_pause_survives_a_restart_and_is_audited(world: World) {
    let pause = Pause { by: "ada".into(), reason: Some("upgrade".into()), until: None, at: world.clock.now() };
    let pauses = world.ledger.pauses();
    world.ledger.pause(&world.leadership, &name("nightly"), pause.clone(), World::audit()).await.unwrap();
    assert!(pauses.has_changed().unwrap());
    let again = Ledger::open_read_only(&world.place.url, world.clock.clone()).await.unwrap();
    assert_eq!(again.schedule_states().await.unwrap()[&name("nightly")].pause, Some(pause));
    assert!(world.ledger.resume(&world.leadership, &name("nightly"), World::audit()).await.unwrap());
    assert!(!world.ledger.resume(&world.leadership, &name("nightly"), World::audit()).await.unwrap());
    assert_eq!(world.ledger.audit(10, None).await.unwrap().items.len(), 2);
    let nobody = name("nobody");
    let unknown = world.ledger.pause(
        &world.leadership,
        &nobody,
        Pause { by: "ada".into(), reason: None, until: None, at: world.clock.now() },
        World::audit(),
    );
    assert!(matches!(unknown.await, Err(StoreError::NotFound { .. })));
}

async fn a_backfill_takes_occurrences_out_of_a_row_that_covers_several(world: World) {
    let covers = Covered { from: minute(0), to: minute(9), count: 10 };
    let missed = NewRun {
        state: RunState::Missed,
        reason: Some("down".into()),
        covers: Some(covers),
        conf: json("null"),
        ..cron_run(minute(9), Overlap::Allow)
    };
    let row = world.record(missed).await.id;
    let step = BackfillStep::Split {
        row,
        was: covers,
        before: Some((
            format!("flowkeeper__nightly__{}", minute(3)),
            Covered { from: minute(0), to: minute(3), count: 4 },
        )),
        after: Some(Covered { from: minute(6), to: minute(9), count: 4 }),
        runs: vec![cron_run(minute(4), Overlap::Skip), cron_run(minute(5), Overlap::Skip)],
    };
    let applied = world.ledger.backfill(&world.leadership, vec![step.clone()], World::audit()).await.unwrap();
    assert_eq!(applied, [true]);
    let again = world.ledger.backfill(&world.leadership, vec![step], World::audit()).await.unwrap();
    assert_eq!(again, [false], "the row no longer covers what the plan was made for");
    let rows = world.ledger.nominal_rows(&name("nightly"), minute(0), minute(9)).await.unwrap();
    let shown: Vec<_> =
        rows.iter().map(|row| (row.state, row.nominal_time, row.covers.map_or(1, |c| c.count))).collect();
    assert_eq!(
        shown,
        [
            (RunState::Missed, minute(3), 4),
            (RunState::Pending, minute(4), 1),
            (RunState::Pending, minute(5), 1),
            (RunState::Missed, minute(9), 4),
        ]
    );
}

async fn a_retry_sends_what_was_stored_and_a_cancel_gives_up_only_what_waits(world: World) {
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    tickets.try_recv().unwrap();
    let mut attempt = accepted(run.id, 1);
    attempt.outcome = AttemptOutcome::Rejected;
    attempt.detail = Some("Airflow refused".into());
    world.ledger.record_attempt(&world.leadership, attempt).await.unwrap();
    let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.reason.as_deref()), (RunState::Rejected, Some("Airflow refused")));

    let reopen = |expected| Reopen { expected, fresh: None };
    assert!(!world.ledger.retry(&world.leadership, run.id, reopen(RunState::Missed), World::audit()).await.unwrap());
    assert!(world.ledger.retry(&world.leadership, run.id, reopen(RunState::Rejected), World::audit()).await.unwrap());
    let ticket = tickets.try_recv().unwrap();
    assert_eq!((ticket.attempts, ticket.first_attempt_at, ticket.conf.get()), (1, None, r#"{"b": 1, "a": 2}"#));

    assert!(world.ledger.not_pending(&[run.id]).await.unwrap().is_empty());
    assert!(world.ledger.cancel(&world.leadership, run.id, "not needed", World::audit()).await.unwrap());
    assert!(world.ledger.not_pending(&[run.id]).await.unwrap().contains_key(&run.id));
    assert!(!world.ledger.cancel(&world.leadership, run.id, "not needed", World::audit()).await.unwrap());
    assert_eq!(world.state(run.id).await, RunState::Skipped);
    // Its request was under way, and Airflow took it: the row follows.
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 2)).await.unwrap();
    assert_eq!(world.state(run.id).await, RunState::Queued);
}

async fn a_schedule_that_the_next_leaders_configuration_lacks_goes_on_where_it_was_when_it_comes_back(world: World) {
    let (both, other) = (vec![("nightly", "cron 1"), ("inbox", "znode 1")], vec![("nightly", "cron 1")]);
    let seen = ZnodeVersion { czxid: 5, mzxid: 9, version: 3 };
    let (schedule, path) = (name("inbox"), "/inbox/a".to_owned());
    let cursor = CursorMove::Znode { schedule, path, seen: Some(seen), data: None };
    let recording = Recording { cursors: vec![cursor], ..Recording::default() };
    world.ledger.record(&world.leadership, recording).await.unwrap();
    let pause = Pause { by: "ada".into(), reason: None, until: None, at: world.clock.now() };
    world.ledger.pause(&world.leadership, &name("inbox"), pause.clone(), World::audit()).await.unwrap();
    let since = world.ledger.schedule_states().await.unwrap()[&name("inbox")].since;

    // Leaders with an old and a new file take turns.
    for _ in 0..2 {
        world.clock.advance(SignedDuration::from_hours(11));
        world.adopt(&other).await;
        world.ledger.forget_gone_schedules(&world.leadership).await.unwrap();
        let states = world.ledger.schedule_states().await.unwrap();
        assert_eq!(states.len(), 1, "it is not in force");
        assert!(world.ledger.schedule_state(&name("inbox")).await.unwrap().is_none());
        world.clock.advance(SignedDuration::from_hours(11));
        world.adopt(&both).await;
        let state = world.ledger.schedule_state(&name("inbox")).await.unwrap().unwrap();
        assert_eq!((state.since, state.pause), (since, Some(pause.clone())));
        assert_eq!(world.ledger.znode_cursors(&name("inbox")).await.unwrap().len(), 1);
    }
    // One that was really removed is forgotten after a day.
    world.adopt(&other).await;
    world.clock.advance(SignedDuration::from_hours(25));
    world.ledger.forget_gone_schedules(&world.leadership).await.unwrap();
    world.adopt(&both).await;
    let state = world.ledger.schedule_state(&name("inbox")).await.unwrap().unwrap();
    assert_eq!((state.since, state.pause), (world.clock.now(), None));
    assert!(world.ledger.znode_cursors(&name("inbox")).await.unwrap().is_empty());
}

async fn znodes_with_long_paths_have_cursors(world: World) {
    // Noise, since PostgreSQL packs what repeats itself.
    let noise: String = (0..400).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    let (long, sibling) = (format!("/{noise}/a"), format!("/{noise}/b"));
    let seen = ZnodeVersion { czxid: 5, mzxid: 9, version: 3 };
    let cursor = |path: &str, seen| CursorMove::Znode {
        schedule: name("inbox"),
        path: path.into(),
        seen,
        data: Some(path.as_bytes().to_vec()),
    };
    for (moves, expected) in [
        (vec![cursor(&long, Some(seen)), cursor(&sibling, Some(seen))], vec![long.as_str(), sibling.as_str()]),
        (vec![cursor(&long, Some(seen)), cursor(&sibling, None)], vec![long.as_str()]),
    ] {
        let recording = Recording { cursors: moves, ..Recording::default() };
        world.ledger.record(&world.leadership, recording).await.unwrap();
        let mut paths: Vec<_> =
            world.ledger.znode_cursors(&name("inbox")).await.unwrap().into_iter().map(|cursor| cursor.path).collect();
        paths.sort_unstable();
        assert_eq!(paths, expected);
    }
    let data = world.ledger.previous_data(&name("inbox"), &long).await.unwrap();
    assert_eq!(data.as_deref(), Some(long.as_bytes()));
}
