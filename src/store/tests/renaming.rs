//! The history of schedules that are renamed: it follows in pieces, and none of it to a stranger.

use std::collections::HashMap;

use super::*;

on_both_stores! {
    World:
    an_ordinary_history_goes_along_with_the_edit,
    a_long_history_follows_in_pieces_and_what_is_open_at_once,
    whoever_asks_for_a_schedule_gets_what_has_still_to_follow,
    a_row_that_is_taken_up_again_has_the_name_of_now,
    a_stranger_with_the_old_name_shares_no_row,
    a_name_that_comes_back_before_its_history_has_left_it_has_it_at_once,
    a_time_that_came_due_before_a_rename_does_not_come_due_again,
    decisions_without_a_row_go_along,
    a_name_that_nobody_saw_is_no_loss,
    what_an_operator_asks_for_under_the_name_of_before_is_refused,
    names_that_are_given_up_and_taken_again_at_once_mix_no_histories,
    a_history_is_found_whole_at_every_moment_of_its_way,
}

/// More than two pieces.
const LONG: i64 = 2_500;

impl World {
    /// So many closed runs of a schedule, one a minute.
    async fn closed_runs(&self, schedule: &str, count: i64) {
        let run = |n| NewRun {
            schedule: name(schedule),
            dag_run_id: format!("flowkeeper__{schedule}__{}__{n}", self.clock.now()),
            state: RunState::Rejected,
            ..cron_run(minute(n), Overlap::Allow)
        };
        let recording = Recording { runs: (0..count).map(run).collect(), ..Recording::default() };
        self.ledger.record(&self.leadership, recording).await.unwrap();
    }

    /// Schedules by name, some with the name that they had before.
    async fn edit(&self, schedules: &[(&str, Option<&str>)]) {
        self.clock.advance(SignedDuration::from_secs(1));
        let identity = |(schedule, was): &(&str, Option<&str>)| TriggerIdentity {
            name: name(schedule),
            was: was.iter().flat_map(|was| was.split(' ').map(name)).collect(),
            key: "cron 1".to_owned(),
        };
        let schedules: Vec<_> = schedules.iter().map(identity).collect();
        let (now, compared) = (self.clock.now(), HashMap::new());
        self.ledger.edit_schedules(&self.leadership, &schedules, now, &compared).await.unwrap();
    }

    async fn count_of(&self, schedule: &str) -> i64 {
        let sql = "SELECT COUNT(*) FROM runs WHERE schedule = $1";
        let mut connection = sqlx::AnyConnection::connect(&self.place.url).await.unwrap();
        sqlx::query_scalar(sql).bind(schedule.to_owned()).fetch_one(&mut connection).await.unwrap()
    }

    /// What a backfill finds of it.
    async fn found_of(&self, schedule: &str) -> usize {
        self.ledger.nominal_rows(&name(schedule), minute(0), minute(LONG + 1)).await.unwrap().len()
    }

    /// Numbers of all its runs in pages of `limit`, and the names that they are shown with.
    async fn listed_of(&self, schedule: &str, limit: u32) -> (Vec<i64>, Vec<String>) {
        let filter = RunFilter { schedule: Some(schedule.into()), ..RunFilter::default() };
        let (mut ids, mut names, mut cursor) = (Vec::new(), Vec::new(), None::<String>);
        loop {
            let page = self.ledger.runs(&filter, limit, cursor.as_deref()).await.unwrap();
            ids.extend(page.items.iter().map(|run| run.id.0));
            names.extend(page.items.into_iter().map(|run| run.schedule));
            cursor = page.next_cursor;
            if cursor.is_none() {
                names.sort_unstable();
                names.dedup();
                return (ids, names);
            }
        }
    }

    /// The oldest run of a schedule that has a long history.
    async fn oldest_of(&self, schedule: &str) -> Run {
        let filter = RunFilter { schedule: Some(schedule.into()), until: Some(minute(1)), ..RunFilter::default() };
        self.ledger.runs(&filter, 1, None).await.unwrap().items.remove(0)
    }

