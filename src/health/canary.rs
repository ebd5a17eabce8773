//! The canary: does what clients do, and tells how long it took.
//!
//! It opens a session with every server. Through each it makes an ephemeral znode that a watch on
//! another server must tell of, sets its data, reads it there after a sync, and deletes it (the design
//! is that of zk-smoketest). A step that fails ends the trip. It never leaves a znode: what it did not
//! delete goes with its session, at the latest when that times out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::facts::{Answer, CanaryFacts, Mode, Sample, Step, Trip, TripEnd};
use super::patience::Patience;
use super::sample::words;
use crate::clock::Clock;
use crate::domain::health::canary_name;
use crate::zookeeper::{Lifetime, Settings, Visit, ZooKeeperError};

/// What the znode holds first, and then.
const FIRST: &[u8] = b"flowkeeper";
const THEN: &[u8] = b"flowkeeper looks whether this ensemble works";

/// Sends the canary.
pub(super) struct Canary {
    settings: Settings,
    parent: String,
    patience: Patience,
    clock: Clock,
}

/// A session with a server, or why there is none.
struct Perch {
    server: Arc<str>,
    opened: Result<(Visit, Duration), TripEnd>,
}

impl Canary {
    /// A canary that works below `parent`, and takes no longer than `patience` has.
    pub(super) fn new(settings: &Settings, parent: &str, patience: Patience, clock: Clock) -> Self {
        let parent = parent.trim_end_matches('/').to_owned();
        Self { settings: settings.clone(), parent, patience, clock }
    }

    /// Visits every server that serves, all at the same time.
    pub(super) async fn fly(&self, sample: &Sample) -> CanaryFacts {
        let perches = sample.servers.iter().map(|server| async {
            let serves = server.answer == Answer::Serves && server.mode() != Some(&Mode::ReadOnly);
            let opened = if serves {
                self.open(&server.server).await
            } else {
                Err(TripEnd::NotSent("the server does not take clients that write".to_owned()))
            };
            Perch { server: Arc::clone(&server.server), opened }
        });
        let perches = join_all(perches).await;
        let trips = join_all((0..perches.len()).map(|index| self.trip(&perches, index))).await;
        let offsets = trips.iter().filter_map(|(_, offset)| *offset);
        let mut facts =
            CanaryFacts { leader_clock_offset_ms: offsets.max_by_key(|offset| offset.abs()), ..CanaryFacts::default() };
        facts.trips = trips.into_iter().map(|(trip, _)| trip).collect();
        let visits: Vec<Visit> =
            perches.into_iter().filter_map(|perch| perch.opened.ok()).map(|(visit, _)| visit).collect();
        if let (Some(visit), Some(wait)) = (visits.first(), self.patience.at(Instant::now()))
            && let Ok(Ok(Some(text))) = timeout(wait.time, visit.session().members()).await
        {
            facts.members = words::members(&String::from_utf8_lossy(&text));
        }
        join_all(visits.into_iter().map(Visit::close)).await;
        facts
    }

    async fn open(&self, server: &str) -> Result<(Visit, Duration), TripEnd> {
        let started = Instant::now();
        let Some(wait) = self.patience.at(started) else { return Err(TripEnd::OutOfTime(Step::Connect)) };
        match Visit::open(self.settings.only(server), wait.time).await {
            Ok(visit) => Ok((visit, started.elapsed())),
            Err(error) => Err(TripEnd::Failed(Step::Connect, error.to_string())),
        }
    }

