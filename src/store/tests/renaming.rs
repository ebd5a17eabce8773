//! The history of schedules that are renamed: it follows in pieces, and none of it to a stranger.

use std::collections::HashMap;

use super::*;

on_both_stores! {
    World:
    an_ordinary_history_goes_along_with_the_edit,
    a_long_history_follows_in_pieces_and_what_is_open_at_once,
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
            was: was.map(name),
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
