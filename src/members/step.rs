//! Whether a member is in step with the leader: what it says on its card, compared with the leader's.
//!
//! Times on cards are by the clocks of those who wrote them, so a lag is as right as the clocks agree.

use jiff::{SignedDuration, Timestamp};

use crate::zookeeper::MemberCard;

/// How long a member may be behind before that is worth a warning: a change of the definitions takes each
/// member a second or two, and some more until the others have read its card.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// How far a member is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// For how long it has been; zero for one that is not, `None` where its card does not tell.
    pub(super) lag: Option<SignedDuration>,
    /// What is behind, where it has been so for too long.
    pub(super) warning: Option<String>,
}

/// Judges a member. `leader` is the card of the one that leads, where that is alive.
pub(super) fn judge(card: &MemberCard, leader: Option<&MemberCard>, now: Timestamp) -> Step {
    if card.configuration_version.is_empty() {
        return Step { lag: None, warning: None };
    }
    let since = |at: Timestamp| now.duration_since(at).max(SignedDuration::ZERO);
    let other = leader.filter(|leader| {
        !leader.configuration_version.is_empty() && leader.configuration_version != card.configuration_version
    });
    // They differ since the later of the two changed over. A member of a version before does not say when,
    // and cannot change over while it runs.
    let changed = |card: &MemberCard| card.configuration_since.or(card.started);
    let definitions = other.map(|leader| (leader, changed(card).max(changed(leader)).map(since)));
    let unrecorded = card.unrecorded_since.map(since);
    let mut warnings = Vec::new();
    if let Some((leader, lag)) = definitions
        && lag.is_none_or(|lag| lag > PATIENCE)
    {
        warnings.push(format!(
            "it runs the definitions {}, and the leader {}",
            card.configuration_version, leader.configuration_version
        ));
    }
    if unrecorded.is_some_and(|lag| lag > PATIENCE) {
        warnings.push("what came due is not recorded: the ledger is slow, or does not answer".to_owned());
    }
    let lag = match (definitions, unrecorded) {
        (Some((_, lag)), unrecorded) => lag.max(unrecorded),
        (None, unrecorded) => Some(unrecorded.unwrap_or_default()),
    };
    Step { lag, warning: (!warnings.is_empty()).then(|| warnings.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    fn card(version: &str, since: Option<i64>) -> MemberCard {
        MemberCard {
            configuration_version: version.into(),
            configuration_since: since.map(at),
            started: Some(at(0)),
            ..MemberCard::default()
        }
    }

    #[test]
    fn a_member_is_behind_since_it_or_the_leader_changed_over() {
        let differs = Some("it runs the definitions a, and the leader b");
        let unrecorded = Some("what came due is not recorded: the ledger is slow, or does not answer");
        let behind = |since| MemberCard { unrecorded_since: Some(at(since)), ..card("a", Some(10)) };
        // Member, leader, lag and warning at second 100.
        let cases = [
            ("the same definitions", card("a", Some(10)), Some(card("a", Some(99))), Some(0), None),
            ("nobody leads", card("a", Some(10)), None, Some(0), None),
            ("the leader changed over just now", card("a", Some(10)), Some(card("b", Some(97))), Some(3), None),
            ("it had five seconds", card("a", Some(10)), Some(card("b", Some(95))), Some(5), None),
            ("a while ago", card("a", Some(10)), Some(card("b", Some(40))), Some(60), differs),
            ("it changed over, the leader did not", card("a", Some(40)), Some(card("b", Some(10))), Some(60), differs),
            ("a clock is ahead", card("a", Some(10)), Some(card("b", Some(130))), Some(0), None),
            ("it says nothing: since it started", card("a", None), Some(card("b", None)), Some(100), differs),
            ("a card of a version before all of this", card("", None), Some(card("b", Some(10))), None, None),
            ("a leader of a version before all of this", card("a", Some(10)), Some(card("", None)), Some(0), None),
            ("it records in time", behind(98), None, Some(2), None),
            ("it does not", behind(90), None, Some(10), unrecorded),
        ];
        for (case, card, leader, lag, warning) in cases {
            let expected = Step { lag: lag.map(SignedDuration::from_secs), warning: warning.map(ToOwned::to_owned) };
            assert_eq!(judge(&card, leader.as_ref(), at(100)), expected, "{case}");
        }
        let nothing = MemberCard { started: None, ..card("a", None) };
        let leader = MemberCard { started: None, ..card("b", None) };
        assert_eq!(judge(&nothing, Some(&leader), at(100)), Step { lag: None, warning: differs.map(Into::into) });
    }
}
