//! The herald: tells the others what this member runs, and warns of those that are out of step.
//!
//! A card changes only when there is something new to tell: what is behind is told as the time since when,
//! and whoever looks reckons how long that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::in_force::InForce;
use super::member::Member;
use crate::members::{MemberList, SessionState};
use crate::metrics;
use crate::zookeeper::MemberCard;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// From when on a recording that is under way is worth telling: those of a healthy ledger take milliseconds.
const NOT_AT_ONCE: SignedDuration = SignedDuration::from_secs(1);

/// Tells and looks until the process ends.
pub(super) async fn run(member: Arc<Member>) {
    let ending = member.lifecycle.ending();
    let (mut in_force, mut refusals) = (member.board.in_force(), member.refused.subscribe());
    let mut warned = BTreeMap::new();
    loop {
        let set = Arc::clone(&in_force.borrow_and_update());
        let refuses = refusals.borrow_and_update().as_ref().map(|refused| refused.refusal.summary());
        let now = member.clock.now();
        tell(&member, &set, refuses.as_ref(), now);
        let list = member.sight.borrow().list(now);
        metrics::members(
            list.items.iter().filter(|item| item.session == SessionState::Connected).count(),
            list.items.iter().filter(|item| item.warning.is_some()).count(),
        );
        // One voice is enough.
        warned = if member.status.is_leading() { warn(&list, &warned) } else { BTreeMap::new() };
        // The senders live as long as the member.
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            _ = in_force.changed() => {}
            _ = refusals.changed() => {}
        }
    }
}

/// Brings this member's card up to date, in one step: a version beside the time of another one would look
/// like a member that is behind.
fn tell(member: &Member, set: &InForce, refuses: Option<&String>, now: Timestamp) {
    let since = member.board.since();
    let unrecorded_since = member.status.unrecorded_since().filter(|&handed| now.duration_since(handed) >= NOT_AT_ONCE);
    let news = |card: &mut MemberCard| {
        card.configuration_version.clone_from(&set.set.provenance.version);
        card.configuration_since = Some(since);
        card.refuses = refuses.cloned();
        card.schedules = Some(set.schedules.len());
        card.unrecorded_since = unrecorded_since;
    };
    let changed = member.sight.send_if_modified(|sight| {
        let Some(own) = &mut sight.own else { return false };
        let before = own.clone();
        news(own);
        *own != before
    });
    if let Some(membership) = member.membership.as_ref().filter(|_| changed) {
        membership.update(news);
    }
}

/// Warns of each member once, and says when that is over; the warnings that stand.
fn warn(list: &MemberList, warned: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let standing: BTreeMap<String, String> =
        list.items.iter().filter_map(|item| Some((item.id.clone(), item.warning.clone()?))).collect();
    for (id, warning) in standing.iter().filter(|(id, warning)| warned.get(*id) != Some(warning)) {
        tracing::warn!(
            member.id = id,
            hint =
                "look at that member's log and at `flowkeeper members`; all members should have the same definitions",
            "a member is out of step: {warning}"
        );
    }
    for id in warned.keys().filter(|id| !standing.contains_key(*id)) {
        tracing::info!(member.id = id, "a member is in step again, or gone");
    }
    standing
}
