//! A database that fails: nothing that was acknowledged is lost, nothing is written twice.

use super::cutting::{CUTS, Cut, Cutter};
use super::postgres::Stop;
use super::*;

impl World {
    /// On PostgreSQL, behind a network that cuts each `every`th commit.
    async fn behind_a_cutter(every: usize) -> (Self, Cutter) {
        let cutter = Cutter::start(PostgresServer::shared().await.connect(), every).await;
        let place = Place::on(Store::Postgres).await;
        let url = cutter.instead(&place.url);
        (Self::at(place, &url).await, cutter)
    }
}

/// The first of this many recordings is made at `minute(from)`, each with a decision beside its run.
fn recordings(from: i64, count: i64) -> impl Iterator<Item = Recording> {
    (from..from + count).map(|n| Recording {
        runs: vec![cron_run(minute(n), Overlap::Allow)],
        decisions: vec![Decision {
            schedule: name("nightly"),
            at: minute(n),
            kind: "not_when",
            detail: format!("at {n}"),
        }],
        ..Recording::default()
    })
}

/// Checks that the ledger has exactly these runs, once each, and that as many were handed out.
async fn is_exactly_once(world: &World, count: i64, tickets: &mut mpsc::UnboundedReceiver<Ticket>) {
    let page = world.ledger.runs(&RunFilter::default(), 100_000, None).await.unwrap();
    assert_eq!(i64::try_from(page.items.len()).unwrap(), count, "a row for each");
    // Counted in the same transactions: written twice, they would be more.
    assert_eq!(world.ledger.decision_counts(&name("nightly")).await.unwrap(), [("not_when".to_owned(), count)]);
    let mut handed_out = std::collections::BTreeSet::new();
    while let Ok(ticket) = tickets.try_recv() {
        assert!(handed_out.insert(ticket.dag_run_id.clone()), "{} is handed out twice", ticket.dag_run_id);
    }
    assert_eq!(i64::try_from(handed_out.len()).unwrap(), count, "each is handed out");
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_found_out() {
    for cut in CUTS {
        let (world, cutter) = World::behind_a_cutter(1).await;
        let (sender, mut tickets) = mpsc::unbounded_channel();
        world.ledger.deliver_to(sender);
        let mut health = world.ledger.health();
        // Only what is written after this is cut, and only once.
        let before = cutter.commits();
        cutter.cut(Some(cut));
        let write = tokio::spawn({
            let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
            async move { ledger.record(&leadership, recordings(0, 1).next().unwrap()).await }
        });
        while cutter.commits() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cutter.cut(None);
        let recorded = tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap();
        assert!(recorded[0].fresh, "{cut:?}: it is this write that recorded it");
        is_exactly_once(&world, 1, &mut tickets).await;
        // Only the request that never came had to be written again.
        assert_eq!(cutter.commits() - before, if cut == Cut::Request { 2 } else { 1 }, "{cut:?}");

        // A run that is cleared in Airflow reopens once.
        let id = &recorded[0].dag_run_id;
        world.see(id, AirflowState::Success).await;
        let before = cutter.commits();
        cutter.cut(Some(cut));
        let seeing = world.see(id, AirflowState::Running);
        let uncut = async {
            while cutter.commits() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cutter.cut(None);
        };
        tokio::join!(seeing, uncut);
        assert_eq!(world.ledger.run(id).await.unwrap().unwrap().reopened, 1, "{cut:?}");
        assert_eq!(*health.borrow_and_update(), StoreHealth::Writable);
    }
}

#[tokio::test]
async fn an_operators_action_is_done_once_though_the_answer_to_its_commit_is_lost() {
    for cut in CUTS {
        let (world, cutter) = World::behind_a_cutter(1).await;
        let (sender, mut tickets) = mpsc::unbounded_channel();
        world.ledger.deliver_to(sender);
        let changes = world.ledger.pauses();
        let by_hand = NewRun { trigger: TriggerKind::Manual, ..cron_run(minute(0), Overlap::Allow) };
        cutter.cut(Some(cut));
        let triggered = world.ledger.trigger(&world.leadership, by_hand, World::audit()).await;
        let pause = Pause { by: "ada".into(), reason: None, until: None, at: world.clock.now() };
        let paused = world.ledger.pause(&world.leadership, &name("nightly"), pause, World::audit()).await;
        cutter.cut(None);
        let shown = world.ledger.schedule_state(&name("nightly")).await.unwrap().unwrap();
        let audited = world.ledger.audit(10, None).await.unwrap().items.len();
        if cut == Cut::Request {
            // It did not happen, and is told to whoever asked.
            assert!(triggered.unwrap_err().is_transient() && paused.unwrap_err().is_transient());
            assert_eq!((tickets.try_recv().is_ok(), shown.pause.is_some(), audited), (false, false, 0));
        } else {
            assert!(triggered.unwrap().fresh, "{cut:?}");
            paused.unwrap();
            assert_eq!((tickets.try_recv().is_ok(), shown.pause.is_some(), audited), (true, true, 2), "{cut:?}");
            assert!(changes.has_changed().unwrap());
        }
        assert!(tickets.try_recv().is_err(), "{cut:?}");
    }
}

#[tokio::test]
async fn a_burst_is_recorded_once_each_while_every_third_commit_is_cut() {
    const BURST: i64 = 300;
    let (world, cutter) = World::behind_a_cutter(3).await;
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let before = cutter.commits();
    let mut writes = tokio::task::JoinSet::new();
    for (number, recording) in recordings(0, BURST).enumerate() {
        cutter.cut(Some(CUTS[number % CUTS.len()]));
        let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
        writes.spawn(async move { ledger.record(&leadership, recording).await });
        if number.is_multiple_of(15) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for recorded in writes.join_all().await {
        assert!(recorded.unwrap()[0].fresh);
    }
    cutter.cut(None);
    assert!(cutter.commits() - before >= 6, "the burst took several transactions");
    is_exactly_once(&world, BURST, &mut tickets).await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_server_that_is_killed_and_restarted_under_load() {
    const WRITERS: i64 = 8;
    const EACH: i64 = 60;
    let server = PostgresServer::start().await;
    let url = server.create_database().await;
    let place = Place { url: url.clone(), _directory: None };
    let world = World::at(place, &url).await;
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let mut writes = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
        writes.spawn(async move {
            for recording in recordings(writer * EACH, EACH) {
                let recorded = ledger.record(&leadership, recording).await.unwrap();
                assert!(recorded[0].fresh, "{} was found, not made", recorded[0].dag_run_id);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    for how in [Stop::Kill, Stop::Immediate, Stop::Fast, Stop::Kill] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.restart(how).await;
    }
    writes.join_all().await;
    assert_eq!(*world.ledger.health().borrow(), StoreHealth::Writable);
    is_exactly_once(&world, WRITERS * EACH, &mut tickets).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_told_and_waited_for_and_reads_go_on_afterwards() {
    let server = PostgresServer::start().await;
    let url = server.create_database().await;
    let world = World::at(Place { url: url.clone(), _directory: None }, &url).await;
    let mut health = world.ledger.health();
    server.stop(Stop::Fast);
    let recording = recordings(0, 1).next().unwrap();
    let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
    let write = tokio::spawn(async move { ledger.record(&leadership, recording).await });
    let stuck = health.wait_for(|health| matches!(health, StoreHealth::Stuck { reason } if reason.contains("refused")));
    tokio::time::timeout(PATIENCE, stuck).await.unwrap().unwrap();
    let error = world.ledger.ping().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("refused"), "{error}");
    server.start_again().await;
    let recorded = tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap();
    assert!(recorded[0].fresh);
    // The connections that were idle have ended; nobody notices.
    server.restart(Stop::Fast).await;
    for _ in 0..6 {
        assert_eq!(world.ledger.runs(&RunFilter::default(), 10, None).await.unwrap().items.len(), 1);
    }
    assert_eq!(*health.borrow_and_update(), StoreHealth::Writable);
}

#[tokio::test]
async fn a_server_that_answers_nothing_any_more_is_given_up_and_asked_anew() {
    let (world, cutter) = World::behind_a_cutter(usize::MAX).await;
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let mut health = world.ledger.health();
    cutter.freeze(true);
    let recording = recordings(0, 1).next().unwrap();
    let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
    let write = tokio::spawn(async move { ledger.record(&leadership, recording).await });
    let stuck = health.wait_for(|health| matches!(health, StoreHealth::Stuck { .. }));
    tokio::time::timeout(PATIENCE, stuck).await.unwrap().unwrap();
    assert!(!write.is_finished(), "nothing is acknowledged");
    cutter.freeze(false);
    assert!(tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap()[0].fresh);
    is_exactly_once(&world, 1, &mut tickets).await;
}

#[tokio::test]
async fn a_write_that_finds_the_file_locked_is_kept_until_it_succeeds() {
    let world = World::on(Store::Sqlite).await;
    let mut lock = world.place.connect().await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
    let mut health = world.ledger.health();
    let recording = Recording { runs: vec![cron_run(minute(0), Overlap::Allow)], ..Recording::default() };
    let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
    let write = tokio::spawn(async move { ledger.record(&leadership, recording).await });
    let stuck = health.wait_for(|health| matches!(health, StoreHealth::Stuck { .. }));
    tokio::time::timeout(PATIENCE, stuck).await.unwrap().unwrap();
    assert!(!write.is_finished(), "nothing is acknowledged");
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    let recorded = tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap();
    assert!(recorded[0].fresh);
    assert_eq!(*health.borrow_and_update(), StoreHealth::Writable);
}

#[tokio::test]
async fn a_full_database_loses_nothing_that_was_acknowledged_and_goes_on() {
    let world = World::on(Store::Sqlite).await;
    // SQLite answers SQLITE_FULL at its page limit exactly as it does on a full disk.
    let pragma = async |pragma: String| {
        let mut idle = world.ledger.0.turns.idle().await;
        let connection = idle.as_mut().expect("the writer's connection is kept");
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"))).fetch_one(connection).await.unwrap();
        sql::Columns::of(&row).integer().unwrap()
    };
    let pages = pragma("page_count".to_owned()).await;
    pragma(format!("max_page_count = {pages}")).await;
    let mut health = world.ledger.health();
    let big = NewRun { conf: json(&format!("\"{}\"", "x".repeat(200_000))), ..cron_run(minute(0), Overlap::Allow) };
    let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
    let write =
        tokio::spawn(
            async move { ledger.record(&leadership, Recording { runs: vec![big], ..Recording::default() }).await },
        );
    let stuck = health.wait_for(|health| matches!(health, StoreHealth::Stuck { reason } if reason.contains("full")));
    tokio::time::timeout(PATIENCE, stuck).await.unwrap().unwrap();
    pragma("max_page_count = 1000000".to_owned()).await;
    let recorded = tokio::time::timeout(PATIENCE, write).await.unwrap().unwrap().unwrap();
    assert!(recorded[0].fresh);
}
