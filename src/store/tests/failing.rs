//! A database that fails: nothing that was acknowledged is lost, nothing is written twice.

use super::*;

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
    tokio::time::timeout(Duration::from_secs(20), stuck).await.unwrap().unwrap();
    assert!(!write.is_finished(), "nothing is acknowledged");
    sqlx::query("ROLLBACK").execute(&mut lock).await.unwrap();
    let recorded = tokio::time::timeout(Duration::from_secs(20), write).await.unwrap().unwrap().unwrap();
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
    tokio::time::timeout(Duration::from_secs(20), stuck).await.unwrap().unwrap();
    pragma("max_page_count = 1000000".to_owned()).await;
    let recorded = tokio::time::timeout(Duration::from_secs(20), write).await.unwrap().unwrap().unwrap();
    assert!(recorded[0].fresh);
}
