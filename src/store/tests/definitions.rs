//! The sets of definitions that were in force.

use super::*;

on_both_stores! {
    World:
    a_set_is_kept_when_another_was_in_force,
    the_same_set_from_another_source_is_kept_as_coming_from_there,
    a_version_is_found_by_its_number_and_by_its_beginning,
    old_and_large_versions_are_given_up_and_the_newest_stay,
    a_set_of_an_earlier_leader_is_refused,
}

fn set(version: &str, documents: &str) -> NewDefinitions {
    NewDefinitions {
        version: version.into(),
        source: "zookeeper".into(),
        zookeeper_version: Some(7),
        author: Some("alice@laptop".into()),
        message: None,
        pushed_at: start(),
        schedules: 3,
        documents: documents.into(),
    }
}

async fn a_set_is_kept_when_another_was_in_force(world: World) {
    assert!(world.ledger.latest_definitions(None).await.unwrap().is_none());
    let keep =
        async |version: &str| world.ledger.keep_definitions(&world.leadership, &set(version, version)).await.unwrap();
    // Going back to an earlier set is a version of its own.
    let kept = [keep("a1").await, keep("a1").await, keep("b2").await, keep("a1").await];
    assert_eq!(kept, [Some(1), None, Some(2), Some(3)]);
    let page = world.ledger.definitions(2, None).await.unwrap();
    let shown: Vec<_> = page.items.iter().map(|entry| (entry.number, entry.version.as_str())).collect();
    assert_eq!(shown, [(3, "a1"), (2, "b2")]);
    let rest = world.ledger.definitions(2, page.next_cursor.as_deref()).await.unwrap();
    assert_eq!((rest.items.len(), rest.items[0].number, rest.next_cursor), (1, 1, None));
    let entry = &page.items[0];
    assert_eq!((entry.in_force_at, entry.pushed_at, entry.size_bytes), (start(), start(), 2));
    assert_eq!((entry.zookeeper_version, entry.author.as_deref(), entry.schedules), (Some(7), Some("alice@laptop"), 3));
    let (latest, text) = world.ledger.latest_definitions(Some("zookeeper")).await.unwrap().unwrap();
    assert_eq!((latest.number, text.as_str()), (3, "a1"));
    assert!(world.ledger.latest_definitions(Some("file")).await.unwrap().is_none());
}

async fn the_same_set_from_another_source_is_kept_as_coming_from_there(world: World) {
    let keep = async |source: &str| {
        let set = NewDefinitions { source: source.into(), ..set("a1", "text") };
        world.ledger.keep_definitions(&world.leadership, &set).await.unwrap()
    };
    assert_eq!([keep("file").await, keep("file").await], [Some(1), None]);
    assert!(world.ledger.latest_definitions(Some("zookeeper")).await.unwrap().is_none());
    assert_eq!([keep("zookeeper").await, keep("zookeeper").await], [Some(2), None]);
    let (pushed, text) = world.ledger.latest_definitions(Some("zookeeper")).await.unwrap().unwrap();
    assert_eq!((pushed.number, pushed.version.as_str(), text.as_str()), (2, "a1", "text"));
    let (file, _) = world.ledger.latest_definitions(Some("file")).await.unwrap().unwrap();
    assert_eq!((file.number, file.version.as_str()), (1, "a1"));
}

async fn a_version_is_found_by_its_number_and_by_its_beginning(world: World) {
    for version in ["abcdef000001", "abcdef000002", "1234abcd0003"] {
        world.ledger.keep_definitions(&world.leadership, &set(version, version)).await.unwrap();
    }
    for (which, expected) in [
        ("1", Some(1)),
        ("3", Some(3)),
        ("4", None),
        ("abcdef000001", Some(1)),
        ("abcdef", Some(2)),
        ("ABCDEF", Some(2)),
        ("1234", Some(3)),
        ("12", None),
        ("%", None),
        ("abc_ef", None),
        ("", None),
        ("-1", None),
    ] {
        let found = world.ledger.definitions_of(which).await.unwrap();
        assert_eq!(found.map(|(entry, _)| entry.number), expected, "{which}");
    }
}

async fn old_and_large_versions_are_given_up_and_the_newest_stay(world: World) {
    for number in 0..103 {
        world.ledger.keep_definitions(&world.leadership, &set(&format!("{number:04x}"), "x")).await.unwrap();
    }
    let numbers = async || -> Vec<i64> {
        let page = world.ledger.definitions(1_000, None).await.unwrap();
        page.items.iter().map(|entry| entry.number).collect()
    };
    assert_eq!(numbers().await, (4..=103).rev().collect::<Vec<_>>());
    // Ten stay although they are too large together.
    let large = "x".repeat(7 * 1024 * 1024);
    for number in 0..12 {
        world.ledger.keep_definitions(&world.leadership, &set(&format!("{number:05x}"), &large)).await.unwrap();
    }
    assert_eq!(numbers().await, (106..=115).rev().collect::<Vec<_>>());
}

async fn a_set_of_an_earlier_leader_is_refused(world: World) {
    world.ledger.take_lead("another").await.unwrap();
    let refused = world.ledger.keep_definitions(&world.leadership, &set("a", "a")).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    assert!(world.ledger.latest_definitions(None).await.unwrap().is_none());
}
