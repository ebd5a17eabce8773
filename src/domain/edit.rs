//! What an edit does to each schedule: decided here, once, for everybody who takes part in it.
//!
//! A schedule is known by its name, and names change. Four things tell who is who: what the ledger knows
//! under each name, whether it is in force, the names that it had before, and `was` in the set that comes.
//! A `was` that stays written says nothing more once its rename was carried out, since nothing is known by the
//! old name any more. It may name several: whoever reads a set may have missed those before it. And since the
//! ledger remembers the names that a schedule had, a set from before a rename finds its schedules again: they
//! are taken back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::schedule::{Schedule, ScheduleName, Trigger};

/// How many earlier names of a schedule are remembered.
pub const FORMER_NAMES: usize = 8;

/// How a schedule stood before the edit. In the order of how much of it is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// A working leader removed it; a pause of it is all that is left.
    Ended,
    /// A leader began without it; it is kept for a while.
    Rests,
    /// It was in force.
    InForce,
}

/// What is known of a schedule before the edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// How it stood.
    pub standing: Standing,
    /// The names that it had before, the latest first.
    pub former: Vec<ScheduleName>,
}

/// The name of a schedule in a set, and its `was`, the latest first.
pub type NameAndWas = (ScheduleName, Vec<ScheduleName>);

/// What becomes of a schedule that the next set has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It is kept for a while: a leader begins, and may just not have the newest set yet.
    Rests,
    /// It ends: a working leader removes it.
    Ends,
}

/// Where a schedule of the next set comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From nothing.
    Begins,
    /// It was known by this name, and goes on.
    GoesOn,
    /// It had this name before, as its `was` says.
    Renamed(ScheduleName),
    /// It was given this name by a later set, and has its own again.
    TakenBack(ScheduleName),
}

/// What becomes of a name that was in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Departure {
    /// Its schedule goes on under this one.
    To(ScheduleName),
    /// Its schedule is kept for a while.
    Rests,
    /// Its schedule ends.
    Ends,
}

/// What an edit does to each name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fates {
    origins: HashMap<ScheduleName, Origin>,
    departures: HashMap<ScheduleName, Departure>,
    /// Names that were in force and pass on to another schedule.
    taken: HashSet<ScheduleName>,
}

