//! What time the cron trigger believes it is.
//!
//! The wall clock can be set, the boot clock cannot, so comparing the two tells a jump of the wall
//! clock from time that really passed. A jump backwards and a small one forwards are taken as they
//! are. A large jump forwards would make everything up to it due at once, so it is doubted until a
//! witness (the `Date` header of Airflow's answers) agrees; meanwhile the boot clock says how time
//! goes on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::{Clock, awake_time, boot_time};

/// A jump forwards that needs a witness; smaller ones are catch-up like any other.
const DOUBTED_JUMP: SignedDuration = SignedDuration::from_mins(1);

/// Clocks are slewed and read one after the other: less than this is no jump.
const UNREST: SignedDuration = SignedDuration::from_secs(1);

/// Answers what time it is elsewhere, from a clock that is not this machine's.
pub trait TimeWitness: Send + Sync {
    /// The time there; `None` when nobody can be asked now. Takes seconds at most.
    fn time(&self) -> impl Future<Output = Option<Timestamp>> + Send;

    /// What time it is there now, by what it has said before; `None` when it has said nothing yet.
    fn heard(&self) -> Option<Timestamp>;
}

/// What happened to the time between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeEvent {
    /// The machine slept; the wall clock is right.
    Suspended(SignedDuration),
    /// The wall clock was set forward, and is believed.
    Forward(SignedDuration),
    /// The wall clock was set forward so far that a witness has to be asked.
    Doubted(SignedDuration),
    /// The wall clock was set back.
    Back(SignedDuration),
}

/// What became of a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The witness agrees with the wall clock, which is believed from now on.
    Believed,
    /// The witness does not; time goes on by the boot clock.
    Doubted,
}

/// The three clocks, read together.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Can be set, and jumps.
    pub wall: Timestamp,
    /// Since boot, suspends included.
    pub boot: Duration,
    /// Since boot, suspends left out.
    pub awake: Duration,
}

impl Reading {
    /// Reads them.
    pub fn take(clock: &Clock) -> Self {
        Self { wall: clock.now(), boot: boot_time(), awake: awake_time() }
    }
}

/// Follows the clocks from reading to reading.
#[derive(Debug)]
pub struct Timekeeper {
    last: Reading,
    /// How far the wall clock is ahead of what is believed.
    doubt: SignedDuration,
}

impl Timekeeper {
    /// Begins. A change of the leader is a change of the clock: where a witness was `heard` and the wall
    /// clock is far ahead of it, that is doubted like a jump; otherwise the wall clock is believed.
    pub fn new(first: Reading, heard: Option<Timestamp>) -> Self {
        let ahead = heard.map_or(SignedDuration::ZERO, |witness| first.wall.duration_since(witness));
        Self { last: first, doubt: if ahead > DOUBTED_JUMP { ahead } else { SignedDuration::ZERO } }
    }

    /// The believed time of the latest reading.
    pub fn now(&self) -> Timestamp {
        self.last.wall.saturating_sub(self.doubt).unwrap_or(self.last.wall)
    }

    /// Whether a witness has to be asked.
    pub fn is_in_doubt(&self) -> bool {
        !self.doubt.is_zero()
    }

    /// Takes a reading; [`Self::now`] is its time.
    pub fn observe(&mut self, reading: Reading) -> Option<TimeEvent> {
        let passed = elapsed(self.last.boot, reading.boot);
        let slept = passed.saturating_sub(elapsed(self.last.awake, reading.awake));
        let jump = reading.wall.duration_since(self.last.wall).saturating_sub(passed);
        self.last = reading;
        if jump > DOUBTED_JUMP {
            self.doubt = self.doubt.saturating_add(jump);
            return Some(TimeEvent::Doubted(jump));
        }
        if jump > UNREST {
            return Some(TimeEvent::Forward(jump));
        }
        if jump < -UNREST {
            // Setting a doubted clock right again is no jump of what is believed.
            let back = jump.saturating_add(self.doubt);
            self.doubt = back.max(SignedDuration::ZERO);
            if self.doubt < UNREST {
                self.doubt = SignedDuration::ZERO;
            }
            return (back < -UNREST).then_some(TimeEvent::Back(back.abs()));
        }
        (slept > UNREST).then_some(TimeEvent::Suspended(slept))
    }

    /// Decides a doubt by what a witness said at the time of the latest reading.
    pub fn hear(&mut self, witness: Timestamp) -> Verdict {
        let to_wall = witness.duration_since(self.last.wall).abs();
        let to_believed = witness.duration_since(self.now()).abs();
        if to_wall < to_believed && to_wall < DOUBTED_JUMP {
            self.doubt = SignedDuration::ZERO;
            Verdict::Believed
        } else {
            Verdict::Doubted
        }
    }
}