    /// What the row says, whatever is owed.
    async fn written_of(&self, run: RunId) -> String {
        let sql = "SELECT schedule FROM runs WHERE id = $1";
        sqlx::query_scalar(sql).bind(run.0).fetch_one(&mut self.place.connect().await).await.unwrap()
    }

    async fn follow_all(&self) -> usize {
        let mut pieces = 0;
        while self.ledger.move_renamed(&self.leadership).await.unwrap() {
            pieces += 1;
        }
        pieces
    }
}

async fn an_ordinary_history_goes_along_with_the_edit(world: World) {
    world.closed_runs("nightly", 20).await;
    world.edit(&[("load", Some("nightly"))]).await;
    assert_eq!((world.count_of("nightly").await, world.count_of("load").await), (0, 20));
    assert_eq!(world.follow_all().await, 0, "nothing is owed");
}

async fn a_long_history_follows_in_pieces_and_what_is_open_at_once(world: World) {
    let open = world.record(cron_run(minute(-5), Overlap::Allow)).await;
    world.closed_runs("nightly", LONG).await;
    world.edit(&[("load", Some("nightly"))]).await;
    assert_eq!(world.ledger.run(&open.id.to_string()).await.unwrap().unwrap().schedule, "load", "what is open");
    assert_eq!((world.count_of("nightly").await, world.count_of("load").await), (LONG - 1_000, 1_001));
    let newest = world.ledger.runs(&RunFilter { schedule: Some("load".into()), ..RunFilter::default() }, 1, None).await;
    assert_eq!(newest.unwrap().items[0].nominal_time, Some(minute(LONG - 1)), "the newest go first");
    assert_eq!(world.found_of("load").await, 2_500, "none is missing where it counts");

    // Somebody else has the old name by now.
    world.edit(&[("load", Some("nightly")), ("nightly", None)]).await;
    world.closed_runs("nightly", 3).await;
    assert_eq!((world.found_of("load").await, world.found_of("nightly").await), (2_500, 3));
    assert_eq!(world.follow_all().await, 2);
    assert_eq!((world.count_of("nightly").await, world.count_of("load").await), (3, LONG + 1));
    assert_eq!((world.found_of("load").await, world.found_of("nightly").await), (2_500, 3));
}

async fn names_that_are_given_up_and_taken_again_at_once_mix_no_histories(world: World) {
    world.edit(&[("a", None), ("x", None)]).await;
    world.closed_runs("a", LONG).await;
    world.closed_runs("x", 3).await;
    world.edit(&[("b", Some("a")), ("x", None)]).await;
    world.edit(&[("c", Some("b")), ("x", None)]).await;
    assert_eq!(world.found_of("c").await, 2_500, "through two names");
    // The first name is taken by another schedule, while its history has not left it.
    world.edit(&[("c", Some("b")), ("a", Some("x"))]).await;
    world.follow_all().await;
    let counts = [world.count_of("a").await, world.count_of("b").await, world.count_of("c").await];
    assert_eq!((counts, world.count_of("x").await), ([3, 0, LONG], 0));
    // There and back.
    world.edit(&[("d", Some("c")), ("a", Some("x"))]).await;
    world.edit(&[("c", Some("d")), ("a", Some("x"))]).await;
    world.follow_all().await;
    assert_eq!((world.count_of("c").await, world.count_of("d").await), (LONG, 0));
}

async fn a_history_is_found_whole_at_every_moment_of_its_way(world: World) {
    world.closed_runs("nightly", LONG).await;
    let mut before = "nightly".to_owned();
    for turn in 0..6 {
        let after = format!("nightly-{turn}");
        world.edit(&[(&after, Some(&before))]).await;
        let finding = async {
            loop {
                assert_eq!(world.found_of(&after).await, 2_500, "a backfill would run again what it does not find");
            }
        };
        tokio::select! {
            _ = world.follow_all() => {}
            () = finding => {}
        }
        before = after;
    }
}

