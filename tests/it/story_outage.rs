//! The story of an hour without Airflow's API: its scheduler goes on, nobody can ask it, and afterwards
//! every end is found.
//!
//! The hour passes on a clock that the test moves, for the ledger, the monitor and the fake alike.

use std::collections::HashMap;

use flowkeeper::clock::Clock;
use flowkeeper::config::model::DagGlobs;
use flowkeeper::domain::occurrence::Occurrence;
use flowkeeper::domain::run::RunState;
use flowkeeper::domain::schedule::{Overlap, ScheduleName, TriggerKind};
use flowkeeper::monitor;
use flowkeeper::store::Ledger;
use flowkeeper::store::model::{DagRunFilter, NewRun, Recording, RunFilter};
use globset::{Glob, GlobSet};
use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::support::fake_airflow::{FakeAirflow, State, World};
use crate::support::real_airflow::client;
use crate::support::world::{name, wait_for};

/// How many runs are open when Airflow goes away.
const RUNS: usize = 240;

fn run(schedule: &ScheduleName, number: usize, now: Timestamp) -> NewRun {
    NewRun {
        schedule: schedule.clone(),
        owner: None,
        airflow: "main".into(),
        dag_id: "load".into(),
        dag_run_id: Occurrence::Manual { key: number.to_string() }.dag_run_id(schedule),
        trigger: TriggerKind::Manual,
        nominal_time: None,
        due_at: now,
        covers: None,
        state: RunState::Pending,
        reason: None,
        coalesced: 0,
        conf: RawValue::from_string("{}".into()).expect("JSON"),
        logical_date: None,
        data_interval: None,
        overlap: Overlap::Allow,
        consume: None,
        lock: None,
    }
}

/// What the ledger has: each run's state, how often it was reopened, and when it ended.
async fn rows(ledger: &Ledger) -> HashMap<String, (RunState, i64, Option<Timestamp>)> {
    let page = ledger.runs(&RunFilter::default(), 1000, None).await.expect("read runs");
    page.items.into_iter().map(|run| (run.dag_run_id, (run.state, run.reopened, run.ended_at))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_without_airflow_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual("2026-11-22T02:00:00Z".parse().expect("a time"));
    let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
    let ledger = Ledger::open(&url, clock.clone()).await.expect("open the ledger");
    let leadership = ledger.take_lead("test").await.expect("the lead is free");
    let schedule = name("nightly");
    let runs: Vec<_> = (0..RUNS).map(|number| run(&schedule, number, clock.now())).collect();
    let ids: Vec<_> = runs.iter().map(|run| run.dag_run_id.clone()).collect();
    ledger.record(&leadership, Recording { runs, ..Recording::default() }).await.expect("record runs");

    let mut world = World::default().with_dags(["load", "others"]);
    world.clock = clock.clone();
    for id in &ids {
        let made = world.create("load", id, None).expect("a free id");
        made.note = Some(format!("flowkeeper store {}", ledger.store_id()));
        world.set_state("load", id, State::Running);
    }
    let fake = FakeAirflow::start(world).await;
    let reconcile = watch::Sender::new(0);
    let set = GlobSet::builder().add(Glob::new("*").expect("a glob")).build().expect("globs");
    let monitoring = tokio::spawn(monitor::run(monitor::Parts {
        airflow: client(&fake.url(), "admin", "admin"),
        ledger: ledger.clone(),
        leadership: leadership.clone(),
        keep: DagGlobs { patterns: vec!["*".into()], set },
        clock: clock.clone(),
        reconcile: reconcile.subscribe(),
    }));
    let all_run = || async {
        let rows = rows(&ledger).await;
        rows.values().all(|(state, ..)| *state == RunState::Running).then_some(())
    };
    wait_for(all_run, || "the runs are not seen".into()).await;

    let address = fake.address().to_string();
    let mut world = fake.stop().await;
    let mut expected = HashMap::new();
    for (number, id) in ids.iter().enumerate() {
        clock.advance(SignedDuration::from_secs(15));
        let end = |world: &mut World, state| {
            world.set_state("load", id, state);
            clock.now()
        };
        expected.insert(
            id.clone(),
            match number % 6 {
                0 => (RunState::Failed, 0, Some(end(&mut world, State::Failed))),
                1 => {
                    world.delete_run("load", id);
                    (RunState::Removed, 0, None)
                }
                2 => (RunState::Running, 0, None),
                3 => {
                    // Ends, is cleared and ends again, unseen: to the ledger it has ended once.
                    end(&mut world, State::Failed);
                    world.set_state("load", id, State::Queued);
                    clock.advance(SignedDuration::from_secs(1));
                    world.set_state("load", id, State::Running);
                    (RunState::Success, 0, Some(end(&mut world, State::Success)))
                }
                _ => (RunState::Success, 0, Some(end(&mut world, State::Success))),
            },
        );
    }
    world.create("others", "scheduled__meanwhile", None).expect("a free id");
    world.set_state("others", "scheduled__meanwhile", State::Success);
    // The last of it was long ago when Airflow answers again.
    clock.advance(SignedDuration::from_mins(10));
    let _fake = FakeAirflow::start_on(world, &address).await;

    let all_found = || async {
        reconcile.send_modify(|asked| *asked += 1);
        (rows(&ledger).await == expected).then_some(())
    };
    wait_for(all_found, || "not every end is found".into()).await;
    let others = DagRunFilter { dag_id: Some("others".into()), ..DagRunFilter::default() };
    let others = ledger.dag_runs(&others, 10, None).await.expect("read DAG runs").items;
    assert_eq!((others.len(), others[0].state), (1, RunState::Success), "others' runs are found as well");

    leadership.give_up();
    monitoring.await.expect("no panic").expect("no error");
}