fn elapsed(from: Duration, to: Duration) -> SignedDuration {
    SignedDuration::try_from(to.saturating_sub(from)).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    /// Steps of (wall, boot, awake) in seconds, and what each shows.
    fn run(keeper: &mut Timekeeper, steps: &[(i64, u64, u64, Option<TimeEvent>)]) {
        for (wall, boot, awake, expected) in steps {
            let reading = Reading {
                wall: keeper.last.wall + seconds(*wall),
                boot: keeper.last.boot + Duration::from_secs(*boot),
                awake: keeper.last.awake + Duration::from_secs(*awake),
            };
            assert_eq!(keeper.observe(reading), *expected, "{wall} {boot} {awake}");
        }
    }

    fn start() -> Timekeeper {
        let wall = "2026-11-22T10:00:00Z".parse().expect("a time");
        Timekeeper::new(Reading { wall, boot: Duration::from_secs(500), awake: Duration::from_secs(400) }, None)
    }

    fn since_start(keeper: &Timekeeper) -> SignedDuration {
        keeper.now().duration_since(start().now())
    }

    #[test]
    fn jumps_are_told_from_time_that_passed() {
        let mut keeper = start();
        run(
            &mut keeper,
            &[
                (1, 1, 1, None),
                (3600, 3600, 3600, None),
                (3600, 3600, 1, Some(TimeEvent::Suspended(seconds(3599)))),
                (31, 1, 1, Some(TimeEvent::Forward(seconds(30)))),
                (-30, 1, 1, Some(TimeEvent::Back(seconds(31)))),
                (2, 1, 1, None),
            ],
        );
        assert!(!keeper.is_in_doubt());
        assert_eq!(since_start(&keeper), seconds(7204));
    }

    #[test]
    fn a_large_jump_forwards_waits_for_a_witness() {
        let mut keeper = start();
        run(&mut keeper, &[(7201, 1, 1, Some(TimeEvent::Doubted(seconds(7200)))), (10, 10, 10, None)]);
        // Time goes on by the boot clock.
        assert_eq!(since_start(&keeper), seconds(11));
        assert_eq!(keeper.hear(keeper.now() + seconds(2)), Verdict::Doubted);
        // A witness that agrees with neither proves nothing.
        assert_eq!(keeper.hear(keeper.now() + seconds(86_400)), Verdict::Doubted);
        assert_eq!(keeper.hear(keeper.now() - seconds(86_400)), Verdict::Doubted);
        assert!(keeper.is_in_doubt());
        assert_eq!(keeper.hear(keeper.now() + seconds(7197)), Verdict::Believed);
        assert_eq!(since_start(&keeper), seconds(7211));
    }

    #[test]
    fn a_member_whose_clock_is_ahead_begins_in_doubt() {
        let wall: Timestamp = "2026-11-22T11:00:00Z".parse().expect("a time");
        let first = Reading { wall, boot: Duration::from_secs(500), awake: Duration::from_secs(400) };
        // (how far the wall clock is ahead of the witness, how much of it is not believed), in seconds
        for (ahead, doubted) in [(3600, 3600), (61, 61), (60, 0), (1, 0), (0, 0), (-3600, 0)] {
            let keeper = Timekeeper::new(first, Some(wall - seconds(ahead)));
            assert_eq!(keeper.now(), wall - seconds(doubted), "{ahead}");
            assert_eq!(keeper.is_in_doubt(), doubted > 0, "{ahead}");
        }
        assert_eq!(Timekeeper::new(first, None).now(), wall, "nobody was heard");

        // The witness stands by its word; and when the clock is set right, nothing has happened.
        let mut keeper = Timekeeper::new(first, Some(wall - seconds(3600)));
        assert_eq!(keeper.hear(wall - seconds(3599)), Verdict::Doubted);
        run(&mut keeper, &[(-3599, 1, 1, None)]);
        assert!(!keeper.is_in_doubt());
        assert_eq!(keeper.now(), wall - seconds(3599));
        // It was the witness that was wrong.
        let mut keeper = Timekeeper::new(first, Some(wall - seconds(3600)));
        assert_eq!(keeper.hear(wall - seconds(2)), Verdict::Believed);
        assert_eq!(keeper.now(), wall);
    }

    #[test]
    fn a_doubted_clock_may_be_set_right_again() {
        let mut keeper = start();
        run(&mut keeper, &[(7201, 1, 1, Some(TimeEvent::Doubted(seconds(7200)))), (-7199, 1, 1, None)]);
        assert!(!keeper.is_in_doubt());
        assert_eq!(since_start(&keeper), seconds(2));

        let mut keeper = start();
        run(
            &mut keeper,
            &[
                (7201, 1, 1, Some(TimeEvent::Doubted(seconds(7200)))),
                (-3599, 1, 1, None),
                (1801, 1, 1, Some(TimeEvent::Doubted(seconds(1800)))),
            ],
        );
        assert_eq!(since_start(&keeper), seconds(3));
        run(&mut keeper, &[(-5499, 1, 1, Some(TimeEvent::Back(seconds(100))))]);
        assert_eq!(since_start(&keeper), seconds(-96));
    }

    #[test]
    fn the_real_clocks_agree() {
        let clock = Clock::system();
        let mut keeper = Timekeeper::new(Reading::take(&clock), None);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(keeper.observe(Reading::take(&clock)), None);
        assert!(clock.now().duration_since(keeper.now()) < UNREST);
    }
}
