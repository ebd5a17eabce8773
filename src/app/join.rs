//! Who may join: members that share a home ensemble share one store.
//!
//! Two stores under one root would each cover the same occurrences, so every run would be asked for
//! twice. The right store is the one that the znode `store` names: its members stay, whoever leads, and
//! others go as soon as one of them is there. Among others, and where the znode names nobody, the
//! leader's store is the right one, and where nobody leads yet, a member that starts gives way to those
//! that were there before it. Pure.

use crate::zookeeper::{Member, MemberCard};

/// The member whose store refuses `own`, if there is one. `joining` is whether this one has yet to be
/// let in, and `owner` the store that the root belongs to.
pub(super) fn refused_by<'m>(
    own: &MemberCard,
    live: &'m [Member],
    joining: bool,
    owner: Option<&str>,
) -> Option<&'m MemberCard> {
    let others = || live.iter().filter(|member| member.card.id != own.id);
    if let Some(owner) = owner {
        if own.store_id == owner {
            return None;
        }
        let owners = others().map(|member| &member.card).find(|card| card.store_id == owner);
        if owners.is_some() {
            return owners;
        }
    }
    if live.iter().any(|member| member.leads && member.card.id == own.id) {
        // It is for the others to leave.
        return None;
    }
    if let Some(leader) = others().find(|member| member.leads) {
        return differs(own, &leader.card).then_some(&leader.card);
    }
    if !joining {
        return None;
    }
    let age = |card: &MemberCard| (card.started, card.id.clone());
    let mut before = others().map(|member| &member.card).filter(|card| age(card) < age(own));
    before.find(|card| differs(own, card))
}

/// Cards of other versions may lack the store; they refuse nobody.
fn differs(own: &MemberCard, other: &MemberCard) -> bool {
    !other.store_id.is_empty() && other.store_id != own.store_id
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    /// `id store started`, with `*` behind the one that is first in the queue.
    fn member(text: &str) -> Member {
        let (text, leads) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        let mut words = text.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (id, store_id) = (word(), word());
        let started = Timestamp::from_second(word().parse().unwrap()).ok();
        Member { card: MemberCard { id, store_id, started, ..MemberCard::default() }, leads }
    }

    #[test]
    fn the_leaders_store_counts_and_before_there_is_one_that_of_those_who_came_first() {
        type Case<'c> = (&'c str, &'c str, &'c [&'c str], bool, Option<&'c str>);
        let cases: [Case<'_>; 13] = [
            ("alone", "me s 5", &["me s 5"], true, None),
            ("not registered yet", "me s 5", &[], true, None),
            ("the leader has the same", "me s 5", &["a s 1*", "me s 5"], true, None),
            ("the leader has another", "me s 5", &["a t 1*", "me s 5"], true, Some("a")),
            ("the leader has another and came later", "me s 5", &["a t 9*", "me s 5"], true, Some("a")),
            ("also later, back from a partition", "me s 5", &["a t 9*", "me s 5"], false, Some("a")),
            ("a standby has another: it is told by itself", "me s 5", &["a s 1*", "b t 2", "me s 5"], true, None),
            ("nobody leads, the other came first", "me s 5", &["a t 1", "me s 5"], true, Some("a")),
            ("nobody leads, the other came later", "me s 5", &["a t 9", "me s 5"], true, None),
            ("both came at once: the ids decide", "me s 5", &["a t 5", "me s 5"], true, Some("a")),
            ("nobody leads, and this one was let in", "me s 5", &["a t 1", "me s 5"], false, None),
            ("this one is first", "me s 5", &["a t 1", "me s 5*"], false, None),
            ("a card without a store", "me s 5", &["a  1*", "me s 5"], true, None),
        ];
        for (case, own, live, joining, expected) in cases {
            let live: Vec<_> = live.iter().map(|text| member(text)).collect();
            let refused = refused_by(&member(own).card, &live, joining, None);
            assert_eq!(refused.map(|card| card.id.as_str()), expected, "{case}");
        }
    }

    #[test]
    fn the_store_that_the_root_belongs_to_stays_whoever_leads() {
        type Case<'c> = (&'c str, &'c str, &'c [&'c str], bool, Option<&'c str>);
        let cases: [Case<'_>; 9] = [
            ("its member comes back and a stranger leads", "me s 5", &["a t 1*", "me s 5"], true, None),
            ("the same, seen by the stranger that leads", "a t 1", &["a t 1*", "me s 5"], false, Some("me")),
            ("a stranger comes and its member leads", "me t 5", &["a s 1*", "me t 5"], true, Some("a")),
            ("a stranger that came first, before anybody led", "me t 1", &["a s 5", "me t 1"], true, Some("a")),
            ("a stranger alone may lead", "me t 5", &["me t 5"], true, None),
            ("a stranger that leads alone goes on", "me t 5", &["me t 5*"], false, None),
            ("two strangers: the one that leads", "me t 5", &["a u 1*", "me t 5"], true, Some("a")),
            ("two strangers of one store", "me t 5", &["a t 1*", "me t 5"], true, None),
            ("all is well", "me s 5", &["a s 1*", "me s 5"], true, None),
        ];
        for (case, own, live, joining, expected) in cases {
            let live: Vec<_> = live.iter().map(|text| member(text)).collect();
            let refused = refused_by(&member(own).card, &live, joining, Some("s"));
            assert_eq!(refused.map(|card| card.id.as_str()), expected, "{case}");
        }
    }

    #[test]
    fn of_two_that_start_at_once_one_gives_way() {
        for (one, other) in [("a s 5", "b t 5"), ("a s 6", "b t 5")] {
            let live = [member(one), member(other)];
            let refused = live.iter().filter(|own| refused_by(&own.card, &live, true, None).is_some()).count();
            assert_eq!(refused, 1, "{one} {other}");
        }
    }
}