impl Fates {
    /// Decides for each name. `after` has the names of the next set, each with its `was`.
    pub fn decide<'s>(
        known: &HashMap<ScheduleName, Known>,
        after: impl Iterator<Item = (&'s ScheduleName, &'s [ScheduleName])> + Clone,
        leaving: Leaving,
    ) -> Self {
        let wanted: HashSet<&ScheduleName> = after.clone().map(|(name, _)| name).collect();
        let mut moved: HashMap<ScheduleName, ScheduleName> = HashMap::new();
        let mut origins: HashMap<ScheduleName, Origin> = HashMap::new();
        for (name, was) in after.clone() {
            let free = was.iter().filter(|was| !wanted.contains(was) && !moved.contains_key(*was));
            // Of several the one that is most alive, then the latest.
            let renamed = free.filter_map(|was| Some((renamed_from(known, name, was)?, was)));
            if let Some((_, was)) = renamed.min_by_key(|(standing, _)| std::cmp::Reverse(*standing)) {
                moved.insert(was.clone(), name.clone());
                origins.insert(name.clone(), Origin::Renamed(was.clone()));
            }
        }
        let mut back = heirs_of_former_names(known, |name| wanted.contains(name) || moved.contains_key(name));
        for (name, _) in after {
            if origins.contains_key(name) {
                continue;
            }
            let has_own = known.get(name).is_some_and(|known| known.standing > Standing::Ended);
            let origin = match back.remove(name).filter(|from| !has_own && !moved.contains_key(from)) {
                Some(from) => {
                    moved.insert(from.clone(), name.clone());
                    Origin::TakenBack(from)
                }
                None if has_own => Origin::GoesOn,
                None => Origin::Begins,
            };
            origins.insert(name.clone(), origin);
        }
        let mut fates = Self { origins, ..Self::default() };
        for (name, _) in known.iter().filter(|(_, known)| known.standing == Standing::InForce) {
            let goes_on = fates.origins.get(name) == Some(&Origin::GoesOn);
            let departure = match (moved.remove(name), leaving) {
                (Some(to), _) => Departure::To(to),
                (None, _) if goes_on => continue,
                (None, _) if wanted.contains(name) => {
                    fates.taken.insert(name.clone());
                    Departure::Ends
                }
                (None, Leaving::Ends) => Departure::Ends,
                (None, Leaving::Rests) => Departure::Rests,
            };
            fates.departures.insert(name.clone(), departure);
        }
        // What rested goes along with its new name as well.
        fates.departures.extend(moved.into_iter().map(|(from, to)| (from, Departure::To(to))));
        fates
    }

    /// The same by two sets alone, for those who do not have the ledger.
    pub fn between(before: &[Arc<Schedule>], after: &[Arc<Schedule>]) -> Self {
        let name = |schedule: &Arc<Schedule>| (schedule.name.clone(), schedule.was.clone());
        let (before, after): (Vec<_>, Vec<_>) = (before.iter().map(name).collect(), after.iter().map(name).collect());
        Self::between_names(&before, &after)
    }

    /// The same of the names of two sets, each with its `was`.
    pub fn between_names(before: &[NameAndWas], after: &[NameAndWas]) -> Self {
        let known =
            before.iter().map(|(name, was)| (name.clone(), Known { standing: Standing::InForce, former: was.clone() }));
        let after = after.iter().map(|(name, was)| (name, &**was));
        Self::decide(&known.collect(), after, Leaving::Ends)
    }

    /// Where a schedule of the next set comes from.
    pub fn origin(&self, name: &ScheduleName) -> &Origin {
        self.origins.get(name).unwrap_or(&Origin::Begins)
    }

    /// The name by which a schedule of the next set was known before.
    pub fn known_as<'f>(&'f self, name: &'f ScheduleName) -> Option<&'f ScheduleName> {
        match self.origin(name) {
            Origin::Begins => None,
            Origin::GoesOn => Some(name),
            Origin::Renamed(from) | Origin::TakenBack(from) => Some(from),
        }
    }

    /// The name by which the schedule of this name is known from now on; `None` when it is known no more.
    pub fn goes_on_as<'f>(&'f self, name: &'f ScheduleName) -> Option<&'f ScheduleName> {
        match self.departures.get(name) {
            Some(Departure::To(to)) => Some(to),
            Some(Departure::Rests | Departure::Ends) => None,
            None => (self.origins.get(name) == Some(&Origin::GoesOn)).then_some(name),
        }
    }

    /// Whether a name that was in force passes on to another schedule.
    pub fn is_taken(&self, name: &ScheduleName) -> bool {
        self.taken.contains(name)
    }

    /// The old and the new name of each schedule that has another one. No new name is an old one.
    pub fn moves(&self) -> impl Iterator<Item = (&ScheduleName, &ScheduleName)> {
        self.departures.iter().filter_map(|(from, departure)| match departure {
            Departure::To(to) => Some((from, to)),
            Departure::Rests | Departure::Ends => None,
        })
    }

    /// Names that are given up, and what becomes of them.
    pub fn departures(&self) -> impl Iterator<Item = (&ScheduleName, &Departure)> {
        self.departures.iter()
    }

    /// What is known by the names before, by the names that come.
    pub fn carried<T: Clone>(&self, before: &HashMap<ScheduleName, T>) -> HashMap<ScheduleName, T> {
        let carried = |name| Some((ScheduleName::clone(name), before.get(self.known_as(name)?)?.clone()));
        self.origins.keys().filter_map(carried).collect()
    }
}

