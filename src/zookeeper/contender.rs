//! Those who queue under a znode, for a lock or for the lead, in the layout of Curator's recipes.
//!
//! Every contender makes a sequential znode; the lowest number is first. The name is
//! `_c_{guid}-{recipe}{number}`: Curator puts the guid in front so that a contender whose request was
//! answered by silence recognises its znode, and sorts by what follows the recipe's word. Pure: this
//! neither reads nor writes ZooKeeper.

/// The word that Curator's locks and kazoo's `extra_lock_patterns` go by.
pub const LOCK: &str = "lock-";

/// The word of Curator's `LeaderLatch`.
pub const LATCH: &str = "latch-";

/// How many digits the servers write at least; a number beyond them has more, a negative one a sign.
const DIGITS: usize = 10;

/// A contender's znode, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// The name under the parent.
    pub name: String,
    /// The place in the queue: the servers' count of the parent's children when it was made.
    pub sequence: i64,
}

impl Contender {
    /// Reads a name; `None` for a znode that does not queue, which has no number at its end.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        if digits < DIGITS {
            return None;
        }
        // More digits than the servers' belong to what stands before them, unless the count needs them:
        // it is a 32-bit number, so ten are enough.
        let number = &name[name.len() - DIGITS..];
        Some(Self { name: name.to_owned(), sequence: number.parse().ok()? })
    }

    /// Whether this is the znode of the contender with this guid.
    pub fn is_of(&self, guid: &str) -> bool {
        self.name.strip_prefix("_c_").and_then(|rest| rest.strip_prefix(guid)).is_some_and(|rest| rest.starts_with('-'))
    }
}

/// The name to make a sequential znode under, without its number.
pub fn prefix(guid: &str, recipe: &str) -> String {
    format!("_c_{guid}-{recipe}")
}

/// All who queue among these children, first come first.
pub fn in_order<'n>(children: impl IntoIterator<Item = &'n str>) -> Vec<Contender> {
    let mut queue: Vec<_> = children.into_iter().filter_map(Contender::parse).collect();
    queue.sort_by(|one, other| one.sequence.cmp(&other.sequence).then_with(|| one.name.cmp(&other.name)));
    queue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_stand_in_the_order_of_their_numbers_whoever_made_them() {
        let children = [
            "_c_aa-lock-0000000012",
            "not in the queue",
            "7f3c__lock__0000000002",
            "_c_bb-lock-0000000003",
            "short-001",
        ];
        let queue: Vec<_> = in_order(children).into_iter().map(|contender| contender.name).collect();
        assert_eq!(queue, ["7f3c__lock__0000000002", "_c_bb-lock-0000000003", "_c_aa-lock-0000000012"]);
    }

    #[test]
    fn a_contender_recognises_its_own_znode() {
        let name = format!("{}0000000007", prefix("4e1f", LATCH));
        assert_eq!(name, "_c_4e1f-latch-0000000007");
        let contender = Contender::parse(&name).expect("a contender");
        assert_eq!(contender.sequence, 7);
        assert!(contender.is_of("4e1f") && !contender.is_of("4e1"));
    }

    proptest::proptest! {
        #[test]
        fn no_name_is_too_odd(names in proptest::collection::vec("\\PC*", 0..20)) {
            let queue = in_order(names.iter().map(String::as_str));
            proptest::prop_assert!(queue.len() <= names.len());
            proptest::prop_assert!(queue.is_sorted_by_key(|contender| contender.sequence));
        }

        #[test]
        fn what_is_made_is_read_back(guid in "[0-9a-f-]{1,36}", sequence in 0..i64::from(i32::MAX)) {
            let name = format!("{}{sequence:010}", prefix(&guid, LATCH));
            let contender = Contender::parse(&name).expect("a contender");
            proptest::prop_assert_eq!(contender.sequence, sequence);
            proptest::prop_assert!(contender.is_of(&guid));
        }
    }
}
