//! The diff as a table of cases, and against random histories of a model ZooKeeper.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ALL: ChangeKinds = ChangeKinds { created: true, changed: true, deleted: true };

fn on(created: bool, changed: bool, deleted: bool) -> ChangeKinds {
    ChangeKinds { created, changed, deleted }
}

/// A znode in this version, on either side of a comparison.
#[expect(clippy::unnecessary_wraps, reason = "it stands beside `None`, a znode that does not exist")]
fn at(czxid: i64, mzxid: i64, version: i32) -> Option<ZnodeVersion> {
    Some(ZnodeVersion { czxid, mzxid, version })
}

#[test]
fn a_look_names_the_change_and_counts_what_was_merged() {
    use ChangeKind::{Changed, Created, Deleted};
    let cases = [
        // Nothing there, nothing new.
        (None, None, ALL, None),
        (at(5, 5, 0), at(5, 5, 0), ALL, None),
        // Created; set before anybody looked.
        (None, at(5, 5, 0), ALL, Some((Created, 0, false))),
        (None, at(5, 8, 3), ALL, Some((Created, 3, false))),
        // … seen by a trigger that does not fire on creation: three sets, two of them merged.
        (None, at(5, 8, 3), on(false, true, false), Some((Changed, 2, false))),
        (None, at(5, 5, 0), on(false, true, false), None),
        // Set once; five times.
        (at(5, 5, 0), at(5, 9, 1), ALL, Some((Changed, 0, false))),
        (at(5, 5, 0), at(5, 9, 5), ALL, Some((Changed, 4, false))),
        (at(5, 5, 0), at(5, 9, 5), on(true, false, true), None),
        // The counter wraps.
        (at(5, 6, i32::MAX), at(5, 9, i32::MIN), ALL, Some((Changed, 0, false))),
        (at(5, 6, i32::MAX - 1), at(5, 9, i32::MIN + 1), ALL, Some((Changed, 2, false))),
        (at(5, 6, 7), at(5, 9, 7), ALL, Some((Changed, (1 << 32) - 1, false))),
        (None, at(5, 9, -1), ALL, Some((Created, (1 << 32) - 1, false))),
        // Deleted.
        (at(5, 9, 4), None, ALL, Some((Deleted, 0, false))),
        (at(5, 9, 4), None, on(true, true, false), None),
        // Deleted and created again: the version starts anew, the czxid tells.
        (at(5, 9, 4), at(12, 12, 0), ALL, Some((Created, 0, true))),
        (at(5, 9, 4), at(12, 14, 2), ALL, Some((Created, 2, true))),
        (at(5, 9, 4), at(12, 14, 4), on(false, true, false), Some((Changed, 3, true))),
        (at(5, 9, 4), at(12, 12, 0), on(false, true, false), None),
        (at(5, 9, 4), at(12, 14, 2), on(false, false, true), Some((Deleted, 0, true))),
    ];
    for (handled, now, on, expected) in cases {
        let change = compare(handled, now).expect("one history").and_then(|difference| difference.change(on));
        let found = change.map(|change| (change.kind, change.coalesced, change.recreated));
        assert_eq!(found, expected, "{handled:?} → {now:?} on {on:?}");
        if let Some(change) = change {
            let version = if change.kind == Deleted { handled } else { now };
            assert_eq!(Some(change.version), version);
        }
    }
}

#[test]
fn another_history_is_no_change() {
    let cases = [
        // Restored to an earlier state.
        (at(5, 9, 4), at(5, 7, 2), 9, 7),
        // Rebuilt: the same path under a small zxid.
        (at(50, 90, 4), at(2, 2, 0), 90, 2),
        // A new incarnation cannot be older than the last set of the one before.
        (at(50, 90, 4), at(70, 95, 1), 90, 70),
        (at(50, 90, 4), at(90, 95, 1), 90, 90),
    ];
    for (handled, now, expected_handled, expected_now) in cases {
        let error = compare(handled, now).expect_err("two histories");
        assert_eq!(error, TimeWentBack { handled: expected_handled, now: expected_now });
    }
    let handled = ZnodeVersion { czxid: 5, mzxid: 9, version: 4 };
    assert!(check_deletion(handled, 10).is_ok());
    assert!(check_deletion(handled, 9).is_err(), "the deletion is a transaction of its own");
    assert!(check_deletion(handled, 0).is_err());
}

/// ZooKeeper, as far as stats go.
#[derive(Default)]
struct Model {
    zxid: i64,
    nodes: BTreeMap<u8, ZnodeVersion>,
    root_pzxid: i64,
}

/// What really happened to one znode since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Truth {
    creates: i64,
    sets: i64,
    /// Sets of the incarnation that is there now.
    sets_since_create: i64,
    deletes: i64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create(u8),
    Set(u8),
    Delete(u8),
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..4u8;
    prop_oneof![
        2 => node.clone().prop_map(Step::Create),
        5 => node.clone().prop_map(Step::Set),
        2 => node.prop_map(Step::Delete),
        2 => Just(Step::Look),
    ]
}