    /// One trip, and how far the leader's clock was seen to be from ours.
    async fn trip(&self, perches: &[Perch], index: usize) -> (Trip, Option<i64>) {
        let perch = &perches[index];
        let mut trip = Trip { server: Arc::clone(&perch.server), steps: Vec::new(), end: None };
        let (visit, took) = match &perch.opened {
            Ok(opened) => opened,
            Err(end) => {
                trip.end = Some(end.clone());
                return (trip, None);
            }
        };
        trip.steps.push((Step::Connect, *took));
        // The next server that has a session; on its own a server sees at least itself.
        let others = (1..=perches.len()).map(|step| &perches[(index + step) % perches.len()]);
        let other = others.filter_map(|other| other.opened.as_ref().ok()).map(|(other, _)| other).next();
        let mut offset = None;
        let worked = self.work(visit, other.unwrap_or(visit), &mut trip.steps, &mut offset).await;
        trip.end = worked.err();
        (trip, offset)
    }

    async fn work(
        &self,
        visit: &Visit,
        other: &Visit,
        steps: &mut Vec<(Step, Duration)>,
        offset: &mut Option<i64>,
    ) -> Result<(), TripEnd> {
        let path = format!("{}/{}", self.parent, canary_name());
        let (_, hint) = self.timed(Step::Watch, other.watch(&path)).await?.1;
        let made = Instant::now();
        let (took, _) = self.timed(Step::Create, visit.session().create(&path, FIRST, Lifetime::Ephemeral)).await?;
        steps.push((Step::Create, took));
        self.within(Step::Watch, "event", hint.changed()).await?;
        steps.push((Step::Watch, made.elapsed()));
        let sent = self.clock.now();
        let (took, _) = self.timed(Step::Set, visit.session().set_data(&path, THEN, None)).await?;
        let answered = self.clock.now();
        steps.push((Step::Set, took));
        steps.push((Step::Sync, self.timed(Step::Sync, other.session().sync()).await?.0));
        let (took, read) = self.timed(Step::Get, other.session().get_data(&path)).await?;
        steps.push((Step::Get, took));
        let Some((data, stat)) = read else {
            return Err(TripEnd::Failed(Step::Get, "the other server does not have the znode".to_owned()));
        };
        if data != THEN {
            return Err(TripEnd::Failed(Step::Get, "the other server has other data".to_owned()));
        }
        *offset = Some(outside(stat.mtime_ms, sent.as_millisecond(), answered.as_millisecond()));
        steps.push((Step::Delete, self.timed(Step::Delete, visit.session().delete(&path, 1)).await?.0));
        Ok(())
    }

    /// Does a step, and tells how long it took.
    async fn timed<T>(
        &self,
        step: Step,
        request: impl Future<Output = Result<T, ZooKeeperError>>,
    ) -> Result<(Duration, T), TripEnd> {
        let started = Instant::now();
        match self.within(step, "answer", request).await? {
            Ok(done) => Ok((started.elapsed(), done)),
            Err(ZooKeeperError::NoPermission | ZooKeeperError::NoIdentity) => Err(TripEnd::NotAllowed(step)),
            Err(ZooKeeperError::NoParent) => Err(TripEnd::NotSent(format!("there is no znode {}/", self.parent))),
            Err(error) => Err(TripEnd::Failed(step, error.to_string())),
        }
    }

    /// Waits for `what` a step is to bring, as long as it may.
    async fn within<T>(&self, step: Step, what: &str, coming: impl Future<Output = T>) -> Result<T, TripEnd> {
        let Some(wait) = self.patience.at(Instant::now()) else { return Err(TripEnd::OutOfTime(step)) };
        timeout(wait.time, coming).await.map_err(|_| {
            if wait.is_cut {
                TripEnd::OutOfTime(step)
            } else {
                TripEnd::Failed(step, format!("no {what} came in {:?}", wait.time))
            }
        })
    }
}

/// How far a time is outside of the span in which it was taken; after it is positive.
fn outside(time: i64, earliest: i64, latest: i64) -> i64 {
    if time > latest {
        time - latest
    } else if time < earliest {
        time - earliest
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_by_what_lies_outside_of_the_span() {
        for (time, offset) in [(10, 0), (15, 0), (20, 0), (21, 1), (9, -1), (-90, -100)] {
            assert_eq!(outside(time, 10, 20), offset, "{time}");
        }
    }
}