async fn whoever_asks_for_a_schedule_gets_what_has_still_to_follow(world: World) {
    world.closed_runs("nightly", LONG).await;
    world.record(NewRun { schedule: name("inbox"), ..cron_run(minute(-1), Overlap::Allow) }).await;
    let (before, _) = world.listed_of("nightly", 700).await;
    let read = async |schedule: &str| {
        let stats = world.ledger.stats(StatsBy::Schedule, None).await.unwrap();
        let stats: Vec<_> = stats.into_iter().map(|stats| (stats.group, stats.occurrences)).collect();
        let last = world.ledger.last_runs_of(&[name(schedule), name("inbox")]).await.unwrap();
        let mut last: Vec<_> = last.into_iter().map(|(name, run)| (name, run.nominal_time)).collect();
        last.sort_unstable();
        let oldest = world.ledger.run(&before.last().unwrap().to_string()).await.unwrap().unwrap().schedule;
        (world.listed_of(schedule, 700).await, stats, last, oldest)
    };
    let expected = |schedule: &str| {
        let stats = vec![("inbox".to_owned(), 1), (schedule.to_owned(), LONG)];
        let last = vec![("inbox".to_owned(), Some(minute(-1))), (schedule.to_owned(), Some(minute(LONG - 1)))];
        ((before.clone(), vec![schedule.to_owned()]), stats, last, schedule.to_owned())
    };
    assert_eq!(read("nightly").await, expected("nightly"));
    // Renamed, renamed again while most of it has not followed, and followed.
    world.edit(&[("load", Some("nightly")), ("inbox", None)]).await;
    assert_eq!(read("load").await, expected("load"));
    world.edit(&[("nightly-load", Some("load")), ("inbox", None)]).await;
    for _ in 0..3 {
        assert_eq!(read("nightly-load").await, expected("nightly-load"));
        assert!(world.listed_of("nightly", 700).await.0.is_empty() && world.listed_of("load", 700).await.0.is_empty());
        world.ledger.move_renamed(&world.leadership).await.unwrap();
    }
    world.follow_all().await;
    assert_eq!(read("nightly-load").await, expected("nightly-load"));
    assert_eq!(world.count_of("nightly-load").await, LONG);
}

async fn a_row_that_is_taken_up_again_has_the_name_of_now(world: World) {
    world.closed_runs("nightly", LONG).await;
    let seen = world.record(cron_run(minute(-9), Overlap::Allow)).await;
    world.see(&seen.dag_run_id, AirflowState::Success).await;
    world.edit(&[("load", Some("nightly"))]).await;
    let oldest = world.oldest_of("load").await;
    assert_eq!(
        (world.written_of(oldest.id).await, world.written_of(seen.id).await),
        ("nightly".into(), "nightly".into())
    );
    // By an operator, while somebody else has the old name.
    world.edit(&[("load", None), ("nightly", None)]).await;
    let mut events = world.ledger.subscribe();
    let reopen = Reopen { expected: RunState::Rejected, fresh: None };
    assert!(world.ledger.retry(&world.leadership, oldest.id, reopen, World::audit()).await.unwrap());
    assert_eq!(world.written_of(oldest.id).await, "load");
    assert_eq!(events.recv().await.unwrap().schedule, "load");
    let pending = world.ledger.pending(Some("load"), RunId(0), 10).await.unwrap();
    assert_eq!(pending.iter().map(|ticket| ticket.id).collect::<Vec<_>>(), [oldest.id]);
    // By whoever cleared the DAG run.
    world.see(&seen.dag_run_id, AirflowState::Queued).await;
    assert_eq!((world.written_of(seen.id).await, world.state(seen.id).await), ("load".into(), RunState::Queued));
    assert_eq!(events.recv().await.unwrap().schedule, "load");
    let next = world.record(NewRun { schedule: name("load"), ..cron_run(minute(LONG), Overlap::Skip) }).await;
    assert_eq!(next.state, RunState::Skipped, "what was taken up again is open");
}

