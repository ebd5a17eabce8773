//! What operators and edits of the configuration do.

use std::collections::{BTreeSet, HashMap};

use super::*;

on_both_stores! {
    World:
    an_edited_trigger_begins_anew_and_a_renamed_one_goes_on,
    what_a_working_leader_removes_ends_and_begins_anew_when_it_comes_back,
    a_name_that_passes_on_has_the_cursor_and_the_pause_of_its_new_schedule,
    two_schedules_that_swap_names_by_way_of_a_third_keep_what_is_theirs,
    what_rests_takes_no_name_that_is_in_force,
    a_rename_that_is_rolled_back_is_a_rename,
    a_leader_with_the_set_from_before_a_rename_loses_nothing,
    what_a_znode_trigger_had_handled_outlives_a_leader_with_another_rule,
    a_pause_survives_a_restart_and_is_audited,
    a_schedule_that_the_next_leaders_configuration_lacks_goes_on_where_it_was_when_it_comes_back,
    znodes_with_long_paths_have_cursors,
    a_backfill_takes_occurrences_out_of_a_row_that_covers_several,
    what_is_taken_up_again_runs_where_its_schedule_runs_now,
    no_row_takes_the_identity_of_another,
    a_row_covers_occurrences_of_one_owner_and_one_dag,
    a_retry_sends_what_was_stored_and_a_cancel_gives_up_only_what_waits,
}

