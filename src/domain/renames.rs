//! Which schedules go on under another name: what is meant by `was`, for everybody who has to know.
//!
//! A rename is told by two sets alone. It is one where the old name was in force and is no more, also if
//! the new name was in force as well: then that schedule was removed, and its name has passed on. A set
//! with both names is a mistake (`config`), so a `was` that stays written after its rename says nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::schedule::{Schedule, ScheduleName};

/// Old names, by the new ones.
pub type Renames<'s> = HashMap<&'s ScheduleName, &'s ScheduleName>;

/// The schedules of `after` that were in force under another name.
pub fn renames(after: &[Arc<Schedule>], was_in_force: impl Fn(&ScheduleName) -> bool) -> Renames<'_> {
    among(after.iter().map(|schedule| (&schedule.name, schedule.was.as_ref())), was_in_force)
}

/// The same for names alone, each with the one before.
pub fn among<'s>(
    after: impl Iterator<Item = (&'s ScheduleName, Option<&'s ScheduleName>)> + Clone,
    was_in_force: impl Fn(&ScheduleName) -> bool,
) -> Renames<'s> {
    let mut renames: Renames<'s> =
        after.clone().filter_map(|(name, was)| Some((name, was.filter(|was| was_in_force(was))?))).collect();
    if !renames.is_empty() {
        let present: std::collections::HashSet<_> = after.map(|(name, _)| name).collect();
        renames.retain(|_, was| !present.contains(was));
    }
    renames
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = &'static [(&'static str, &'static str)];

    #[test]
    fn a_rename_is_of_a_name_that_was_there_and_is_gone() {
        let name = |text: &str| ScheduleName::new(text).unwrap();
        // In force before; afterwards, each with its `was`; what is a rename.
        let cases: [(&str, &[&str], Pairs, Pairs); 8] = [
            ("a plain rename", &["a"], &[("b", "a")], &[("b", "a")]),
            ("nothing was there", &[], &[("b", "a")], &[]),
            ("it stays written", &["b"], &[("b", "a")], &[]),
            ("the old name is still there", &["a"], &[("a", ""), ("b", "a")], &[]),
            ("the name of one that is removed", &["a", "b"], &[("b", "a")], &[("b", "a")]),
            (
                "each takes over from one that is gone",
                &["a", "b"],
                &[("c", "a"), ("d", "b")],
                &[("c", "a"), ("d", "b")],
            ),
            ("one is renamed and another comes", &["a"], &[("b", "a"), ("c", "")], &[("b", "a")]),
            ("another takes the name that was given up, under a new one", &["a"], &[("b", "a"), ("a", "")], &[]),
        ];
        for (case, before, after, expected) in cases {
            let after: Vec<_> = after.iter().map(|(to, was)| (name(to), ScheduleName::new(was))).collect();
            let found = among(after.iter().map(|(to, was)| (to, was.as_ref())), |was| before.contains(&was.as_str()));
            let mut found: Vec<_> = found.into_iter().map(|(to, was)| (to.as_str(), was.as_str())).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{case}");
        }
    }
}
