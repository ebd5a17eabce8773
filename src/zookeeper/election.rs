//! What a member does in an election, given who queues.
//!
//! The layout is that of Curator's `LeaderLatch`: each contender makes an ephemeral sequential znode
//! `leader/_c_{guid}-latch-{number}` with its id as data, the lowest number leads, and each of the
//! others watches the one before it only. Pure: a queue goes in, the next step comes out.

use super::contender::Contender;
use super::registry::same_place;

/// One of those that queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) contender: Contender,
    /// Whose it is; `None` if that could not be read.
    pub(super) member: Option<String>,
}

/// The member that asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// Its id.
    pub(super) id: &'a str,
    /// What its znode is recognised by. Drawn anew for each session, and each time that the member
    /// withdraws, so a znode that carries it is the one that counts.
    pub(super) guid: &'a str,
    /// Whether it wants to lead.
    pub(super) stands: bool,
    /// Whether this is the first look of this process. What an earlier process at this place left
    /// behind is cleared away now and not later: should two live members claim one place, each then
    /// pushes the other out once, not for ever.
    pub(super) first_look: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Delete these znodes and look again.
    Delete(Vec<String>),
    /// Make a znode and look again.
    Enter,
    /// Nothing: the member is first, with this znode.
    Lead(String),
    /// Wait until this znode, the one before, goes.
    Follow(String),
    /// Nothing: the member does not stand.
    StandAside,
}

/// The next step of a member that sees this queue, which is in order. Znodes that it must not delete
/// are `kept`: they go when the servers end the session that made them.
pub(super) fn next_step(queue: &[Seat], candidate: Candidate<'_>, kept: impl Fn(&str) -> bool) -> Step {
    let is_own = |seat: &Seat| seat.contender.is_of(candidate.guid);
    let own = queue.iter().position(is_own);
    let outdated = queue.iter().enumerate().filter(|&(at, seat)| {
        if is_own(seat) {
            // A second one is there if a request was repeated whose answer was lost.
            return !candidate.stands || Some(at) != own;
        }
        seat.member
            .as_deref()
            .is_some_and(|member| member == candidate.id || (candidate.first_look && same_place(member, candidate.id)))
    });
    let outdated: Vec<_> = outdated.map(|(_, seat)| seat.contender.name.clone()).filter(|name| !kept(name)).collect();
    match own {
        _ if !outdated.is_empty() => Step::Delete(outdated),
        _ if !candidate.stands => Step::StandAside,
        None => Step::Enter,
        Some(0) => Step::Lead(queue[0].contender.name.clone()),
        Some(at) => Step::Follow(queue[at - 1].contender.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::contender::in_order;
    use super::*;

    /// A queue of `guid-number member`; a member `?` could not be read.
    fn queue(seats: &[&str]) -> Vec<Seat> {
        seats
            .iter()
            .map(|seat| {
                let (name, member) = seat.split_once(' ').expect("name and member");
                let (guid, number) = name.split_once('-').expect("guid and number");
                let name = format!("_c_{guid}-latch-{number:0>10}");
                let contender = in_order([name.as_str()]).remove(0);
                Seat { contender, member: (member != "?").then(|| member.to_owned()) }
            })
            .collect()
    }

    fn name(seat: &str) -> String {
        queue(&[&format!("{seat} ?")]).remove(0).contender.name
    }

    #[test]
    fn each_sight_of_the_queue_has_one_answer() {
        let (me, last_life, other) = ("a:1~me", "a:1~old", "b:1~x");
        let stands = Candidate { id: me, guid: "g", stands: true, first_look: false };
        let first_look = Candidate { first_look: true, ..stands };
        let aside = Candidate { stands: false, ..stands };
        let delete = |seats: &[&str]| Step::Delete(seats.iter().map(|seat| name(seat)).collect());
        let follow = |seat: &str| Step::Follow(name(seat));
        let lead = |seat: &str| Step::Lead(name(seat));
        let mine = |seat: &str| format!("{seat} {me}");
        let old = |seat: &str| format!("{seat} {last_life}");
        let theirs = |seat: &str| format!("{seat} {other}");
        let cases: Vec<(&str, Candidate<'_>, Vec<String>, Step)> = vec![
            ("nobody is there", stands, vec![], Step::Enter),
            ("others are there", stands, vec![theirs("x-1")], Step::Enter),
            ("alone", stands, vec![mine("g-1")], lead("g-1")),
            ("first of two", stands, vec![mine("g-1"), theirs("x-2")], lead("g-1")),
            ("second of two", stands, vec![theirs("x-1"), mine("g-2")], follow("x-1")),
            ("third watches the second", stands, vec![theirs("x-1"), theirs("y-2"), mine("g-3")], follow("y-2")),
            ("the one before has no readable id", stands, vec!["x-1 ?".into(), mine("g-2")], follow("x-1")),
            ("its own id could not be read", stands, vec!["g-1 ?".into()], lead("g-1")),
            ("does not stand", aside, vec![theirs("x-1")], Step::StandAside),
            ("does not stand, nobody does", aside, vec![], Step::StandAside),
            ("withdraws", aside, vec![mine("g-1"), theirs("x-2")], delete(&["g-1"])),
            (
                "withdraws what an earlier session made, too",
                aside,
                vec![mine("f-1"), mine("g-2")],
                delete(&["f-1", "g-2"]),
            ),
            ("a session before left its znode", stands, vec![mine("f-1")], delete(&["f-1"])),
            ("a session before left its znode, in front", stands, vec![mine("f-1"), mine("g-2")], delete(&["f-1"])),
            ("a request was repeated", stands, vec![mine("g-1"), theirs("x-2"), mine("g-3")], delete(&["g-3"])),
            ("the last life left its znode", first_look, vec![old("o-1")], delete(&["o-1"])),
            ("the same later: another member claims the place", stands, vec![old("o-1"), mine("g-2")], follow("o-1")),
            ("at first sight others are left alone", first_look, vec![theirs("x-1")], Step::Enter),
            ("a guid that only begins alike", stands, vec![theirs("gg-1")], Step::Enter),
        ];
        for (case, candidate, seats, expected) in cases {
            let queue = queue(&seats.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(next_step(&queue, candidate, |_| false), expected, "{case}");
        }
    }

    #[test]
    fn what_must_not_be_deleted_is_waited_for() {
        let stands = Candidate { id: "a:1~me", guid: "g", stands: true, first_look: true };
        let queue = queue(&["o-1 a:1~old", "g-2 a:1~me"]);
        assert_eq!(next_step(&queue, stands, |_| true), Step::Follow(name("o-1")));
        assert_eq!(next_step(&queue[..1], stands, |_| true), Step::Enter);
    }
}
