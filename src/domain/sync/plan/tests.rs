//! The step for each state of a key in ZooKeeper, in the ledger and in Airflow.

use super::*;
use crate::domain::sync::shown::Fields;

mod histories;

const STORE: &str = "5f1d";

/// Nothing rests.
static TAKEN: BTreeMap<String, (String, Option<String>)> = BTreeMap::new();

/// Nothing is missing for long.
static NOTHING: BTreeSet<String> = BTreeSet::new();

fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn wish(text: &str) -> Wish {
    Wish::Entry { value: EntryValue::Variable(text.to_owned()), digest: format!("digest of {text}") }
}

fn row(sync: &str, hold: Hold, text: Option<&str>) -> Owned {
    Owned { sync: sync.into(), hold, digest: text.map(|text| format!("digest of {text}")) }
}

fn entry(text: &str, description: Option<&str>) -> Shown {
    Shown {
        key: "k".to_owned(),
        description: description.map(str::to_owned),
        fields: Fields::Variable(Some(text.to_owned())),
    }
}

fn marked(text: &str, sync: &str) -> Shown {
    entry(text, Some(&Mark { sync, store_id: STORE }.describe(None)))
}

/// The rules of the sync `app`, which may do nothing that has to be asked for.
fn rules(configured: &BTreeSet<Arc<str>>) -> Rules<'_> {
    Rules {
        sync: "app",
        store_id: STORE,
        configured,
        prune: Prune::Never,
        doubt: None,
        still_missing: &NOTHING,
        resting: &TAKEN,
        repair: false,
        adopt: false,
    }
}

