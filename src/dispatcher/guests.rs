//! Who besides the submitter waits for a place in the pace of an Airflow, and when one of them goes.
//!
//! Runs go first. But a guest that has waited a while takes the next place, so that a long burst of runs
//! does not shut it out; and one whose request hangs does not keep its place, so that no run waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Dispatcher, Message};
use crate::airflow::pace::Load;
use crate::airflow::places::Ask;

/// How long a guest lets runs go first.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest that a guest keeps its place.
const STAY: Duration = Duration::from_secs(2);

impl Dispatcher {
    /// Lets somebody else have a place, until the request is answered or has had it for long enough.
    pub(super) fn admit(&mut self, name: &Arc<str>, moment: Moment) {
        let Some(lanes) = self.airflows.get_mut(name) else { return };
        let Some(over) = self.guests.admit(name, lanes.room(), moment, Instant::now()) else { return };
        lanes.in_flight += 1;
        let (to_loop, airflow) = (self.to_loop.clone(), Arc::clone(name));
        self.requests.spawn(async move {
            // Whether it was answered or not.
            drop(tokio::time::timeout(STAY, over.cancelled()).await);
            // The loop outlives what it spawns.
            let _ = to_loop.send(Message::GuestLeft { airflow });
        });
    }

    /// A guest's place is free. How long it took says nothing of how long a run takes.
    pub(super) fn guest_left(&mut self, name: &Arc<str>) {
        self.guests.left(name);
        if let Some(lanes) = self.airflows.get_mut(name) {
            lanes.pace.on_answer(Load::Unknown, lanes.in_flight, Instant::now());
            lanes.in_flight -= 1;
        }
    }
}

/// Whether runs that could go have gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// They are about to.
    BeforeRuns,
    /// They have: what room there is nobody else wants.
    AfterRuns,
}

/// The guests of every Airflow. One at a time has a place.
#[derive(Default)]
pub(super) struct Guests(HashMap<Arc<str>, Line>);

#[derive(Default)]
struct Line {
    waiting: VecDeque<Ask>,
    is_here: bool,
}

impl Guests {
    /// One more waits.
    pub(super) fn ask(&mut self, ask: Ask) {
        self.0.entry(Arc::clone(&ask.airflow)).or_default().waiting.push_back(ask);
    }

    /// Lets the next one go if it may, given the room that there is; cancelled when its place is free.
    pub(super) fn admit(
        &mut self,
        airflow: &str,
        room: usize,
        moment: Moment,
        now: Instant,
    ) -> Option<CancellationToken> {
        let line = self.0.get_mut(airflow)?;
        loop {
            let waited = now.saturating_duration_since(line.waiting.front()?.since);
            if !may_go(waited, room, line.is_here, moment) {
                return None;
            }
            // Who does not wait any more is passed over.
            if let Some(over) = line.waiting.pop_front()?.grant() {
                line.is_here = true;
                return Some(over);
            }
        }
    }

    /// A place is free again.
    pub(super) fn left(&mut self, airflow: &str) {
        if let Some(line) = self.0.get_mut(airflow) {
            line.is_here = false;
        }
    }
}

fn may_go(waited: Duration, room: usize, another_is_here: bool, moment: Moment) -> bool {
    room > 0 && !another_is_here && (moment == Moment::AfterRuns || waited >= PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::airflow::places::{self, Place};

    #[test]
    fn runs_go_first_but_not_for_ever() {
        use Moment::{AfterRuns, BeforeRuns};
        let (soon, late) = (Duration::ZERO, PATIENCE);
        for (waited, room, another, moment, expected) in [
            (soon, 1, false, BeforeRuns, false),
            (soon, 1, false, AfterRuns, true),
            (late, 1, false, BeforeRuns, true),
            (late, 0, false, BeforeRuns, false),
            (soon, 0, false, AfterRuns, false),
            (late, 3, true, BeforeRuns, false),
            (late, 3, true, AfterRuns, false),
        ] {
            assert_eq!(may_go(waited, room, another, moment), expected, "{waited:?} {room} {another} {moment:?}");
        }
    }

    #[tokio::test]
    async fn one_at_a_time_has_a_place_and_who_has_gone_gets_none() {
        let (places, mut asks) = places::open();
        let main: Arc<str> = "main".into();
        let ask = || {
            let (places, main) = (places.clone(), Arc::clone(&main));
            tokio::spawn(async move { places.take(&main).await })
        };
        let mut guests = Guests::default();
        let gone = ask();
        guests.ask(asks.recv().await.expect("an ask"));
        gone.abort();
        assert!(gone.await.is_err());
        let (first, now) = (ask(), Instant::now());
        guests.ask(asks.recv().await.expect("an ask"));
        let second = ask();
        guests.ask(asks.recv().await.expect("an ask"));
        assert!(guests.admit("other", 1, Moment::AfterRuns, now).is_none());
        let over = guests.admit("main", 1, Moment::AfterRuns, now).expect("a place");
        let place: Place = first.await.expect("no panic").expect("a place");
        assert!(guests.admit("main", 1, Moment::AfterRuns, now).is_none(), "one is here");
        drop(place);
        over.cancelled().await;
        guests.left("main");
        assert!(guests.admit("main", 1, Moment::AfterRuns, now).is_some());
        assert!(second.await.expect("no panic").is_some());
        // Who gives none any more lets nobody wait.
        let third = ask();
        guests.ask(asks.recv().await.expect("an ask"));
        drop(guests);
        assert!(third.await.expect("no panic").is_none());
        drop(asks);
        assert!(places.take(&main).await.is_none());
    }
}
