//! What became of a set that was pushed: which members have it in force, and which refuse it.
//!
//! A push is done when ZooKeeper has the set; each member then checks it with its own files and secrets. So
//! the command looks on until all have it or some refuse it. It never waits for long and undoes nothing.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::client::ApiClient;
use crate::members::{MemberList, SessionState};

/// How long members may take: a large set takes each a second or two.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long one look may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// A member that does not take a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Refusing {
    /// Which member.
    pub(super) id: String,
    /// The first fault that it finds.
    pub(super) reason: String,
}

/// Where a set is in force, by the ids of members that are connected with ZooKeeper.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rollout {
    /// They have it.
    pub(super) in_force: Vec<String>,
    /// They have another, and refuse the newest.
    pub(super) refusing: Vec<Refusing>,
    /// They have another still.
    pub(super) waiting: Vec<String>,
}

impl Rollout {
    /// How far the set `version` has come.
    fn of(list: &MemberList, version: &str) -> Self {
        let mut rollout = Self::default();
        for member in list.items.iter().filter(|member| member.session == SessionState::Connected) {
            let id = member.id.clone();
            match &member.refuses {
                // A member goes back to a set that it has had while it refuses the newest: what it has counts.
                _ if member.configuration_version == version => rollout.in_force.push(id),
                Some(reason) => rollout.refusing.push(Refusing { id, reason: reason.clone() }),
                None => rollout.waiting.push(id),
            }
        }
        rollout
    }

    fn members(&self) -> usize {
        self.in_force.len() + self.refusing.len() + self.waiting.len()
    }

    /// Whether nothing more is to be expected. A refusal may be that of the set before, so it is waited for
    /// that too.
    fn is_complete(&self) -> bool {
        self.members() > 0 && self.in_force.len() == self.members()
    }

    /// In a few words.
    pub(super) fn summary(&self) -> String {
        match self.members() {
            0 => "no member is connected with ZooKeeper".to_owned(),
            1 if self.is_complete() => "in force on the only member".to_owned(),
            members if self.is_complete() => format!("in force on all {members} members"),
            members => format!("in force on {} of {members} members", self.in_force.len()),
        }
    }

    /// What a person should look at, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let refusing = self.refusing.iter().map(|Refusing { id, reason }| format!("{id} refuses it: {reason}"));
        let waiting = self
            .waiting
            .iter()
            .map(|id| format!("{id} does not have it yet; `flowkeeper members` shows whether it takes it up"));
        refusing.chain(waiting).collect()
    }
}

/// Looks on until all members have the set `version`, for a few seconds; `None` where nobody tells.
pub(super) async fn follow(api: &ApiClient, version: &str) -> Option<Rollout> {
    let began = Instant::now();
    let mut seen = None;
    loop {
        let asked = tokio::time::timeout(ANSWER_PATIENCE, api.get::<MemberList>(&["members"])).await;
        if let Ok(Ok(list)) = asked {
            let rollout = Rollout::of(&list, version);
            if rollout.is_complete() {
                return Some(rollout);
            }
            seen = Some(rollout);
        }
        if began.elapsed() >= PATIENCE {
            return seen;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::members::{Home, Sight};
    use crate::zookeeper::{Member, MemberCard};

    /// Members by id, version and what they refuse.
    fn list(members: &[(&str, &str, Option<&str>)]) -> MemberList {
        let live = members.iter().map(|(id, version, refuses)| Member {
            card: MemberCard {
                id: (*id).into(),
                configuration_version: (*version).into(),
                refuses: refuses.map(Into::into),
                ..MemberCard::default()
            },
            leads: false,
        });
        Sight { own: None, live: live.collect(), lead: None, home: Home::Connected }.list(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_rollout_is_told_by_who_has_it() {
        let waits = "b does not have it yet; `flowkeeper members` shows whether it takes it up";
        let cases = [
            (list(&[]), "no member is connected with ZooKeeper", false, vec![]),
            (list(&[("a", "new", None)]), "in force on the only member", true, vec![]),
            (list(&[("a", "new", None), ("b", "new", None)]), "in force on all 2 members", true, vec![]),
            (list(&[("a", "new", None), ("b", "old", None)]), "in force on 1 of 2 members", false, vec![waits]),
            (
                list(&[("a", "new", None), ("b", "old", Some("no such file"))]),
                "in force on 1 of 2 members",
                false,
                vec!["b refuses it: no such file"],
            ),
            (list(&[("b", "old", None)]), "in force on 0 of 1 members", false, vec![waits]),
            (list(&[("a", "new", Some("a newer one"))]), "in force on the only member", true, vec![]),
        ];
        for (list, summary, complete, warnings) in cases {
            let rollout = Rollout::of(&list, "new");
            assert_eq!((rollout.summary().as_str(), rollout.is_complete()), (summary, complete), "{list:?}");
            assert_eq!(rollout.warnings(), warnings, "{list:?}");
        }
    }

    #[test]
    fn members_that_are_cut_off_are_not_waited_for() {
        let mut list = list(&[("a", "new", None), ("b", "old", None)]);
        for member in list.items.iter_mut().filter(|member| member.id == "b") {
            member.session = SessionState::Absent;
        }
        assert!(Rollout::of(&list, "new").is_complete());
    }
}