/// What one key leads to.
fn step(
    wish: Option<Wish>,
    owned: Option<Owned>,
    shown: Option<Shown>,
    change: impl Fn(&mut Rules<'_>),
) -> Option<Step> {
    let configured = names(&["app", "other"]);
    let mut rules = rules(&configured);
    change(&mut rules);
    let one = |key: &str| key.to_owned();
    // Another wish keeps the guard off.
    let mut wishes = BTreeMap::from([(one("z"), super::Wish::Fault("beside".to_owned()))]);
    wishes.extend(wish.map(|wish| (one("k"), wish)));
    let owned = owned.map(|owned| (one("k"), owned)).into_iter().collect();
    let shown = shown.map(|shown| (one("k"), shown)).into_iter().collect();
    plan(Some(&wishes), &owned, &shown, &rules).steps.remove("k")
}

#[test]
fn each_case_of_a_wanted_key_has_one_step() {
    use Hold::{Creating, Deleting, Owned};
    let plain = |_: &mut Rules<'_>| {};
    let update = |cause| Step::Update { fields: vec!["value"], cause };
    let drift = |drift| Some(Step::Drift(drift));
    let rewritten = || drift(Drift::Rewritten);
    let by_hand = || Some(entry("mine", Some("by hand")));
    // (row of the ledger, entry in Airflow, step); the znode wants `new`.
    let cases = [
        (None, None, Some(Step::Create)),
        (None, by_hand(), Some(Step::Foreign { forget: false })),
        (None, Some(entry("new", None)), Some(Step::Foreign { forget: false })),
        // The ledger was restored: what it does not know, the mark tells.
        (None, Some(marked("new", "app")), Some(Step::Note)),
        (None, Some(marked("old", "app")), Some(update(Cause::Changed))),
        (None, Some(marked("old", "gone")), Some(update(Cause::Changed))),
        (None, Some(marked("old", "other")), Some(Step::OfSync("other".into()))),
        // The answer to a creation was lost, or the process died before it was recorded.
        (Some(row("app", Creating, None)), None, Some(Step::Create)),
        (Some(row("app", Creating, None)), by_hand(), Some(Step::Foreign { forget: true })),
        (Some(row("app", Creating, None)), Some(marked("new", "app")), Some(Step::Note)),
        (Some(row("app", Creating, None)), Some(marked("old", "app")), Some(update(Cause::Changed))),
        // The same with a change: its digest is not known.
        (Some(row("app", Owned, None)), Some(marked("new", "app")), Some(Step::Note)),
        (Some(row("app", Owned, None)), Some(marked("old", "app")), Some(update(Cause::Changed))),
        (Some(row("app", Owned, None)), None, Some(Step::Create)),
        // The same with a deletion, and the key came back meanwhile.
        (Some(row("app", Deleting, None)), None, Some(Step::Create)),
        (Some(row("app", Deleting, None)), Some(marked("old", "app")), Some(update(Cause::Changed))),
        (Some(row("app", Deleting, None)), by_hand(), Some(Step::Foreign { forget: true })),
        // Written before.
        (Some(row("app", Owned, Some("new"))), Some(marked("new", "app")), Some(Step::InStep)),
        (Some(row("app", Owned, Some("old"))), Some(marked("old", "app")), Some(update(Cause::Changed))),
        (Some(row("app", Owned, Some("old"))), Some(marked("new", "app")), Some(Step::Note)),
        (Some(row("app", Owned, Some("new"))), Some(marked("mine", "app")), drift(Drift::Changed(vec!["value"]))),
        (Some(row("app", Owned, Some("old"))), Some(marked("mine", "app")), Some(update(Cause::Changed))),
        (Some(row("app", Owned, Some("new"))), None, drift(Drift::Deleted)),
        (Some(row("app", Owned, Some("old"))), None, Some(Step::Create)),
        // Without the mark it is somebody else's by now, whatever the znode wants.
        (Some(row("app", Owned, Some("new"))), by_hand(), rewritten()),
        (Some(row("app", Owned, Some("old"))), by_hand(), rewritten()),
        (Some(row("app", Owned, None)), by_hand(), rewritten()),
        // Another sync's, and one that nobody configures any more.
        (Some(row("other", Owned, Some("old"))), Some(marked("old", "other")), Some(Step::OfSync("other".into()))),
        (Some(row("gone", Owned, Some("old"))), Some(marked("old", "gone")), Some(update(Cause::Changed))),
        (Some(row("gone", Owned, Some("new"))), Some(marked("new", "gone")), Some(Step::InStep)),
    ];
    for (owned, shown, expected) in cases {
        let told = format!("{owned:?} beside {:?}", shown.as_ref().map(|shown| &shown.description));
        assert_eq!(step(Some(wish("new")), owned, shown, plain), expected, "{told}");
    }
}

#[test]
fn repairing_and_adopting_are_chosen() {
    let repair = |rules: &mut Rules<'_>| rules.repair = true;
    let adopt = |rules: &mut Rules<'_>| rules.adopt = true;
    let owned = || Some(row("app", Hold::Owned, Some("new")));
    let by_hand = || Some(entry("mine", Some("by hand")));
    let update = |cause| Some(Step::Update { fields: vec!["value"], cause });
    assert_eq!(step(Some(wish("new")), owned(), Some(marked("mine", "app")), repair), update(Cause::Repair));
    assert_eq!(step(Some(wish("new")), owned(), by_hand(), repair), update(Cause::Repair));
    assert_eq!(step(Some(wish("new")), owned(), None, repair), Some(Step::Create));
    // What was never ours is no drift.
    assert_eq!(step(Some(wish("new")), None, by_hand(), repair), Some(Step::Foreign { forget: false }));
    assert_eq!(step(Some(wish("new")), None, by_hand(), adopt), update(Cause::Adopt));
    assert_eq!(step(Some(wish("new")), None, Some(marked("old", "other")), adopt), Some(Step::OfSync("other".into())));
}

#[test]
fn of_two_flowkeepers_the_mark_decides_and_nobody_takes_from_the_other_twice() {
    use Hold::{Creating, Deleting, Owned};
    let theirs = || Some(entry("mine", Some(&Mark { sync: "app", store_id: "2e0c" }.describe(None))));
    let conflict = |forget| Some(Step::OfStore { store_id: "2e0c".to_owned(), forget });
    let taken = || Some(Step::Update { fields: vec!["value"], cause: Cause::Adopt });
    // (row of the ledger, step, step with everything that takes).
    for (hold, plain, taking) in [
        (None, conflict(false), taken()),
        (Some(Creating), conflict(true), taken()),
        (Some(Deleting), conflict(true), taken()),
        (Some(Owned), conflict(false), conflict(false)),
    ] {
        let owned = || hold.map(|hold| row("app", hold, Some("new")));
        let all = |rules: &mut Rules<'_>| (rules.repair, rules.adopt) = (true, true);
        assert_eq!(step(Some(wish("new")), owned(), theirs(), |_| {}), plain, "{hold:?}");
        assert_eq!(step(Some(wish("new")), owned(), theirs(), all), taking, "{hold:?}, taking");
        // What nobody wants is left to them.
        let all = |rules: &mut Rules<'_>| rules.prune = Prune::Always;
        assert_eq!(step(None, owned(), theirs(), all), hold.map(|_| Step::Forget), "{hold:?}, vanished");
    }
}

#[test]
fn what_vanished_is_deleted_only_when_it_is_ours_and_asked_for() {
    use Hold::{Creating, Deleting, Owned};
    let prune = |rules: &mut Rules<'_>| rules.prune = Prune::Guarded;
    let by_hand = || Some(entry("mine", None));
    let unrecorded = || Some(Step::Held(Doubt::Unrecorded));
    // (row of the ledger, entry in Airflow, step, step with prune); no znode wants the key.
    let cases = [
        (None, None, None, None),
        (None, by_hand(), None, None),
        // Somebody copied an entry of ours with its description, or the ledger was restored.
        (None, Some(marked("old", "app")), unrecorded(), unrecorded()),
        (None, Some(marked("old", "other")), None, None),
        (None, Some(marked("old", "gone")), None, None),
        (Some(row("app", Owned, Some("old"))), Some(marked("old", "app")), Some(Step::Stays), Some(Step::Delete)),
        (Some(row("app", Owned, Some("old"))), Some(marked("mine", "app")), Some(Step::Stays), Some(Step::Delete)),
        (Some(row("app", Owned, Some("old"))), by_hand(), Some(Step::Forget), Some(Step::Forget)),
        (Some(row("app", Owned, Some("old"))), None, Some(Step::Forget), Some(Step::Forget)),
        (Some(row("app", Creating, None)), None, Some(Step::Forget), Some(Step::Forget)),
        (Some(row("app", Creating, None)), by_hand(), Some(Step::Forget), Some(Step::Forget)),
        (Some(row("app", Creating, None)), Some(marked("old", "app")), Some(Step::Stays), Some(Step::Delete)),
        (Some(row("app", Deleting, None)), Some(marked("old", "app")), Some(Step::Stays), Some(Step::Delete)),
        (Some(row("app", Deleting, None)), None, Some(Step::Forget), Some(Step::Forget)),
        // Another sync has written it since, by its mark; one that is gone does not need it.
        (Some(row("app", Owned, Some("old"))), Some(marked("old", "other")), Some(Step::Forget), Some(Step::Forget)),
        (Some(row("app", Owned, Some("old"))), Some(marked("old", "gone")), Some(Step::Stays), Some(Step::Delete)),
        (Some(row("other", Owned, Some("old"))), Some(marked("old", "other")), None, None),
        (Some(row("gone", Owned, Some("old"))), Some(marked("old", "gone")), None, None),
    ];
    for (owned, shown, kept, pruned) in cases {
        let told = format!("{owned:?} beside {:?}", shown.as_ref().map(|shown| &shown.description));
        assert_eq!(step(None, owned.clone(), shown.clone(), |_| {}), kept, "{told}");
        assert_eq!(step(None, owned.clone(), shown.clone(), prune), pruned, "{told}, with prune");
        // Somebody says so: everything goes that would be kept.
        let is_kept = matches!(kept, Some(Step::Stays | Step::Held(_)));
        let said = if is_kept { Some(Step::Delete) } else { kept };
        assert_eq!(
            step(None, owned, shown, |rules| rules.prune = Prune::Always),
            said,
            "{told}, when somebody says so"
        );
    }
}

#[test]
fn a_znode_that_is_gone_or_empty_deletes_nothing_by_itself() {
    let configured = names(&["app"]);
    let mut rules = Rules { prune: Prune::Guarded, repair: true, adopt: true, ..rules(&configured) };
    let owned = BTreeMap::from([("k".to_owned(), row("app", Hold::Owned, Some("old")))]);
    let shown = BTreeMap::from([("k".to_owned(), marked("old", "app"))]);
    let empty = BTreeMap::new();
    for (wishes, guard) in [(None, Guard::Missing), (Some(&empty), Guard::Empty)] {
        let held = plan(wishes, &owned, &shown, &rules);
        assert_eq!((held.steps.get("k"), held.guard), (Some(&Step::Held(Doubt::Guarded)), Some(guard)));
    }
    // With nothing of ours there is nothing to guard.
    assert_eq!(plan(Some(&empty), &BTreeMap::new(), &BTreeMap::new(), &rules).guard, None);
    let copied = plan(Some(&empty), &BTreeMap::new(), &shown, &rules);
    assert_eq!((copied.steps.get("k"), copied.guard), (Some(&Step::Held(Doubt::Unrecorded)), None));
    // A znode that was made anew may be about to be filled again; what is there already is written.
    let one = BTreeMap::from([("n".to_owned(), wish("new"))]);
    rules.doubt = Some(Guard::Recreated);
    let refilled = plan(Some(&one), &owned, &shown, &rules);
    assert_eq!(refilled.steps["k"], Step::Held(Doubt::Guarded));
    assert_eq!((&refilled.steps["n"], refilled.guard), (&Step::Create, Some(Guard::Recreated)));
    assert_eq!(plan(Some(&one), &BTreeMap::new(), &BTreeMap::new(), &rules).guard, None);
    rules.prune = Prune::Always;
    assert_eq!(plan(Some(&one), &owned, &shown, &rules).steps["k"], Step::Delete);
    for wishes in [None, Some(&empty)] {
        let forced = plan(wishes, &owned, &shown, &rules);
        assert_eq!((forced.steps.get("k"), forced.guard), (Some(&Step::Delete), None));
    }
}

#[test]
fn when_many_vanish_at_once_they_are_held_until_they_are_missing_for_long() {
    let configured = names(&["app"]);
    let key = |number: usize| format!("k{number:03}");
    // (how many are ours, how many of them vanished, whether they are held).
    for (ours, vanished, is_held) in [
        (10, 9, false),
        (11, 10, false),
        (12, 11, true),
        (44, 11, false),
        (43, 11, true),
        (1000, 960, true),
        (1000, 250, false),
    ] {
        let owned = (0..ours).map(|number| (key(number), row("app", Hold::Owned, Some("v")))).collect();
        let shown = (0..ours).map(|number| (key(number), Shown { key: key(number), ..marked("v", "app") })).collect();
        let wishes: BTreeMap<String, Wish> = (vanished..ours).map(|number| (key(number), wish("v"))).collect();
        let mut rules = Rules { prune: Prune::Guarded, ..rules(&configured) };
        let first = plan(Some(&wishes), &owned, &shown, &rules);
        let held = first.counts().get("held").copied().unwrap_or_default();
        assert_eq!(held, if is_held { vanished as u64 } else { 0 }, "{vanished} of {ours}");
        assert_eq!(first.guard, is_held.then_some(Guard::Many), "{vanished} of {ours}");
        // Those that were missing before go, and the others wait.
        let still_missing: BTreeSet<String> = (1..vanished).map(key).collect();
        rules.still_missing = &still_missing;
        let later = plan(Some(&wishes), &owned, &shown, &rules);
        let waits = if is_held { Step::Held(Doubt::Many) } else { Step::Delete };
        assert_eq!((&later.steps[&key(0)], &later.steps[&key(1)]), (&waits, &Step::Delete), "{vanished} of {ours}");
        rules.prune = Prune::Always;
        assert_eq!(plan(Some(&wishes), &owned, &shown, &rules).counts()["delete"], vanished as u64);
    }
}

#[test]
fn a_wrong_wish_touches_nothing() {
    let all = |rules: &mut Rules<'_>| (rules.prune, rules.repair, rules.adopt) = (Prune::Guarded, true, true);
    let fault = || Some(Wish::Fault("too long".to_owned()));
    let owned = Some(row("app", Hold::Owned, Some("old")));
    assert_eq!(step(fault(), owned, Some(marked("old", "app")), all), Some(Step::Fault("too long".to_owned())));
    assert_eq!(step(fault(), None, Some(entry("mine", None)), all), Some(Step::Fault("too long".to_owned())));
}

#[test]
fn what_airflow_did_not_take_rests_until_something_else_is_wanted() {
    let of = |digest: Option<&str>| {
        let digest = digest.map(|text| format!("digest of {text}"));
        BTreeMap::from([("k".to_owned(), ("too long".to_owned(), digest))])
    };
    let fault = || Some(Step::Fault("too long".to_owned()));
    let update = || Some(Step::Update { fields: vec!["value"], cause: Cause::Changed });
    let owned = |text| Some(row("app", Hold::Owned, Some(text)));
    let old = || Some(marked("old", "app"));
    // (what rests, what is wanted, row of the ledger, entry in Airflow, step).
    for (refused, wanted, owned, shown, expected) in [
        (Some("new"), Some("new"), None, None, fault()),
        (Some("newer"), Some("new"), None, None, Some(Step::Create)),
        (None, Some("new"), None, None, Some(Step::Create)),
        (Some("new"), Some("new"), owned("old"), old(), fault()),
        (Some("new"), Some("newer"), owned("old"), old(), update()),
        // What is in step all the same is that.
        (Some("old"), Some("old"), owned("old"), old(), Some(Step::InStep)),
        (None, None, owned("old"), old(), fault()),
        (Some("new"), None, owned("old"), old(), Some(Step::Delete)),
    ] {
        let resting = of(refused);
        let told = format!("{refused:?} rests, {wanted:?} is wanted");
        let configured = names(&["app"]);
        let rules = Rules { prune: Prune::Guarded, resting: &resting, ..rules(&configured) };
        let mut wishes = BTreeMap::from([("z".to_owned(), Wish::Fault("beside".to_owned()))]);
        wishes.extend(wanted.map(|text| ("k".to_owned(), wish(text))));
        let owned = owned.map(|owned| ("k".to_owned(), owned)).into_iter().collect();
        let shown = shown.map(|shown| ("k".to_owned(), shown)).into_iter().collect();
        assert_eq!(plan(Some(&wishes), &owned, &shown, &rules).steps.remove("k"), expected, "{told}");
    }
}