impl Model {
    /// Applies a step as a server would; refused ones have no effect.
    fn apply(&mut self, step: Step, truth: &mut BTreeMap<u8, Truth>) {
        let zxid = self.zxid + 1;
        match step {
            Step::Create(node) if !self.nodes.contains_key(&node) => {
                self.nodes.insert(node, ZnodeVersion { czxid: zxid, mzxid: zxid, version: 0 });
                self.root_pzxid = zxid;
                let truth = truth.entry(node).or_default();
                truth.creates += 1;
                truth.sets_since_create = 0;
            }
            Step::Set(node) => {
                let Some(version) = self.nodes.get_mut(&node) else { return };
                version.mzxid = zxid;
                version.version = version.version.wrapping_add(1);
                let truth = truth.entry(node).or_default();
                truth.sets += 1;
                truth.sets_since_create += 1;
            }
            Step::Delete(node) if self.nodes.remove(&node).is_some() => {
                self.root_pzxid = zxid;
                truth.entry(node).or_default().deletes += 1;
            }
            _ => return,
        }
        self.zxid = zxid;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Nothing is lost, nothing is doubled, and what is merged is counted.
    #[test]
    fn no_change_of_a_random_history_is_lost_or_doubled(
        steps in prop::collection::vec(step(), 1..120),
        on in any::<(bool, bool, bool)>().prop_map(|(created, changed, deleted)| on(created, changed, deleted)),
    ) {
        let mut model = Model::default();
        let mut handled: BTreeMap<u8, ZnodeVersion> = BTreeMap::new();
        let mut truth: BTreeMap<u8, Truth> = BTreeMap::new();
        let mut identities = std::collections::BTreeSet::new();
        for step in steps.into_iter().chain([Step::Look]) {
            if !matches!(step, Step::Look) {
                model.apply(step, &mut truth);
                continue;
            }
            for node in 0..4u8 {
                let truth = truth.remove(&node).unwrap_or_default();
                let before = handled.get(&node).copied();
                let now = model.nodes.get(&node).copied();
                if let (Some(before), None) = (before, now) {
                    prop_assert!(check_deletion(before, model.root_pzxid).is_ok());
                }
                let difference = compare(before, now).expect("a model has one history");
                // Something is found exactly when the state at the two looks differs: all that can
                // hide between them is a znode that came and went again.
                let hidden = before.is_none() && now.is_none();
                prop_assert_eq!(difference.is_some(), truth != Truth::default() && !hidden);
                let change = difference.and_then(|difference| difference.change(on));
                match now {
                    Some(version) => handled.insert(node, version),
                    None => handled.remove(&node),
                };
                let survived = before.is_some() && truth.deletes == 0;
                let can_be_told = difference.is_some();
                let created = can_be_told && now.is_some() && truth.creates > 0;
                let sets = match () {
                    () if !can_be_told || now.is_none() => 0,
                    () if survived => truth.sets,
                    () => truth.sets_since_create,
                };
                let deleted = can_be_told && before.is_some() && truth.deletes > 0;
                let Some(change) = change else {
                    prop_assert!(!(created && on.created));
                    prop_assert!(!(sets > 0 && on.changed));
                    prop_assert!(!(deleted && on.deleted));
                    continue;
                };
                prop_assert_eq!(change.recreated, deleted && created);
                match change.kind {
                    ChangeKind::Created => prop_assert!(created && change.coalesced == sets),
                    ChangeKind::Changed => prop_assert!(sets > 0 && change.coalesced == sets - 1),
                    ChangeKind::Deleted => prop_assert!(deleted && change.coalesced == 0),
                }
                // Each change has an identity of its own: the zxid that run ids are made of.
                let zxid = if change.kind == ChangeKind::Deleted { change.version.czxid } else { change.version.mzxid };
                prop_assert!(identities.insert((node, change.kind == ChangeKind::Deleted, zxid)));
            }
        }
    }

    /// A rebuilt ensemble never looks like a change, however its zxids run.
    #[test]
    fn a_smaller_zxid_is_always_noticed(
        czxid in 1..1000i64, sets in 0..1000i64, new_czxid in 1..2000i64, new_sets in 0..1000i64,
    ) {
        let handled = ZnodeVersion { czxid, mzxid: czxid + sets, version: 1 };
        let now = ZnodeVersion { czxid: new_czxid, mzxid: new_czxid + new_sets, version: 2 };
        let possible = (now.czxid == handled.czxid && now.mzxid >= handled.mzxid) || now.czxid > handled.mzxid;
        prop_assert_eq!(compare(Some(handled), Some(now)).is_ok(), possible);
    }
}
