//! Random histories of znodes, of people in Airflow and of requests that fail: whatever happens, what is
//! not ours is never touched, and what is wanted gets there.

use proptest::prelude::*;

use super::*;

const KEYS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Event {
    /// The znode wants this of a key, or nothing.
    Want(usize, Option<u8>),
    /// Somebody writes the entry anew in Airflow.
    Write(usize, u8),
    /// Somebody changes the value of the entry that there is, and leaves its description.
    Edit(usize, u8),
    /// Somebody copies an entry in Airflow, with its description, to a key that is free.
    Copy(usize, usize),
    /// Somebody deletes it in Airflow.
    Delete(usize),
    /// A comparison; each request ends like this, in turn.
    Compare(Vec<Outcome>),
    /// The ledger is set back to what it was at the beginning.
    Restore,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Done,
    /// Done, and the answer was lost, or the process died.
    DoneAndLost,
    /// Not done, and nobody knows.
    Lost,
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![4 => Just(Outcome::Done), 1 => Just(Outcome::DoneAndLost), 1 => Just(Outcome::Lost)];
    prop_oneof![
        4 => (0..KEYS.len(), proptest::option::of(0..3u8)).prop_map(|(key, value)| Event::Want(key, value)),
        2 => (0..KEYS.len(), 0..3u8).prop_map(|(key, value)| Event::Write(key, value)),
        1 => (0..KEYS.len(), 0..3u8).prop_map(|(key, value)| Event::Edit(key, value)),
        1 => (0..KEYS.len(), 0..KEYS.len()).prop_map(|(from, to)| Event::Copy(from, to)),
        1 => (0..KEYS.len()).prop_map(Event::Delete),
        6 => proptest::collection::vec(outcome, 3).prop_map(Event::Compare),
        1 => Just(Event::Restore),
    ]
}

/// An entry in Airflow.
#[derive(Debug, Clone, PartialEq)]
struct Real {
    value: u8,
    /// Whether it carries our mark: we wrote it last as a whole, or it is a copy of such an entry.
    is_marked: bool,
}

#[derive(Default)]
struct World {
    wishes: BTreeMap<String, Wish>,
    ledger: BTreeMap<String, Owned>,
    airflow: BTreeMap<String, Real>,
}

impl World {
    fn shown(&self) -> BTreeMap<String, Shown> {
        let show = |(key, real): (&String, &Real)| {
            let text = real.value.to_string();
            let shown = if real.is_marked { marked(&text, "app") } else { entry(&text, None) };
            (key.clone(), Shown { key: key.clone(), ..shown })
        };
        self.airflow.iter().map(show).collect()
    }

