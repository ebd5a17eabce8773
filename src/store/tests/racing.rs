//! Two leaders on one store: who was replaced writes nothing any more, wherever it stood.

use super::*;

on_both_stores! {
    World:
    leaders_that_replace_each_other_record_each_time_once_and_open_one_run_at_most,
}

async fn leaders_that_replace_each_other_record_each_time_once_and_open_one_run_at_most(world: World) {
    const TIMES: i64 = 120;
    let mut members = tokio::task::JoinSet::new();
    for member in 0..3 {
        let (url, clock) = (world.place.url.clone(), world.clock.clone());
        members.spawn(async move {
            let ledger = Ledger::open(&url, clock).await.unwrap();
            let mut acknowledged = Vec::new();
            let mut terms = 0;
            let mut next = 0;
            while next < TIMES {
                let leadership = ledger.take_lead(&format!("member {member}")).await.unwrap();
                terms += 1;
                // A term ends when another member has taken the lead.
                while next < TIMES {
                    let (schedule, to) = (name("nightly"), minute(next));
                    let recording = Recording {
                        runs: vec![cron_run(to, Overlap::Skip)],
                        cursors: vec![CursorMove::Cron { schedule, to }],
                        ..Recording::default()
                    };
                    match ledger.record(&leadership, recording).await {
                        Ok(recorded) => acknowledged.push((leadership.epoch(), minute(next), recorded[0].clone())),
                        Err(StoreError::Fenced { held, current }) => {
                            assert!(held < current && leadership.lost().is_cancelled());
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    next += 1;
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            (terms, acknowledged)
        });
    }
    let done = members.join_all().await;
    assert!(done.iter().map(|(terms, _)| terms).sum::<i32>() > 3, "the lead changed hands");
    let runs = world.ledger.runs(&RunFilter::default(), 1000, None).await.unwrap().items;
    assert_eq!(runs.iter().map(|run| run.count).sum::<i64>(), TIMES, "each time is covered once: {runs:#?}");
    assert_eq!(runs.iter().filter(|run| run.state.is_open()).count(), 1, "overlap = skip");
    let fresh: Vec<_> = done.iter().flat_map(|(_, acknowledged)| acknowledged).filter(|(.., run)| run.fresh).collect();
    let times: std::collections::BTreeSet<_> = fresh.iter().map(|(_, time, _)| *time).collect();
    assert_eq!((fresh.len(), times.len()), (120, 120), "each time is new to one of them");
}

#[tokio::test]
async fn a_leader_that_was_stopped_in_a_transaction_does_not_keep_its_successor_waiting() {
    let world = World::on(Store::Postgres).await;
    // What SIGSTOP does: the transaction stays open, and its connection with it.
    let stopped = world.ledger.begin(&world.leadership).await.unwrap();
    let successor = Ledger::open(&world.place.url, world.clock.clone()).await.unwrap();
    // A statement is not waited for without end, so that this would fail.
    let newer = successor.take_lead("successor").await.unwrap();
    let error = stopped.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { held: 1, current: 2 }), "{error}");
    let error = world.ledger.begin(&world.leadership).await.err().unwrap();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    let recording = Recording { runs: vec![cron_run(minute(0), Overlap::Allow)], ..Recording::default() };
    successor.record(&newer, recording).await.unwrap();
}

#[tokio::test]
async fn who_leads_is_answered_beside_long_reads() {
    let world = World::on(Store::Postgres).await;
    for _ in 0..8 {
        let ledger = world.ledger.clone();
        tokio::spawn(async move { ledger.fetch("SELECT CAST(1 AS BIGINT) FROM pg_sleep(20)", []).await });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = tokio::time::timeout(Duration::from_secs(15), world.ledger.lead());
    assert_eq!(asked.await.expect("it does not wait for them").unwrap().epoch, 1);
}
