//! The lookout: reads every second who leads, as the store has it, and keeps what is known of the
//! other members.
//!
//! An idle leader that was replaced while it slept learns it here, without having to write. What is
//! seen is shown to people, tells the API where the leader is, and tells [`super::standing`] whether
//! the store can be reached at all.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::member::Member;
use crate::members::Home;
use crate::metrics;
use crate::store::{Lead, Leadership};
use crate::zookeeper::{self, Membership, Standing};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks until the process ends.
pub(super) async fn run(member: Arc<Member>) {
    let mut news = News::new(&member);
    let ending = member.lifecycle.ending();
    loop {
        let read = async { tokio::time::timeout(PATIENCE, member.ledger.lead()).await };
        let Some(read) = ending.run_until_cancelled(read).await else { return };
        let lead = match read {
            Ok(Ok(lead)) => Some(lead),
            // The writer and the API tell what is wrong with the store; here it only counts.
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "the store does not tell who leads");
                None
            }
            Err(_) => None,
        };
        judge(&member, lead);
        tokio::select! {
            () = ending.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            () = news.arrive() => {}
        }
    }
}

/// Draws the conclusions from one look.
fn judge(member: &Member, lead: Option<Lead>) {
    member.store_silent_since.send_if_modified(|silent_since| {
        let changed = silent_since.is_some() == lead.is_some();
        if changed {
            *silent_since = lead.is_none().then(Instant::now);
        }
        changed
    });
    if let Some(lead) = &lead {
        metrics::epoch(lead.epoch);
        if let Some(held) = member.lead.borrow().as_ref().filter(|held| held.epoch() < lead.epoch) {
            held.give_up();
        }
    }
    let (live, home) = match &member.membership {
        Some(membership) => (membership.members().borrow().to_vec(), home_of(&membership.standing().borrow())),
        None => (Vec::new(), Home::None),
    };
    member.sight.send_if_modified(|sight| {
        let mut seen = sight.clone();
        (seen.live, seen.home) = (live, home);
        // What the store said last is better than nothing.
        seen.lead = lead.or(seen.lead);
        let changed = *sight != seen;
        *sight = seen;
        changed
    });
}

/// What the place in the election tells of the home ensemble.
fn home_of(standing: &Standing) -> Home {
    match standing {
        Standing::Connecting => Home::Connecting,
        Standing::Disconnected { since, reason } => Home::Disconnected { since: Some(*since), reason: reason.clone() },
        Standing::Refused { reason } => Home::Refused { reason: reason.clone() },
        Standing::Standby { .. } | Standing::First => Home::Connected,
    }
}

/// What makes it worth looking at once.
struct News {
    lead: Option<watch::Receiver<Option<Leadership>>>,
    standing: Option<watch::Receiver<Standing>>,
    members: Option<watch::Receiver<Arc<Vec<zookeeper::Member>>>>,
}

impl News {
    fn new(member: &Member) -> Self {
        Self {
            lead: Some(member.lead.subscribe()),
            standing: member.membership.as_ref().map(Membership::standing),
            members: member.membership.as_ref().map(Membership::members),
        }
    }

    async fn arrive(&mut self) {
        tokio::select! {
            () = changed(&mut self.lead) => {}
            () = changed(&mut self.standing) => {}
            () = changed(&mut self.members) => {}
        }
    }
}

/// Waits for a change; for ever where there is nothing that could change.
async fn changed<T>(source: &mut Option<watch::Receiver<T>>) {
    let arrived = match source {
        Some(source) => source.changed().await.is_ok(),
        None => false,
    };
    if !arrived {
        std::future::pending::<()>().await;
    }
}
