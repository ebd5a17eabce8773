//! What the ledger remembers of ensembles, and what an adoption changes in it.

use super::*;
use crate::domain::lineage::{Adopt, Adoption, Break, Confirmed, CursorsAfter, Memory, adoption};
use crate::domain::whereabouts::Whereabouts;

on_both_stores! {
    World:
    where_an_ensemble_is_is_noted_and_changes_with_its_adoption,
    the_mark_grows_and_what_the_znode_holds_is_noted_after_it,
    adopting_a_rebuilt_ensemble_ends_its_cursors_and_what_is_owed_in_it,
    what_was_decided_for_a_trigger_ends_when_the_trigger_is_edited,
    a_restored_ledger_goes_on_from_its_cursors_and_with_what_it_owes,
    a_row_that_came_back_from_airflow_owes_its_child_once_the_trigger_meets_it,
}

fn cursor(schedule: &str, path: &str) -> CursorMove {
    let seen = Some(ZnodeVersion { czxid: 5, mzxid: 7, version: 1 });
    CursorMove::Znode { schedule: name(schedule), path: path.to_owned(), seen, data: None }
}

async fn adopt(world: &World, ensemble: Option<&str>, expected: &Memory, adoption: &Adoption) -> bool {
    let schedules = [name("inbox")];
    let done = world.ledger.adopt(&world.leadership, ensemble, expected, adoption, &schedules, World::audit());
    done.await.unwrap()
}

async fn the_mark_grows_and_what_the_znode_holds_is_noted_after_it(world: World) {
    let (ledger, leadership) = (&world.ledger, &world.leadership);
    assert_eq!(ledger.lineage(None).await.unwrap(), Memory::default());
    assert_eq!(ledger.raise_mark(leadership, None).await.unwrap(), Memory { mark: 1, ..Memory::default() });
    let held = Confirmed { generation: 0, mark: 1, czxid: 16 };
    ledger.confirm_mark(leadership, None, held).await.unwrap();
    let raised = ledger.raise_mark(leadership, None).await.unwrap();
    assert_eq!(raised, Memory { mark: 2, confirmed: Some(held), ..Memory::default() });
    assert_eq!(ledger.lineage(None).await.unwrap(), raised);
    assert_eq!(ledger.lineage(Some("solr")).await.unwrap(), Memory::default(), "each ensemble has its own");

    // A leader that does not know yet that it was replaced.
    let newer = ledger.take_lead("another").await.unwrap();
    assert!(matches!(ledger.raise_mark(leadership, None).await, Err(StoreError::Fenced { .. })));
    assert!(matches!(ledger.confirm_mark(leadership, None, held).await, Err(StoreError::Fenced { .. })));
    assert_eq!(ledger.raise_mark(&newer, None).await.unwrap().mark, 3);
}

async fn where_an_ensemble_is_is_noted_and_changes_with_its_adoption(world: World) {
    let (ledger, leadership) = (&world.ledger, &world.leadership);
    let (solr, first, second) = (Some("solr"), Whereabouts::of("a:1,b:1/x"), Whereabouts::of("b:1,c:1/x"));
    for now in [&first, &second] {
        ledger.note_whereabouts(leadership, solr, now).await.unwrap();
        let known = Memory { whereabouts: Some(now.clone()), ..Memory::default() };
        assert_eq!(ledger.lineage(solr).await.unwrap(), known);
    }
    assert_eq!(ledger.lineage(None).await.unwrap(), Memory::default());
    let memory = ledger.lineage(solr).await.unwrap();
    let moved = Break::Moved { before: second, now: Whereabouts::of("d:1") };
    assert!(adopt(&world, solr, &memory, &adoption(&memory, &moved, Adopt::Ignore)).await);
    let adopted = ledger.lineage(solr).await.unwrap();
    assert_eq!((adopted.generation, adopted.whereabouts), (1, Some(Whereabouts::of("d:1"))));
    let newer = ledger.take_lead("another").await.unwrap();
    let refused = ledger.note_whereabouts(leadership, solr, &first).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })));
    ledger.note_whereabouts(&newer, solr, &first).await.unwrap();
}

