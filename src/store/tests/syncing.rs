//! Which entries of Airflows are ours.

use super::*;
use crate::domain::sync::entry::EntryKind::{Pools, Variables};
use crate::domain::sync::plan::{Hold, Owned};

on_both_stores! {
    World:
    what_is_ours_is_kept_by_airflow_kind_and_key,
    only_the_leader_takes_entries_for_ours,
    the_last_comparison_of_each_sync_is_kept,
}

fn owned(sync: &str, hold: Hold, digest: Option<&str>) -> Owned {
    Owned { sync: sync.into(), hold, digest: digest.map(str::to_owned) }
}

fn put(key: &str, owned: Owned) -> OwnedChanges {
    OwnedChanges { put: vec![(key.to_owned(), owned)], ..OwnedChanges::default() }
}

async fn what_is_ours_is_kept_by_airflow_kind_and_key(world: World) {
    let (ledger, leadership) = (&world.ledger, &world.leadership);
    let (intent, done) = (owned("app", Hold::Creating, None), owned("app", Hold::Owned, Some("ab:cd")));
    ledger.note_entries(leadership, "main", Variables, &put("k", intent.clone())).await.unwrap();
    ledger.note_entries(leadership, "main", Pools, &put("k", intent.clone())).await.unwrap();
    ledger.note_entries(leadership, "test", Variables, &put("k", intent.clone())).await.unwrap();
    ledger.note_entries(leadership, "main", Variables, &put("k", done.clone())).await.unwrap();
    let own = ledger.owned_entries("main", Variables).await.unwrap();
    assert_eq!(own.into_iter().collect::<Vec<_>>(), [("k".to_owned(), done)]);
    assert_eq!(ledger.owned_entries("main", Pools).await.unwrap()["k"], intent);

    // As many as one sync may write at once.
    let many = (0..1000).map(|number| (format!("k{number}"), intent.clone())).collect();
    let changes = OwnedChanges { put: many, forget: vec!["k".to_owned()] };
    ledger.note_entries(leadership, "main", Variables, &changes).await.unwrap();
    let forget = (0..999).map(|number| format!("k{number}")).collect();
    let changes = OwnedChanges { forget, ..OwnedChanges::default() };
    ledger.note_entries(leadership, "main", Variables, &changes).await.unwrap();
    let left = ledger.owned_entries("main", Variables).await.unwrap();
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["k999"]);
    assert_eq!(ledger.owned_entries("test", Variables).await.unwrap().len(), 1, "another Airflow's are not touched");
}

async fn only_the_leader_takes_entries_for_ours(world: World) {
    let (ledger, old) = (&world.ledger, &world.leadership);
    ledger.take_lead("another").await.unwrap();
    let changes = put("k", owned("app", Hold::Creating, None));
    let refused = ledger.note_entries(old, "main", Variables, &changes).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })));
    assert!(ledger.owned_entries("main", Variables).await.unwrap().is_empty());
}

async fn the_last_comparison_of_each_sync_is_kept(world: World) {
    let (ledger, leadership) = (&world.ledger, &world.leadership);
    for (sync, report) in [("b", "{}"), ("a", "{}"), ("b", r#"{"counts":{}}"#)] {
        ledger.note_sync_pass(leadership, sync, report).await.unwrap();
    }
    let passes = ledger.sync_passes().await.unwrap();
    let told: Vec<_> = passes.iter().map(|pass| (pass.sync.as_str(), pass.report.as_str())).collect();
    assert_eq!(told, [("a", "{}"), ("b", r#"{"counts":{}}"#)]);
}