async fn an_edited_trigger_begins_anew_and_a_renamed_one_goes_on(world: World) {
    let to = minute(5);
    let cursors = vec![CursorMove::Cron { schedule: name("nightly"), to }];
    world.ledger.record(&world.leadership, Recording { cursors, ..Recording::default() }).await.unwrap();
    world.clock.advance(SignedDuration::from_hours(1));

    world.adopt(&[("nightly", "cron 1"), ("inbox", "znode 1")]).await;
    assert_eq!(world.ledger.schedule_states().await.unwrap()[&name("nightly")].cron_cursor, to, "unchanged");

    let renamed = TriggerIdentity { name: name("load"), was: vec![name("nightly")], key: "cron 1".into() };
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
        was: was.map(name).into_iter().collect(),
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

/// Schedules as a set has them: name, `was` and trigger.
fn identities(schedules: &[(&str, &str, &str)]) -> Vec<TriggerIdentity> {
    let identity = |(schedule, was, key): &(&str, &str, &str)| TriggerIdentity {
        name: name(schedule),
        was: ScheduleName::new(was).into_iter().collect(),
        key: (*key).to_owned(),
    };
    schedules.iter().map(identity).collect()
}

/// Moves cursors that tell who is who, and pauses one.
async fn tell_apart(world: &World, cursors: &[(&str, i64)], paused: &str) -> Pause {
    let cursors = cursors.iter().map(|(schedule, to)| CursorMove::Cron { schedule: name(schedule), to: minute(*to) });
    let recording = Recording { cursors: cursors.collect(), ..Recording::default() };
    world.ledger.record(&world.leadership, recording).await.unwrap();
    let pause = Pause { by: "ada".into(), reason: None, until: None, at: world.clock.now() };
    world.ledger.pause(&world.leadership, &name(paused), pause.clone(), World::audit()).await.unwrap();
    pause
}

async fn a_name_that_passes_on_has_the_cursor_and_the_pause_of_its_new_schedule(world: World) {
    // By a leader that works, and by the next one; the one that is removed has the same trigger or another.
    for (round, (works, key)) in [(true, "a"), (true, "b"), (false, "a"), (false, "b")].into_iter().enumerate() {
        let round = i64::try_from(round).unwrap() * 10;
        world.ledger.adopt_schedules(&world.leadership, &[], minute(round)).await.unwrap();
        let both = identities(&[("a", "", "a"), ("b", "", key)]);
        world.ledger.edit_schedules(&world.leadership, &both, minute(round), &HashMap::new()).await.unwrap();
        for (paused, expected) in [("a", true), ("b", false)] {
            let pause = tell_apart(&world, &[("a", round + 5), ("b", round + 7)], paused).await;
            let moved = identities(&[("b", "a", "a")]);
            for _ in 0..2 {
                // Twice, as after an answer that was lost.
                if works {
                    let none = HashMap::new();
                    world.ledger.edit_schedules(&world.leadership, &moved, minute(round + 9), &none).await.unwrap();
                } else {
                    world.ledger.adopt_schedules(&world.leadership, &moved, minute(round + 9)).await.unwrap();
                }
                let states = world.ledger.schedule_states().await.unwrap();
                assert_eq!(states.len(), 1);
                let state = &states[&name("b")];
                assert_eq!(state.cron_cursor, minute(round + 5), "works {works}, {key}");
                assert_eq!(state.pause, expected.then_some(pause.clone()), "works {works}, {key}, {paused} paused");
            }
            if paused == "a" {
                world.ledger.resume(&world.leadership, &name("b"), World::audit()).await.unwrap();
                world.ledger.edit_schedules(&world.leadership, &[], minute(round), &HashMap::new()).await.unwrap();
                world.ledger.edit_schedules(&world.leadership, &both, minute(round), &HashMap::new()).await.unwrap();
            }
        }
    }
}

async fn two_schedules_that_swap_names_by_way_of_a_third_keep_what_is_theirs(world: World) {
    let edit = async |schedules: &[(&str, &str, &str)]| {
        let none = HashMap::new();
        world.ledger.edit_schedules(&world.leadership, &identities(schedules), minute(9), &none).await.unwrap();
    };
    edit(&[("a", "", "one"), ("b", "", "two")]).await;
    let cursor = world.ledger.schedule_states().await.unwrap()[&name("a")].cron_cursor;
    let pause = tell_apart(&world, &[("b", 12)], "a").await;
    edit(&[("t", "a", "one"), ("b", "", "two")]).await;
    edit(&[("t", "a", "one"), ("a", "b", "two")]).await;
    edit(&[("b", "t", "one"), ("a", "b", "two")]).await;
    edit(&[("b", "t", "one"), ("a", "", "two")]).await;
    let states = world.ledger.schedule_states().await.unwrap();
    let (a, b) = (&states[&name("a")], &states[&name("b")]);
    assert_eq!((b.cron_cursor, b.pause.as_ref()), (cursor, Some(&pause)));
    assert_eq!((a.cron_cursor, a.pause.as_ref()), (minute(12), None));
}

async fn what_rests_takes_no_name_that_is_in_force(world: World) {
    let adopt = async |schedules: &[(&str, &str, &str)]| {
        world.ledger.adopt_schedules(&world.leadership, &identities(schedules), minute(9)).await.unwrap();
    };
    adopt(&[("a", "", "one"), ("b", "", "one")]).await;
    let pause = tell_apart(&world, &[("a", 12), ("b", 15)], "a").await;
    // The next leader lacks `a`, and the one after it says that `b` was `a`.
    adopt(&[("b", "", "one")]).await;
    adopt(&[("b", "a", "one")]).await;
    let states = world.ledger.schedule_states().await.unwrap();
    assert_eq!((states[&name("b")].cron_cursor, states[&name("b")].pause.as_ref()), (minute(15), None));
    // What rests goes on where it was, under its own name or a free one.
    adopt(&[("b", "", "one"), ("c", "a", "one")]).await;
    let states = world.ledger.schedule_states().await.unwrap();
    assert_eq!((states[&name("c")].cron_cursor, states[&name("c")].pause.as_ref()), (minute(12), Some(&pause)));
}

async fn a_rename_that_is_rolled_back_is_a_rename(world: World) {
    let znode = "znode  /in Children created true changed false deleted false include None";
    let none = HashMap::new();
    let edit = async |schedules: &[(&str, &str, &str)], at: i64| {
        world.ledger.edit_schedules(&world.leadership, &identities(schedules), minute(at), &none).await.unwrap();
        world.ledger.schedule_states().await.unwrap()
    };
    edit(&[("a", "", "one"), ("in", "", znode)], 1).await;
    let pause = tell_apart(&world, &[("a", 5)], "in").await;
    let run = world.record(NewRun { schedule: name("a"), ..cron_run(minute(4), Overlap::Allow) }).await.id;
    let seen = Some(ZnodeVersion { czxid: 1, mzxid: 2, version: 3 });
    let cursors = vec![
        CursorMove::Znode { schedule: name("in"), path: "/in/a".into(), seen, data: None },
        CursorMove::ZnodeInitialized { schedule: name("in"), zxid: 9 },
    ];
    world.ledger.record(&world.leadership, Recording { cursors, ..Recording::default() }).await.unwrap();

    let renamed = [("b", "a", "one"), ("inbox", "in", znode)];
    let before = [("a", "", "one"), ("in", "", znode)];
    // There and back again, also when `was` is written no more.
    for (there, back) in [(&renamed, &before), (&[("b", "", "one"), ("inbox", "", znode)], &before)] {
        for (set, [job, inbox]) in [(there, ["b", "inbox"]), (back, ["a", "in"])] {
            for _ in 0..2 {
                // Twice, as after an answer that was lost.
                let states = edit(set, 9).await;
                assert_eq!(states.len(), 2);
                assert_eq!(states[&name(job)].cron_cursor, minute(5), "{job}");
                let inbox = &states[&name(inbox)];
                assert_eq!((inbox.znode_initialized, inbox.pause.as_ref()), (Some(9), Some(&pause)));
                assert_eq!(world.ledger.znode_cursors(&inbox.name).await.unwrap().len(), 1, "no child is new");
            }
            let run = world.ledger.run(&run.to_string()).await.unwrap().unwrap();
            assert_eq!(run.schedule, job, "its history follows");
        }
    }

    // Over two renames at once, and edited on the way back.
    edit(&renamed, 10).await;
    edit(&[("c", "b", "one"), ("inbox", "", znode)], 10).await;
    let states = edit(&[("a", "", "two"), ("inbox", "", znode)], 11).await;
    assert_eq!(states[&name("a")].cron_cursor, minute(11), "the new rule begins at that moment");
    // What was removed begins anew, whoever had its name.
    edit(&[("b", "a", "two"), ("inbox", "", znode)], 12).await;
    edit(&[("inbox", "", znode)], 13).await;
    let states = edit(&[("a", "", "two"), ("inbox", "", znode)], 14).await;
    assert_eq!(states[&name("a")].cron_cursor, minute(14));
}

async fn a_leader_with_the_set_from_before_a_rename_loses_nothing(world: World) {
    let adopt = async |schedules: &[(&str, &str, &str)], at: i64| {
        world.ledger.adopt_schedules(&world.leadership, &identities(schedules), minute(at)).await.unwrap();
    };
    let (old, new) = ([("a", "", "one")], [("b", "a", "one")]);
    adopt(&old, 0).await;
    adopt(&new, 1).await;
    // Its leader has come so far, and dies; the next one still has the old file, and dies as well.
    let pause = tell_apart(&world, &[("b", 5)], "b").await;
    for (set, own, at) in [(&old, "a", 7), (&old, "a", 8), (&new, "b", 9), (&old, "a", 10)] {
        adopt(set, at).await;
        let states = world.ledger.schedule_states().await.unwrap();
        assert_eq!(states.len(), 1);
        assert_eq!((states[&name(own)].cron_cursor, states[&name(own)].pause.as_ref()), (minute(5), Some(&pause)));
    }
    // It gets the new file while it leads.
    let none = HashMap::new();
    world.ledger.edit_schedules(&world.leadership, &identities(&new), minute(11), &none).await.unwrap();
    let states = world.ledger.schedule_states().await.unwrap();
    assert_eq!((states[&name("b")].cron_cursor, states[&name("b")].pause.as_ref()), (minute(5), Some(&pause)));
    // One that lacks both leaves it where it is, for whoever comes next.
    adopt(&[], 12).await;
    adopt(&old, 13).await;
    let known = world.ledger.known_schedules().await.unwrap();
    assert_eq!(known.states[&name("a")].cron_cursor, minute(5));
    assert_eq!(known.known[&name("a")].former, [name("b")]);
}

async fn what_a_znode_trigger_had_handled_outlives_a_leader_with_another_rule(world: World) {
    let watches = |place: &str| {
        let long = "x".repeat(2_000);
        format!("znode  /{place} Children created true changed true deleted false include Some([\"{long}\"])")
    };
    let (newest, older, third) = (watches("b"), watches("a"), watches("c"));
    let identity = |key: &str| identities(&[("in", "", key)]);
    let adopt = async |key: &str| {
        world.ledger.adopt_schedules(&world.leadership, &identity(key), world.clock.now()).await.unwrap();
    };
    let edit = async |key: &str| {
        let (now, none) = (world.clock.now(), HashMap::new());
        world.ledger.edit_schedules(&world.leadership, &identity(key), now, &none).await.unwrap();
    };
    let handle = async |path: &str, zxid: i64| {
        let seen = Some(ZnodeVersion { czxid: 1, mzxid: zxid, version: 3 });
        let cursors = vec![
            CursorMove::Znode { schedule: name("in"), path: path.into(), seen, data: Some(b"x".to_vec()) },
            CursorMove::ZnodeInitialized { schedule: name("in"), zxid },
        ];
        world.ledger.record(&world.leadership, Recording { cursors, ..Recording::default() }).await.unwrap();
    };
    let handled = async || {
        let state = world.ledger.schedule_state(&name("in")).await.unwrap().unwrap();
        let cursors = world.ledger.znode_cursors(&name("in")).await.unwrap();
        (state.znode_initialized, cursors.into_iter().map(|cursor| cursor.path).collect::<Vec<_>>())
    };
    adopt(&newest).await;
    handle("/b/1", 5).await;
    // One that lags behind leads for a moment, and the newest set comes back: with the next leader, or to this one.
    for again in 0..4 {
        adopt(&older).await;
        if again == 0 {
            assert_eq!(handled().await, (None, vec![]), "its own rule begins");
            handle("/a/1", 7).await;
        } else {
            assert_eq!(handled().await, (Some(7), vec!["/a/1".to_owned()]));
        }
        if again == 3 {
            edit(&newest).await;
        } else {
            adopt(&newest).await;
        }
        assert_eq!(handled().await, (Some(5), vec!["/b/1".to_owned()]), "{again}");
        assert_eq!(world.ledger.previous_data(&name("in"), "/b/1").await.unwrap(), Some(b"x".to_vec()));
    }
    // A working leader that edits it means it.
    edit(&third).await;
    edit(&newest).await;
    assert_eq!(handled().await, (None, vec![]));
    // After a day nobody is about to come back.
    handle("/b/1", 9).await;
    adopt(&older).await;
    world.clock.advance(SignedDuration::from_hours(25));
    world.ledger.forget_gone_schedules(&world.leadership).await.unwrap();
    adopt(&newest).await;
    assert_eq!(handled().await, (None, vec![]));
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

/// The occurrence as its schedule has it after it has changed hands.
fn in_other_hands(at: Timestamp) -> NewRun {
    NewRun {
        owner: Some("search".into()),
        airflow: "other".into(),
        dag_id: "search_index".into(),
        conf: json(r#"{"index": true}"#),
        lock: Some("index".into()),
        ..cron_run(at, Overlap::Allow)
    }
}

/// The owner, the Airflow, the DAG and the conf of the row with this identity.
async fn target(world: &World, dag_run_id: &str) -> (Option<String>, String, String, String) {
    let run = world.ledger.run(dag_run_id).await.unwrap().unwrap();
    (run.owner, run.airflow, run.dag_id, run.conf.to_string())
}

async fn what_is_taken_up_again_runs_where_its_schedule_runs_now(world: World) {
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let decided = |state, at| NewRun { state, conf: json("null"), ..cron_run(at, Overlap::Allow) };
    let missed = world.record(decided(RunState::Missed, minute(0))).await.id;
    let skipped = world.record(decided(RunState::Skipped, minute(1))).await.id;
    let rejected = world.record(cron_run(minute(2), Overlap::Allow)).await.id;
    let refused =
        AttemptRecord { outcome: AttemptOutcome::Rejected, detail: Some("refused".into()), ..accepted(rejected, 1) };
    world.ledger.record_attempt(&world.leadership, refused).await.unwrap();
    let removed = world.record(cron_run(minute(3), Overlap::Allow)).await;
    world.see(&removed.dag_run_id, AirflowState::Running).await;
    world.ledger.mark_removed(&world.leadership, removed.id, "deleted in Airflow").await.unwrap();
    let covers = Covered { from: minute(4), to: minute(6), count: 3 };
    let merged = NewRun { covers: Some(covers), ..decided(RunState::Missed, minute(6)) };
    let merged = world.record(merged).await.id;
    let retried = world.record(decided(RunState::Skipped, minute(7))).await;
    while tickets.try_recv().is_ok() {}

    let cases = [
        (missed, RunState::Missed, 0),
        (skipped, RunState::Skipped, 1),
        (rejected, RunState::Rejected, 2),
        (removed.id, RunState::Removed, 3),
    ];
    let reopen = |(row, expected, at)| BackfillStep::Reopen { row, expected, run: in_other_hands(minute(at)) };
    let mut steps: Vec<_> = cases.into_iter().map(reopen).collect();
    let before = Covered { from: minute(4), to: minute(4), count: 1 };
    steps.push(BackfillStep::Split {
        row: merged,
        was: covers,
        before: Some((cron_run(minute(4), Overlap::Allow).dag_run_id, before)),
        after: None,
        runs: vec![in_other_hands(minute(5)), in_other_hands(minute(6))],
    });
    let applied = world.ledger.backfill(&world.leadership, steps, World::audit()).await.unwrap();
    assert_eq!(applied, [true; 5]);
    let again = Reopen { expected: RunState::Skipped, fresh: Some(in_other_hands(minute(7))) };
    assert!(world.ledger.retry(&world.leadership, retried.id, again, World::audit()).await.unwrap());

    let now =
        (Some("search".to_owned()), "other".to_owned(), "search_index".to_owned(), r#"{"index":true}"#.to_owned());
    let mut sent = BTreeSet::new();
    while let Ok(ticket) = tickets.try_recv() {
        let conf = ticket.conf.get();
        assert_eq!((&*ticket.airflow, &*ticket.dag_id, conf), ("other", "search_index", r#"{"index": true}"#));
        assert_eq!(ticket.lock.as_deref(), Some("index"));
        assert_eq!(target(&world, &ticket.dag_run_id).await, now, "{}", ticket.dag_run_id);
        sent.insert(ticket.dag_run_id);
    }
    let expected = [0, 1, 2, 3, 5, 6, 7].map(|at| cron_run(minute(at), Overlap::Allow).dag_run_id);
    assert_eq!(sent, BTreeSet::from(expected));
    let left = target(&world, &cron_run(minute(4), Overlap::Allow).dag_run_id).await;
    assert_eq!(
        (left.0.as_deref(), &*left.2),
        (Some("platform"), "nightly_load"),
        "what is not taken up stays as it was"
    );
}

async fn no_row_takes_the_identity_of_another(world: World) {
    // Recorded under the name that the schedule had before, while another had the present one.
    let earlier = |to: i64, covers| NewRun {
        dag_run_id: format!("flowkeeper__before__{}", minute(to)),
        state: RunState::Missed,
        covers,
        ..cron_run(minute(to), Overlap::Allow)
    };
    let single = world.record(earlier(0, None)).await;
    let covers = Covered { from: minute(1), to: minute(4), count: 4 };
    let merged = world.record(NewRun { reason: Some("down".into()), ..earlier(4, Some(covers)) }).await;
    for at in [0, 2, 4] {
        let run = world.record(cron_run(minute(at), Overlap::Allow)).await;
        world.see(&run.dag_run_id, AirflowState::Success).await;
    }
    let split = |before: i64, taken: i64, after: Option<Covered>| BackfillStep::Split {
        row: merged.id,
        was: covers,
        before: Some((
            cron_run(minute(before), Overlap::Allow).dag_run_id,
            Covered { from: minute(1), to: minute(before), count: before },
        )),
        after,
        runs: vec![in_other_hands(minute(taken))],
    };
    let steps = vec![
        BackfillStep::Reopen { row: single.id, expected: RunState::Missed, run: in_other_hands(minute(0)) },
        split(3, 4, None),
        split(2, 3, Some(Covered { from: minute(4), to: minute(4), count: 1 })),
    ];
    let applied = world.ledger.backfill(&world.leadership, steps, World::audit()).await.unwrap();
    assert_eq!(applied, [false; 3]);
    let rows = world.ledger.nominal_rows(&name("nightly"), minute(0), minute(9)).await.unwrap();
    let missed: Vec<_> = rows
        .iter()
        .filter(|row| row.state == RunState::Missed)
        .map(|row| (row.id, row.dag_run_id.as_str(), row.covers))
        .collect();
    let expected = [(single.id, &*single.dag_run_id, None), (merged.id, &*merged.dag_run_id, Some(covers))];
    assert_eq!(missed, expected, "they are as they were");
    assert_eq!(rows.len(), 5, "and nothing runs twice");
}

async fn a_row_covers_occurrences_of_one_owner_and_one_dag(world: World) {
    let missed = |run: NewRun| NewRun { state: RunState::Missed, reason: Some("down".into()), ..run };
    for at in 0..2 {
        world.record(missed(cron_run(minute(at), Overlap::Allow))).await;
    }
    for at in 2..5 {
        world.record(missed(in_other_hands(minute(at)))).await;
    }
    let rows = world.ledger.nominal_rows(&name("nightly"), minute(0), minute(9)).await.unwrap();
    let shown: Vec<_> = rows.iter().map(|row| (row.owner.as_deref(), row.covers.map(|covers| covers.count))).collect();
    assert_eq!(shown, [(Some("platform"), Some(2)), (Some("search"), Some(3))]);
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
