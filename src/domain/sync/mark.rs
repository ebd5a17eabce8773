//! The mark that tells an entry that flowkeeper wrote from one that somebody else made.
//!
//! It stands in the entry's description, where people see it too. The ledger alone could not tell: an
//! answer may be lost, a process may die between the request and its record, and meanwhile somebody else
//! may have made an entry of the same key.

/// Begins every mark.
const OPENING: &str = "flowkeeper sync ";
/// Separates the name of the sync from the identity of the store.
const STORE: &str = ", store ";

/// Which sync of which store wrote an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark<'a> {
    /// The name of the sync.
    pub sync: &'a str,
    /// The identity of the store.
    pub store_id: &'a str,
}

impl<'a> Mark<'a> {
    /// The description of an entry: what a person gave, and the mark.
    pub fn describe(&self, description: Option<&str>) -> String {
        let mark = format!("{OPENING}{}{STORE}{}", self.sync, self.store_id);
        match description {
            Some(description) => format!("{description} ({mark})"),
            None => mark,
        }
    }

    /// What a person gave, and the mark, of a description as Airflow shows it.
    pub fn split(description: &'a str) -> (Option<&'a str>, Option<Self>) {
        if let Some(mark) = Self::parse(description) {
            return (None, Some(mark));
        }
        let marked = description.strip_suffix(')').and_then(|inside| {
            let at = inside.rfind(&format!(" ({OPENING}"))?;
            Some((&description[..at], Self::parse(&inside[at + 2..])?))
        });
        match marked {
            Some((description, mark)) => (Some(description), Some(mark)),
            None => (Some(description).filter(|text| !text.is_empty()), None),
        }
    }

    fn parse(text: &'a str) -> Option<Self> {
        let (sync, store_id) = text.strip_prefix(OPENING)?.split_once(STORE)?;
        let word = |text: &str| !text.is_empty() && !text.contains([' ', '(', ')']);
        (word(sync) && word(store_id)).then_some(Self { sync, store_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again_behind_whatever_a_person_wrote() {
        let mark = Mark { sync: "app", store_id: "1f-2" };
        for description in [None, Some("Slots (of the warehouse)"), Some("a (flowkeeper sync"), Some("é")] {
            let written = mark.describe(description);
            assert_eq!(Mark::split(&written), (description, Some(mark.clone())), "{written}");
        }
        for foreign in
            ["", "by hand", "flowkeeper sync app", "flowkeeper sync a b, store 1", "(flowkeeper sync a, store 1)"]
        {
            let description = Some(foreign).filter(|text| !text.is_empty());
            assert_eq!(Mark::split(foreign), (description, None), "{foreign}");
        }
    }
}