/// How that stands which `was` names, if it is what this schedule was. It is not when what is known by its own
/// name is more alive, or is that already; but of two that are in force, the one that is no more wanted under its
/// name has passed on.
fn renamed_from(known: &HashMap<ScheduleName, Known>, name: &ScheduleName, was: &ScheduleName) -> Option<Standing> {
    let before = known.get(was)?;
    let renamed = known.get(name).is_none_or(|own| {
        let done = own.former.contains(was) && before.standing < Standing::InForce && own.standing > Standing::Ended;
        !done && before.standing >= own.standing
    });
    renamed.then_some(before.standing)
}

/// By a name that schedules had before: which of those that leave their present name has it again. The one
/// that is in force before the one that rests, then the one that had it last.
fn heirs_of_former_names(
    known: &HashMap<ScheduleName, Known>,
    stays: impl Fn(&ScheduleName) -> bool,
) -> HashMap<ScheduleName, ScheduleName> {
    let mut heirs: HashMap<ScheduleName, (std::cmp::Reverse<Standing>, usize, ScheduleName)> = HashMap::new();
    for (name, known) in known.iter().filter(|(name, known)| known.standing > Standing::Ended && !stays(name)) {
        for (age, former) in known.former.iter().enumerate() {
            let heir = (std::cmp::Reverse(known.standing), age, name.clone());
            match heirs.get(former) {
                Some(better) if *better <= heir => {}
                _ => drop(heirs.insert(former.clone(), heir)),
            }
        }
    }
    heirs.into_iter().map(|(former, (_, _, heir))| (former, heir)).collect()
}

/// The names that a schedule had before, once it has another one; the latest first. `was` has those that the set
/// tells, where the schedule comes from one of them: also what it was called in sets that never were in force.
pub fn former_names(
    from: &ScheduleName,
    former: &[ScheduleName],
    was: &[ScheduleName],
    to: &ScheduleName,
) -> Vec<ScheduleName> {
    let told = if was.contains(from) { was } else { &[] };
    let mut names: Vec<ScheduleName> = Vec::new();
    for name in told.iter().chain(std::iter::once(from)).chain(former).filter(|name| *name != to) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.truncate(FORMER_NAMES);
    names
}

/// What schedules of the next set were beside what it says, where the set before may never have been in force: the
/// names that it tells are passed on, until one of them is used again. Names are the latest first.
pub fn names_passed_on<'s>(
    before: impl Iterator<Item = (&'s ScheduleName, &'s [ScheduleName])>,
    after: impl Iterator<Item = (&'s ScheduleName, &'s [ScheduleName])> + Clone,
) -> HashMap<ScheduleName, Vec<ScheduleName>> {
    let before: HashMap<_, _> = before.filter(|(_, was)| !was.is_empty()).collect();
    if before.is_empty() {
        return HashMap::new();
    }
    let used: HashSet<_> = after.clone().flat_map(|(name, was)| std::iter::once(name).chain(was)).collect();
    let mut passed_on: HashMap<ScheduleName, Vec<ScheduleName>> = HashMap::new();
    for (name, was) in after {
        let told = std::iter::once(name).chain(was).filter_map(|name| before.get(name)).copied().flatten();
        for told in told.filter(|told| !used.contains(told)).take(FORMER_NAMES.saturating_sub(was.len())) {
            passed_on.entry(name.clone()).or_default().push(told.clone());
        }
    }
    passed_on
}

/// What an edit does to the rule of a schedule, which a [`Trigger::identity`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// It stays.
    Same,
    /// It is written in another way, or delayed otherwise, and has the same times.
    Respelled,
    /// It is another about the same znodes.
    SamePlace,
    /// It is another.
    Other,
}

impl Rule {
    /// From one rule to the next.
    pub fn between(before: &str, after: &str) -> Self {
        if before == after {
            Self::Same
        } else if Trigger::same_times(before, after) {
            Self::Respelled
        } else if Trigger::same_znodes(before, after) {
            Self::SamePlace
        } else {
            Self::Other
        }
    }

    /// Whether the trigger begins anew.
    pub fn is_edited(self) -> bool {
        matches!(self, Self::SamePlace | Self::Other)
    }
}

#[cfg(test)]
mod tests;