async fn a_stranger_with_the_old_name_shares_no_row(world: World) {
    // Skipped ones in one row, older than more than one piece of others.
    let skipped = |schedule: &str, n: i64, reason: &str| NewRun {
        schedule: name(schedule),
        dag_run_id: format!("flowkeeper__{schedule}__{n}__{reason}"),
        state: RunState::Skipped,
        reason: Some(reason.to_owned()),
        ..cron_run(minute(n), Overlap::Allow)
    };
    for n in -3..0 {
        world.record(skipped("nightly", n, "paused")).await;
    }
    world.closed_runs("nightly", LONG).await;
    let newest =
        NewRun { due_at: minute(LONG - 1_000) - SignedDuration::from_secs(30), ..skipped("nightly", -4, "paused") };
    let newest = world.record(newest).await;
    world.edit(&[("load", Some("nightly"))]).await;
    assert_eq!(world.written_of(newest.id).await, "nightly", "the newest of those that follow");
    let row = world.ledger.nominal_rows(&name("load"), minute(-3), minute(-1)).await.unwrap().remove(0);
    let was = row.covers.unwrap();
    assert_eq!((world.written_of(row.id).await, was.count), ("nightly".into(), 3));
    world.edit(&[("load", None), ("nightly", None)]).await;
    assert!(world.ledger.last_runs_of(&[name("nightly")]).await.unwrap().is_empty(), "it has none yet");
    // A part of the row is taken out.
    let runs =
        vec![NewRun { schedule: name("load"), dag_run_id: "again".into(), ..cron_run(minute(-2), Overlap::Allow) }];
    let alone = |at| Covered { from: at, to: at, count: 1 };
    let (before, after) = (Some(("alike".to_owned(), alone(minute(-3)))), Some(alone(minute(-1))));
    let split = BackfillStep::Split { row: row.id, was, before, after, runs };
    let applied = world.ledger.backfill(&world.leadership, vec![split], World::audit()).await.unwrap();
    assert_eq!((applied, world.ledger.run("alike").await.unwrap().unwrap().schedule), (vec![true], "load".into()));
    // What the stranger skips is its own, also where its newest row would be one of the other's.
    let mine = world.record(skipped("nightly", LONG, "paused")).await;
    assert!(mine.id != newest.id && world.written_of(mine.id).await == "nightly");
    world.follow_all().await;
    assert_eq!((world.count_of("nightly").await, world.count_of("load").await), (1, LONG + 4));
}

async fn a_name_that_comes_back_before_its_history_has_left_it_has_it_at_once(world: World) {
    world.closed_runs("nightly", LONG).await;
    world.edit(&[("load", Some("nightly"))]).await;
    world.ledger.move_renamed(&world.leadership).await.unwrap();
    world.edit(&[("nightly", None)]).await;
    assert_eq!(world.listed_of("nightly", 5_000).await.0.len(), 2_500);
    assert_eq!(world.count_of("nightly").await, LONG - 1_000, "nothing was moved there and back in one go");
    world.follow_all().await;
    assert_eq!((world.count_of("nightly").await, world.count_of("load").await), (LONG, 0));
}

async fn a_time_that_came_due_before_a_rename_does_not_come_due_again(world: World) {
    let due = |schedule: &str, n| NewRun {
        schedule: name(schedule),
        dag_run_id: format!("flowkeeper__{schedule}__{}", minute(n)),
        ..cron_run(minute(n), Overlap::Allow)
    };
    let cursor = |schedule: &str, n| CursorMove::Cron { schedule: name(schedule), to: minute(n) };
    let record = async |run: NewRun, cursor| {
        let recording = Recording { runs: vec![run], cursors: vec![cursor], ..Recording::default() };
        world.ledger.record(&world.leadership, recording).await.unwrap().remove(0)
    };
    let first = record(due("nightly", 5), cursor("nightly", 5)).await;
    world.edit(&[("load", Some("nightly"))]).await;
    // The clock is set back, or the next leader's is behind.
    let again = record(due("load", 5), cursor("load", 5)).await;
    assert_eq!((again.id, again.fresh), (first.id, false));
    assert!(record(due("load", 6), cursor("load", 6)).await.fresh);
    assert_eq!(world.count_of("load").await, 2);
}

