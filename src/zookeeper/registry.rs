//! Who takes part: the cards that members leave in ZooKeeper, and what members are called.
//!
//! A card is an ephemeral znode `members/{id}` with JSON in it. Members of neighbouring versions read
//! each other's: what one does not know it ignores, what is missing has a default. Pure: this neither
//! reads nor writes ZooKeeper.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Stands between the place of a member and the life of its process.
const LIFE: char = '~';

/// What a member tells the others about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCard {
    /// Place and life, see [`member_id`]; also the name of the znode.
    #[serde(default)]
    pub id: String,
    /// Where other members reach it, if anywhere.
    #[serde(default)]
    pub url: Option<String>,
    /// The host's name.
    #[serde(default)]
    pub host: String,
    /// The process on that host.
    #[serde(default)]
    pub pid: u32,
    /// The version of flowkeeper.
    #[serde(default)]
    pub version: String,
    /// Which ledger it writes to.
    #[serde(default)]
    pub store_id: String,
    /// Where that is, without a password.
    #[serde(default)]
    pub store_url: String,
    /// Which definitions it has.
    #[serde(default)]
    pub configuration_version: String,
    /// What is wrong with the newest definitions, where it cannot take them.
    #[serde(default)]
    pub refuses: Option<String>,
    /// Since when it has them.
    #[serde(default)]
    pub configuration_since: Option<Timestamp>,
    /// How many schedules they have.
    #[serde(default)]
    pub schedules: Option<usize>,
    /// Of a leader: since when the oldest occurrence waits that came due and is not in the ledger yet;
    /// `None` while none waits for longer than usual.
    #[serde(default)]
    pub unrecorded_since: Option<Timestamp>,
    /// When the process started.
    #[serde(default)]
    pub started: Option<Timestamp>,
}

/// A live member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it says of itself.
    pub card: MemberCard,
    /// Whether it is the first of those that stand for election.
    pub leads: bool,
}

/// A new id for a member at this place (`host:port`), as nobody had it before: `host-a:8787~3f9c2a1b`.
///
/// The place is the same in the next life of the process, which so recognises what the last one left
/// behind; the life behind it is not, so that nobody takes that for its own.
pub fn member_id(place: &str) -> String {
    let life = Uuid::new_v4().simple().to_string();
    let place: String = place.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
    format!("{place}{LIFE}{}", &life[..8])
}

/// What may stand in the name of a znode without surprising anybody, and is not [`LIFE`].
fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '.' | ':' | '-' | '_' | '[' | ']')
}

/// Whether two ids are of the same place.
pub(super) fn same_place(one: &str, other: &str) -> bool {
    let place = |id: &str| id.rsplit_once(LIFE).map(|(place, _)| place.to_owned());
    place(one).is_some_and(|one| place(other) == Some(one))
}

/// The data of the znode.
pub(super) fn write_card(card: &MemberCard) -> Vec<u8> {
    serde_json::to_vec(card).unwrap_or_default()
}

/// Reads a card; `None` when it is none. The znode's name is who it is of, whatever the data says.
pub(super) fn read_card(id: &str, data: &[u8]) -> Option<MemberCard> {
    let mut card: MemberCard = serde_json::from_slice(data).ok()?;
    id.clone_into(&mut card.id);
    Some(card)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_the_same_place_and_another_id_in_its_next_life() {
        let (one, other) = (member_id("host-a:8787"), member_id("host-a:8787"));
        assert!(one.starts_with("host-a:8787~") && one.len() == "host-a:8787~".len() + 8, "{one}");
        assert_ne!(one, other);
        for (one, other, same) in [
            ("a:1~00000000", "a:1~11111111", true),
            ("a:1~00000000", "a:2~00000000", false),
            ("a:1", "a:1", false),
            ("a:1~0", "", false),
        ] {
            assert_eq!(same_place(one, other), same, "{one} {other}");
        }
        assert!(member_id("fe80::1%eth0/~x").starts_with("fe80::1_eth0__x~"));
    }

    #[test]
    fn cards_of_neighbouring_versions_are_read() {
        let card = MemberCard {
            id: "a:1~0".into(),
            url: Some("http://a:1".into()),
            host: "a".into(),
            pid: 7,
            version: "1.2.3".into(),
            store_id: "s".into(),
            store_url: "sqlite://s.db".into(),
            configuration_version: "9".into(),
            refuses: None,
            configuration_since: Some("2026-11-22T02:31:00Z".parse().unwrap()),
            schedules: Some(12),
            unrecorded_since: None,
            started: Some("2026-11-22T02:30:00Z".parse().unwrap()),
        };
        assert_eq!(read_card("a:1~0", &write_card(&card)), Some(card));
        let newer = read_card("b:1~0", br#"{"id": "liar", "pid": 3, "zone": "eu"}"#).expect("a card");
        assert_eq!((newer.id.as_str(), newer.pid, newer.host.as_str()), ("b:1~0", 3, ""));
        for rubbish in [&b""[..], b"null", b"[1]", b"\xff", br#"{"pid": "seven"}"#] {
            assert_eq!(read_card("c:1~0", rubbish), None, "{}", String::from_utf8_lossy(rubbish));
        }
    }
}