async fn adopting_a_rebuilt_ensemble_ends_its_cursors_and_what_is_owed_in_it(world: World) {
    let (ledger, leadership) = (&world.ledger, &world.leadership);
    let initialized = CursorMove::ZnodeInitialized { schedule: name("inbox"), zxid: 9 };
    let cursors = vec![cursor("inbox", "/inbox/a"), cursor("other", "/other"), initialized];
    ledger.record(leadership, Recording { cursors, ..Recording::default() }).await.unwrap();
    let work = |ensemble| ConsumeWork { ensemble, path: "/inbox/a".into(), czxid: 5, when: Consume::Accepted };
    let owing =
        |minutes, ensemble| NewRun { consume: Some(work(ensemble)), ..cron_run(minute(minutes), Overlap::Allow) };
    let here = world.record(owing(0, None)).await;
    let elsewhere = world.record(owing(1, Some("solr".to_owned()))).await;
    for run in [&here, &elsewhere] {
        world.see(&run.dag_run_id, AirflowState::Queued).await;
    }

    let before = ledger.raise_mark(leadership, None).await.unwrap();
    let rebuilt = adoption(&before, &Break::Missing, Adopt::Fire);
    let outdated = Memory { mark: 77, ..before.clone() };
    assert!(!adopt(&world, None, &outdated, &rebuilt).await, "somebody else has decided");
    assert!(adopt(&world, None, &before, &rebuilt).await);
    assert!(!adopt(&world, None, &before, &rebuilt).await, "once");

    assert_eq!(ledger.lineage(None).await.unwrap(), rebuilt.memory);
    assert_eq!(rebuilt.memory.generation, 1);
    let state = ledger.schedule_state(&name("inbox")).await.unwrap().unwrap();
    assert_eq!((state.znode_initialized, state.first_look), (None, Some(Adopt::Fire)));
    assert!(ledger.znode_cursors(&name("inbox")).await.unwrap().is_empty());
    assert_eq!(ledger.znode_cursors(&name("other")).await.unwrap().len(), 1, "it watches another ensemble");
    let first = RunId(0);
    assert!(ledger.consume_due(None, first).await.unwrap().is_empty(), "the path may be another's by now");
    assert_eq!(ledger.consume_due(Some("solr"), first).await.unwrap().len(), 1);
    let why = ledger.decisions(&name("inbox"), 10).await.unwrap();
    assert!(why[0].kind == "adopted" && why[0].detail.contains("come due (generation 1)"), "{why:?}");
    let audit = ledger.audit(10, None).await.unwrap();
    assert_eq!(audit.items.iter().filter(|entry| entry.action == "test").count(), 1);

    // The first look is done: from now on nothing is decided any more.
    let initialized = CursorMove::ZnodeInitialized { schedule: name("inbox"), zxid: 3 };
    ledger.record(leadership, Recording { cursors: vec![initialized], ..Recording::default() }).await.unwrap();
    let state = ledger.schedule_state(&name("inbox")).await.unwrap().unwrap();
    assert_eq!((state.znode_initialized, state.first_look), (Some(3), None));
}

async fn what_was_decided_for_a_trigger_ends_when_the_trigger_is_edited(world: World) {
    let before = Memory::default();
    assert!(adopt(&world, None, &before, &adoption(&before, &Break::Missing, Adopt::Ignore)).await);
    world.adopt(&[("nightly", "cron 1"), ("inbox", "znode 2")]).await;
    let state = world.ledger.schedule_state(&name("inbox")).await.unwrap().unwrap();
    assert_eq!(state.first_look, None);
}

async fn a_restored_ledger_goes_on_from_its_cursors_and_with_what_it_owes(world: World) {
    let (ledger, leadership) = (&world.ledger, &world.leadership);
    let recording = Recording { cursors: vec![cursor("inbox", "/inbox/a")], ..Recording::default() };
    ledger.record(leadership, recording).await.unwrap();
    let before = ledger.raise_mark(leadership, None).await.unwrap();
    let held = Confirmed { generation: 0, mark: 80, czxid: 16 };
    let memory = Memory { mark: 80, confirmed: Some(held), ..before.clone() };
    let kept = Adoption { memory: memory.clone(), cursors: CursorsAfter::Kept, zxids_end: false };
    assert!(adopt(&world, None, &before, &kept).await);
    assert_eq!(ledger.lineage(None).await.unwrap(), memory);
    assert_eq!(ledger.znode_cursors(&name("inbox")).await.unwrap().len(), 1);
    assert_eq!(ledger.schedule_state(&name("inbox")).await.unwrap().unwrap().first_look, None);
}

/// A row that came back from Airflow's list does not know of its child; the trigger that finds the child
/// again does.
async fn a_row_that_came_back_from_airflow_owes_its_child_once_the_trigger_meets_it(world: World) {
    let run = cron_run(minute(0), Overlap::Allow);
    world.see(&run.dag_run_id, AirflowState::Queued).await;
    assert!(world.ledger.consume_due(None, RunId(0)).await.unwrap().is_empty());
    let work = ConsumeWork { ensemble: None, path: "/inbox/a".into(), czxid: 5, when: Consume::Accepted };
    for _ in 0..2 {
        let met = world.record(NewRun { consume: Some(work.clone()), ..run.clone() }).await;
        assert_eq!((met.fresh, met.state), (false, RunState::Queued));
    }
    let due = world.ledger.consume_due(None, RunId(0)).await.unwrap();
    assert_eq!(due.iter().map(|due| &due.work).collect::<Vec<_>>(), [&work]);
    // What was settled stays settled.
    world.ledger.consumes_settled(&world.leadership, &[(due[0].run, "deleted")]).await.unwrap();
    world.record(NewRun { consume: Some(work), ..run }).await;
    assert!(world.ledger.consume_due(None, RunId(0)).await.unwrap().is_empty());
}
