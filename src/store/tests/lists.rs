//! Lists of much history: what a page has, and along which index SQLite reads it. (PostgreSQL decides by its
//! statistics, of which a new database has none.)

use super::*;
use crate::store::history::{page_of_dag_runs, page_of_runs};

on_both_stores! {
    World:
    the_newest_run_is_told_of_the_schedules_that_are_asked_for,
    dag_runs_are_listed_by_when_they_were_first_seen,
}

async fn the_newest_run_is_told_of_the_schedules_that_are_asked_for(world: World) {
    let names: Vec<String> = (0..300).map(|n| format!("schedule-{n}")).collect();
    let schedules: Vec<_> = names.iter().map(|name| (name.as_str(), "cron 1")).collect();
    world.adopt(&schedules).await;
    let run = |schedule: &str, at: i64| NewRun {
        schedule: name(schedule),
        dag_run_id: format!("flowkeeper__{schedule}__{}", minute(at)),
        ..cron_run(minute(at), Overlap::Allow)
    };
    // The newest is the one that came due last, not the one that was recorded last.
    for at in [1, 3, 2] {
        let runs = names.iter().take(299).map(|name| run(name, at)).collect();
        world.ledger.record(&world.leadership, Recording { runs, ..Recording::default() }).await.unwrap();
    }
    let asked: Vec<_> = names.iter().skip(20).map(|schedule| name(schedule)).collect();
    let told = world.ledger.last_runs_of(&asked).await.unwrap();
    assert_eq!(told.len(), 279, "not of the first twenty, nor of the one that never ran");
    for schedule in &names[20..299] {
        assert_eq!(told[schedule].due_at, minute(3), "{schedule}");
    }
    assert!(world.ledger.last_runs_of(&[]).await.unwrap().is_empty());
}

async fn dag_runs_are_listed_by_when_they_were_first_seen(world: World) {
    for n in 0..7_u32 {
        let seen = Sighting {
            dag_id: if n % 2 == 0 { "even".into() } else { "odd".into() },
            ..sighting(&format!("by-hand-{n}"), AirflowState::Success)
        };
        world.ledger.record_sightings(&world.leadership, "main", vec![seen], None).await.unwrap();
        // The clock of the next leader is behind.
        world.clock.advance(if n == 3 { SignedDuration::from_mins(-90) } else { SignedDuration::from_mins(1) });
    }
    let list = async |filter: &DagRunFilter, limit| {
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = world.ledger.dag_runs(filter, limit, cursor.as_deref()).await.unwrap();
            seen.extend(page.items.into_iter().map(|dag_run| dag_run.dag_run_id.replace("by-hand-", "")));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return seen.join(" ");
            }
        }
    };
    let all = DagRunFilter::default();
    assert_eq!(list(&all, 100).await, "3 2 1 0 6 5 4");
    assert_eq!(list(&all, 2).await, "3 2 1 0 6 5 4", "page by page");
    assert_eq!(list(&DagRunFilter { dag_id: Some("even".into()), ..all.clone() }, 1).await, "2 0 6 4");
    assert_eq!(
        list(&DagRunFilter { airflow: Some("main".into()), since: Some(minute(1)), ..all.clone() }, 2).await,
        "3 2 1"
    );
    assert_eq!(list(&DagRunFilter { until: Some(minute(1)), ..all.clone() }, 3).await, "0 6 5 4");
    assert_eq!(list(&DagRunFilter { airflow: Some("other".into()), ..all.clone() }, 3).await, "");
    let error = world.ledger.dag_runs(&all, 10, Some("7")).await.unwrap_err();
    assert!(matches!(error, StoreError::BadCursor { .. }), "{error}");
}

/// How SQLite reads what a statement asks for, in its own words.
async fn plan(world: &World, (sql, values): (String, Vec<crate::store::sql::Value>)) -> String {
    let rows = world.ledger.fetch(format!("EXPLAIN QUERY PLAN {sql}"), values).await.unwrap();
    let words = rows.iter().map(|row| sqlx::Row::get::<String, _>(row, "detail"));
    words.collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn a_page_is_read_along_the_index_of_what_is_asked_for() {
    let world = World::on(Store::Sqlite).await;
    let (all, time) = (RunFilter::default, Some(minute(0)));
    let schedule = || RunFilter { schedule: Some("nightly".into()), ..all() };
    let dag = || RunFilter { dag_id: Some("nightly_load".into()), ..all() };
    let owner = || RunFilter { owner: Some("platform".into()), ..all() };
    let (good, ended) = (vec![RunState::Success], vec![RunState::Success, RunState::Failed]);
    let runs = [
        ("all", all(), "runs_by_time"),
        ("of a time", RunFilter { since: time, until: time, ..all() }, "runs_by_time"),
        ("of a schedule", schedule(), "runs_by_schedule"),
        ("of a schedule, that succeeded", RunFilter { states: good.clone(), ..schedule() }, "runs_by_schedule"),
        ("of a schedule, of a time", RunFilter { since: time, ..schedule() }, "runs_by_schedule"),
        ("of a DAG, that ended", RunFilter { states: ended.clone(), ..dag() }, "runs_by_dag"),
        ("of an owner, that succeeded", RunFilter { states: good.clone(), ..owner() }, "runs_by_owner"),
        ("that succeeded", RunFilter { states: good, ..all() }, "runs_by_state"),
        ("that failed, of a time", RunFilter { states: vec![RunState::Failed], since: time, ..all() }, "runs_by_state"),
    ];
    for (case, filter, index) in runs {
        for cursor in [None, Some("1764000000000000-7")] {
            let names = match &filter.schedule {
                Some(schedule) => Some(world.ledger.names_of_runs(schedule).await.unwrap()),
                None => None,
            };
            let plan = plan(&world, page_of_runs(&filter, names, 100, cursor).unwrap()).await;
            let expected = format!(" runs USING INDEX {index}");
            assert!(plan.contains(&expected) && !plan.contains("ORDER BY"), "{case}: {plan}");
        }
    }
    // Of a schedule whose history is under several names, each part.
    world
        .place
        .execute("INSERT INTO renames (number, old_name, new_name, last_run) VALUES (1, 'night', 'nightly', 7)")
        .await;
    let names = world.ledger.names_of_runs("nightly").await.unwrap();
    let parts = plan(&world, page_of_runs(&schedule(), Some(names), 100, None).unwrap()).await;
    assert_eq!(parts.matches(" runs USING INDEX runs_by_schedule").count(), 2, "{parts}");
    let all = DagRunFilter::default;
    let dag_runs = [
        ("all", all(), "dag_runs_by_time"),
        ("of a time", DagRunFilter { since: time, until: time, ..all() }, "dag_runs_by_time"),
        ("of an Airflow", DagRunFilter { airflow: Some("main".into()), ..all() }, "dag_runs_by_airflow_and_time"),
        ("of a DAG", DagRunFilter { dag_id: Some("load".into()), ..all() }, "dag_runs_by_dag_and_time"),
        ("that failed", DagRunFilter { states: vec![RunState::Failed], ..all() }, "dag_runs_by_state_and_time"),
    ];
    for (case, filter, index) in dag_runs {
        for cursor in [None, Some("1764000000000000-7")] {
            let plan = plan(&world, page_of_dag_runs(&filter, 100, cursor).unwrap()).await;
            let expected = format!(" dag_runs USING INDEX {index}");
            assert!(plan.contains(&expected) && !plan.contains("ORDER BY"), "{case}: {plan}");
        }
    }
}