async fn decisions_without_a_row_go_along(world: World) {
    let decide = async |schedule: &str, times: usize| {
        let decision = Decision { schedule: name(schedule), at: start(), kind: "when_false", detail: "no".into() };
        let recording = Recording { decisions: vec![decision; times], ..Recording::default() };
        world.ledger.record(&world.leadership, recording).await.unwrap();
    };
    decide("nightly", 3).await;
    decide("inbox", 2).await;
    // One takes the name of the other, which ends.
    world.edit(&[("inbox", Some("nightly"))]).await;
    let counts = async |schedule| world.ledger.decision_counts(&name(schedule)).await.unwrap();
    assert_eq!(counts("inbox").await, [("when_false".to_owned(), 5)]);
    assert_eq!(world.ledger.decisions(&name("inbox"), 10).await.unwrap().len(), 5);
    assert!(
        counts("nightly").await.is_empty() && world.ledger.decisions(&name("nightly"), 10).await.unwrap().is_empty()
    );
}

async fn a_name_that_nobody_saw_is_no_loss(world: World) {
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let to = minute(7);
    let recording =
        Recording { cursors: vec![CursorMove::Cron { schedule: name("nightly"), to }], ..Recording::default() };
    world.ledger.record(&world.leadership, recording).await.unwrap();
    let at = async |schedule: &str| {
        let states = world.ledger.schedule_states().await.unwrap();
        let found = (states.len(), states[&name(schedule)].cron_cursor);
        (found, world.ledger.run(&run.id.to_string()).await.unwrap().unwrap().schedule)
    };
    // It was `load` in a set that no leader had.
    world.edit(&[("nightly-load", Some("load nightly"))]).await;
    assert_eq!(at("nightly-load").await, ((1, to), "nightly-load".into()));
    // The same once more, and then that set.
    world.edit(&[("nightly-load", Some("load nightly"))]).await;
    world.edit(&[("load", Some("nightly"))]).await;
    assert_eq!(at("load").await, ((1, to), "load".into()));
    // At the next leader, which has the newest, and at one that has the oldest.
    let adopt = async |schedule: &str, was: &[&str]| {
        let was = was.iter().map(|was| name(was)).collect();
        let schedule = TriggerIdentity { name: name(schedule), was, key: "cron 1".into() };
        world.ledger.adopt_schedules(&world.leadership, &[schedule], world.clock.now()).await.unwrap();
    };
    adopt("nightly-load", &["load", "nightly"]).await;
    assert_eq!(at("nightly-load").await, ((1, to), "nightly-load".into()));
    adopt("nightly", &[]).await;
    assert_eq!(at("nightly").await, ((1, to), "nightly".into()));
}

async fn what_an_operator_asks_for_under_the_name_of_before_is_refused(world: World) {
    let by_hand = |schedule: &str| NewRun {
        schedule: name(schedule),
        dag_run_id: format!("flowkeeper__{schedule}__m1"),
        trigger: TriggerKind::Manual,
        nominal_time: None,
        ..cron_run(minute(0), Overlap::Allow)
    };
    let ask = async |schedule: &str| {
        let triggered = world.ledger.trigger(&world.leadership, by_hand(schedule), World::audit()).await;
        let steps = vec![BackfillStep::Record(NewRun {
            schedule: name(schedule),
            dag_run_id: format!("flowkeeper__{schedule}__{}", minute(1)),
            ..cron_run(minute(1), Overlap::Allow)
        })];
        let backfilled = world.ledger.backfill(&world.leadership, steps, World::audit()).await;
        (triggered.map(|run| run.fresh), backfilled)
    };
    // Whoever asked has read the set before, and the edit is committed first.
    world.edit(&[("load", Some("nightly"))]).await;
    let (triggered, backfilled) = ask("nightly").await;
    assert!(matches!(triggered, Err(StoreError::NotFound { .. })), "{triggered:?}");
    assert!(matches!(backfilled, Err(StoreError::NotFound { .. })), "{backfilled:?}");
    assert_eq!((world.count_of("nightly").await, world.count_of("load").await), (0, 0));
    let (triggered, backfilled) = ask("load").await;
    assert_eq!((triggered.unwrap(), backfilled.unwrap()), (true, vec![true]));
    // Removed, and so is what is left of it.
    world.edit(&[("inbox", None)]).await;
    assert!(matches!(ask("load").await.0, Err(StoreError::NotFound { .. })));
}
