//! Opening: what is refused, several members at once, and members of neighbouring versions.

use super::postgres::{GUARDED, PASSWORD, Stop};
use super::*;

on_both_stores! {
    Place:
    a_database_of_another_program_is_refused,
    a_store_that_nobody_has_served_from_is_absent_to_readers,
    members_that_open_an_empty_store_at_once_agree_on_it,
    a_shadow_records_and_submits_nothing,
}

mod neighbours {
    use super::*;

    on_both_stores! {
        World:
        a_member_runs_on_and_starts_again_after_a_newer_one_has_added_to_the_store,
        a_member_keeps_out_of_a_store_that_a_newer_one_has_changed_for_good,
        readers_say_when_the_store_lacks_what_they_read,
    }

    /// What the program after this one might do.
    async fn migrate_further(world: &World) {
        for sql in [
            "ALTER TABLE runs ADD COLUMN made_up TEXT",
            "ALTER TABLE ledger ADD COLUMN made_up BIGINT NOT NULL DEFAULT 7",
            "CREATE TABLE made_up (id BIGINT)",
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT 9000, 'made up', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
        ] {
            world.place.execute(sql).await;
        }
    }

    async fn a_member_runs_on_and_starts_again_after_a_newer_one_has_added_to_the_store(world: World) {
        let before = world.record(cron_run(minute(0), Overlap::Allow)).await;
        world.see(&before.dag_run_id, AirflowState::Running).await;
        migrate_further(&world).await;
        let after = world.record(cron_run(minute(1), Overlap::Allow)).await;
        world.see(&before.dag_run_id, AirflowState::Success).await;
        assert_eq!(world.ledger.runs(&RunFilter::default(), 10, None).await.unwrap().items.len(), 2);

        let again = Ledger::open(&world.place.url, world.clock.clone()).await.unwrap();
        assert_eq!(again.store_id(), world.ledger.store_id());
        let leadership = again.take_lead("again").await.unwrap();
        again.record_attempt(&leadership, accepted(after.id, 1)).await.unwrap();
        let reader = Ledger::open_read_only(&world.place.url, world.clock.clone()).await.unwrap();
        assert_eq!(reader.run(&after.dag_run_id).await.unwrap().unwrap().state, RunState::Queued);
    }

    async fn a_member_keeps_out_of_a_store_that_a_newer_one_has_changed_for_good(world: World) {
        migrate_further(&world).await;
        world.place.execute("UPDATE ledger SET needs_migration = 9000").await;
        let member = Ledger::open(&world.place.url, Clock::system()).await.unwrap_err();
        assert!(matches!(member, StoreError::Newer { migration: 9000, .. }), "{member}");
        let reader = Ledger::open_read_only(&world.place.url, Clock::system()).await.unwrap_err();
        assert!(matches!(reader, StoreError::Newer { migration: 9000, .. }), "{reader}");
        assert!(member.hint().is_some());
    }

    async fn readers_say_when_the_store_lacks_what_they_read(world: World) {
        world.place.execute("DELETE FROM _sqlx_migrations WHERE version = 3").await;
        let error = Ledger::open_read_only(&world.place.url, Clock::system()).await.unwrap_err();
        assert!(matches!(error, StoreError::Older { migration: 3, .. }), "{error}");
    }
}

async fn a_database_of_another_program_is_refused(place: Place) {
    place.execute("CREATE TABLE dag_run (id INTEGER)").await;
    for opened in
        [Ledger::open(&place.url, Clock::system()).await, Ledger::open_read_only(&place.url, Clock::system()).await]
    {
        let error = opened.unwrap_err();
        assert!(matches!(&error, StoreError::Foreign { table, .. } if table == "dag_run"), "{error}");
        assert!(error.hint().is_some());
    }
    place.execute("CREATE TABLE ledger (singleton INTEGER, application TEXT)").await;
    place.execute("INSERT INTO ledger VALUES (1, 'bookkeeping')").await;
    let error = Ledger::open(&place.url, Clock::system()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Foreign { table, .. } if table == "ledger"), "{error}");
}