    /// A comparison as the loop does it: intent, request, record.
    fn compare(&mut self, rules: &Rules<'_>, outcomes: &[Outcome]) {
        let plan = plan(Some(&self.wishes), &self.ledger, &self.shown(), rules);
        let mut outcomes = outcomes.iter().copied();
        for (key, step) in plan.steps {
            let digest = match self.wishes.get(&key) {
                Some(Wish::Entry { digest, .. }) => Some(digest.clone()),
                _ => None,
            };
            let value = digest.as_deref().and_then(|digest| digest.rsplit(' ').next()?.parse().ok());
            let done = Owned { sync: "app".into(), hold: Hold::Owned, digest };
            let intent = |hold| Owned { hold, digest: None, ..done.clone() };
            match step {
                Step::Note => drop(self.ledger.insert(key, done)),
                Step::Forget | Step::Foreign { forget: true } => drop(self.ledger.remove(&key)),
                Step::Create | Step::Update { .. } => {
                    let hold = if step == Step::Create { Hold::Creating } else { Hold::Owned };
                    self.ledger.insert(key.clone(), intent(hold));
                    let outcome = outcomes.next().unwrap_or(Outcome::Done);
                    if !matches!(outcome, Outcome::Lost) {
                        let is_foreign = self.airflow.get(&key).is_some_and(|real| !real.is_marked);
                        assert!(!is_foreign || rules.repair, "{key} is somebody else's, and {step:?} would take it");
                        let value = value.expect("what nobody wants is not written");
                        self.airflow.insert(key.clone(), Real { value, is_marked: true });
                    }
                    if matches!(outcome, Outcome::Done) {
                        self.ledger.insert(key, done);
                    }
                }
                Step::Delete => {
                    let is_known = self.ledger.contains_key(&key);
                    assert!(is_known || rules.prune == Prune::Always, "{key} may be a copy, and would be deleted");
                    self.ledger.insert(key.clone(), intent(Hold::Deleting));
                    let outcome = outcomes.next().unwrap_or(Outcome::Done);
                    if !matches!(outcome, Outcome::Lost) {
                        assert!(self.airflow[&key].is_marked, "{key} is somebody else's, and would be deleted");
                        self.airflow.remove(&key);
                    }
                    if matches!(outcome, Outcome::Done) {
                        self.ledger.remove(&key);
                    }
                }
                Step::InStep
                | Step::Drift(_)
                | Step::Foreign { forget: false }
                | Step::OfSync(_)
                | Step::OfStore { .. }
                | Step::Stays
                | Step::Held(_)
                | Step::Fault(_) => {}
            }
        }
    }

    fn happen(&mut self, event: Event, rules: &Rules<'_>) {
        match event {
            Event::Want(key, Some(value)) => {
                self.wishes.insert(KEYS[key].to_owned(), wish(&value.to_string()));
            }
            Event::Want(key, None) => drop(self.wishes.remove(KEYS[key])),
            Event::Write(key, value) => {
                self.airflow.insert(KEYS[key].to_owned(), Real { value, is_marked: false });
            }
            Event::Edit(key, value) => {
                if let Some(real) = self.airflow.get_mut(KEYS[key]) {
                    real.value = value;
                }
            }
            Event::Copy(from, to) => {
                if let Some(real) = self.airflow.get(KEYS[from]).cloned() {
                    self.airflow.entry(KEYS[to].to_owned()).or_insert(real);
                }
            }
            Event::Delete(key) => drop(self.airflow.remove(KEYS[key])),
            Event::Compare(outcomes) => self.compare(rules, &outcomes),
            Event::Restore => self.ledger.clear(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_not_ours_is_never_touched_and_all_else_converges(
        events in proptest::collection::vec(event(), 0..40),
        repair: bool,
        prune in prop_oneof![Just(Prune::Never), Just(Prune::Guarded), Just(Prune::Always)],
    ) {
        let configured = names(&["app"]);
        let rules = Rules { prune, repair, ..rules(&configured) };
        let mut world = World::default();
        for event in events {
            world.happen(event, &rules);
        }
        // Two quiet comparisons bring everything to rest.
        world.compare(&rules, &[]);
        world.compare(&rules, &[]);
        let rest = plan(Some(&world.wishes), &world.ledger, &world.shown(), &rules);
        for (key, step) in &rest.steps {
            let is_at_rest = match step {
                Step::InStep | Step::Foreign { forget: false } => true,
                Step::Drift(_) => !repair,
                Step::Stays => prune == Prune::Never,
                Step::Held(Doubt::Guarded) => prune == Prune::Guarded && world.wishes.is_empty(),
                Step::Held(Doubt::Unrecorded) => prune != Prune::Always && !world.ledger.contains_key(key),
                _ => false,
            };
            prop_assert!(is_at_rest, "{key}: {step:?}");
        }
        for (key, wish) in &world.wishes {
            let Wish::Entry { value: EntryValue::Variable(text), .. } = wish else { continue };
            if rest.steps[key] == Step::InStep {
                prop_assert_eq!(&world.airflow[key].value.to_string(), text);
            }
        }
    }
}