async fn a_store_that_nobody_has_served_from_is_absent_to_readers(place: Place) {
    let error = Ledger::open_read_only(&place.url, Clock::system()).await.unwrap_err();
    assert!(matches!(error, StoreError::Absent { .. }), "{error}");
}

async fn members_that_open_an_empty_store_at_once_agree_on_it(place: Place) {
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let url = place.url.clone();
        opening.spawn(async move { Ledger::open(&url, Clock::system()).await });
    }
    let opened = opening.join_all().await;
    let ids: std::collections::BTreeSet<_> =
        opened.iter().map(|ledger| ledger.as_ref().unwrap().store_id().to_owned()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

async fn a_shadow_records_and_submits_nothing(place: Place) {
    let ledger = Ledger::open_shadow(&place.url, Clock::manual(start())).await.unwrap();
    let leadership = ledger.take_lead("shadow").await.unwrap();
    let (sender, mut tickets) = mpsc::unbounded_channel();
    ledger.deliver_to(sender);
    let recording = Recording { runs: vec![cron_run(minute(0), Overlap::Allow)], ..Recording::default() };
    let recorded = ledger.record(&leadership, recording).await.unwrap().remove(0);
    assert_eq!(recorded.state, RunState::Skipped);
    assert!(tickets.try_recv().is_err());
    let member = Ledger::open(&place.url, Clock::system()).await.unwrap_err();
    assert!(matches!(member, StoreError::Shadow { is_shadow: true, .. }), "{member}");
}

#[tokio::test]
async fn urls_that_name_no_store_are_refused() {
    for bad in ["mysql://x", "sqlite://", "sqlite://a?b", "postgres://[", "flowkeeper.db"] {
        assert!(matches!(Ledger::open(bad, Clock::system()).await, Err(StoreError::Unsupported { .. })), "{bad}");
    }
}

#[tokio::test]
async fn a_server_that_lets_nobody_in_is_told_apart_from_one_that_is_down() {
    let server = PostgresServer::start().await;
    let url = server.create_database().await;
    let database = url.rsplit('/').next().unwrap();
    let at = format!("127.0.0.1:{}/{database}", server.port());
    let (right, wrong) = (PASSWORD.replace('%', "%25").replace('@', "%40").replace('/', "%2F"), "hunter2");
    let cases = [
        (format!("postgres://{GUARDED}:{wrong}@{at}"), "password authentication failed", "password"),
        (format!("postgres://{GUARDED}@{at}"), "password authentication failed", "password"),
        (format!("postgres://nobody-{wrong}@{at}"), "does not exist", "password"),
        (server.url("nowhere"), "database \"nowhere\" does not exist", "createdb"),
        // Since version 15 only the owner of a database may create tables in it.
        (format!("postgres://{GUARDED}:{right}@{at}"), "permission denied for schema public", "owner"),
        (format!("{url}?sslmode=require"), "TLS", "sslmode"),
    ];
    for (url, reason, hint) in cases {
        let error = Ledger::open(&url, Clock::system()).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{error}: {:?}", error.hint());
        assert!(!error.to_string().contains(&right) && !format!("{error:?}").contains(&right), "{error:?}");
    }
    server.stop(Stop::Fast);
    let error = Ledger::open(&url, Clock::system()).await.unwrap_err();
    assert!(error.to_string().contains("refused") && error.hint().unwrap().contains("running"), "{error}");
}

#[tokio::test]
async fn the_owner_of_a_database_needs_no_other_right() {
    let server = PostgresServer::shared().await;
    let url = server.create_database().await;
    let database = url.rsplit('/').next().unwrap();
    server.execute("postgres", &format!("ALTER DATABASE {database} OWNER TO {GUARDED}")).await;
    let password = PASSWORD.replace('%', "%25").replace('@', "%40").replace('/', "%2F");
    let url = format!("postgres://{GUARDED}:{password}@127.0.0.1:{}/{database}", server.port());
    let ledger = Ledger::open(&url, Clock::system()).await.unwrap();
    ledger.take_lead("test").await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_keep_every_text_is_refused() {
    let server = PostgresServer::shared().await;
    server.execute("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").await;
    let error = Ledger::open(&server.url("latin"), Clock::system()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Encoding { encoding, .. } if encoding == "LATIN1"), "{error}");
}
