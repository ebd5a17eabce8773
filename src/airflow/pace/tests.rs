//! The limit against simulated Airflows, whose behaviour was measured on real ones.

use super::*;

/// A server that shares its speed among the requests in flight.
struct Server {
    /// Throughput with so many in flight, in requests a second.
    rate: fn(usize) -> f64,
    /// Whether a request that joins others that began earlier stops everything for five seconds, and
    /// fails.
    stalls: bool,
    /// From this many in flight on, one in eight fails.
    fails_from: usize,
    /// How far the work of a request is from the average: 0.5 is half to one and a half.
    noise: f64,
}

/// Measured on Airflow 3 with `SQLite`: pairs that start together take turns and lose a little.
const SQLITE: Server = Server { rate: |n| if n == 1 { 43.0 } else { 33.0 }, stalls: true, fails_from: 3, noise: 0.4 };

/// Measured on Airflow 3 with `PostgreSQL`, and what lies between.
const POSTGRES: Server = Server {
    rate: |n| match n {
        1 => 25.9,
        2 => 36.0,
        3 => 40.5,
        4 => 43.3,
        5..=8 => 40.0,
        9..=16 => 33.1,
        _ => 5.7,
    },
    stalls: false,
    fails_from: 32,
    noise: 0.5,
};

/// A stand-in that answers within 0.1 ms, on two cores.
const FAST: Server = Server {
    rate: |n| match n {
        1 => 6_000.0,
        2..=3 => 10_000.0,
        4..=7 => 14_000.0,
        8..=15 => 17_000.0,
        _ => 18_000.0,
    },
    stalls: false,
    fails_from: usize::MAX,
    noise: 0.5,
};

struct Request {
    began: f64,
    work: f64,
    stalled_until: f64,
    fails: bool,
}

struct World {
    server: Server,
    start: Instant,
    clock: f64,
    random: u64,
}

impl World {
    fn new(server: Server, seed: u64) -> Self {
        Self { server, start: Instant::now(), clock: 0.0, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    #[expect(clippy::cast_precision_loss, reason = "a random number")]
    fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.clock)
    }

    /// Answers `total` requests that are all waiting already; the seconds that it took. What fails is
    /// sent again. Ten minutes are for ever.
    fn burst(&mut self, pace: &mut Pace, total: usize) -> f64 {
        let begin = self.clock;
        let (mut waiting, mut open): (usize, Vec<Request>) = (total, Vec::new());
        while waiting + open.len() > 0 {
            if self.clock - begin > 600.0 {
                return f64::INFINITY;
            }
            for _ in 0..pace.room(open.len()).min(waiting) {
                waiting -= 1;
                let joins = open.iter().any(|other| self.clock - other.began > 1e-3);
                let stalls = self.server.stalls && (joins || open.len() >= 2);
                if stalls {
                    for other in &mut open {
                        other.stalled_until = self.clock + 5.0;
                    }
                }
                let draw = self.draw();
                let fails = stalls || open.len() + 1 >= self.server.fails_from && draw < 0.125;
                let work = 1.0 + (self.draw() - 0.5) * 2.0 * self.server.noise;
                let stalled_until = if stalls { self.clock + 5.0 } else { 0.0 };
                open.push(Request { began: self.clock, work, stalled_until, fails });
            }
            // Runs until the next one is through.
            #[expect(clippy::cast_precision_loss, reason = "few requests")]
            let speed = (self.server.rate)(open.len()) / open.len() as f64;
            let end = |request: &Request| request.stalled_until.max(self.clock) + request.work / speed;
            let (next, at) =
                open.iter().map(end).enumerate().min_by(|left, right| left.1.total_cmp(&right.1)).expect("one is open");
            for request in &mut open {
                let worked = (at - request.stalled_until.max(self.clock)).max(0.0);
                request.work = (request.work - worked * speed).max(0.0);
            }
            self.clock = at;
            let done = open.swap_remove(next);
            let round_trip = Duration::from_secs_f64(self.clock - done.began);
            let load = if done.fails { Load::Overloaded } else { Load::Fine { round_trip } };
            waiting += usize::from(done.fails);
            pace.on_answer(load, open.len() + 1, self.now());
        }
        self.clock - begin
    }
}

/// The shortest time of any fixed limit, over some seeds.
fn best_fixed(server: fn() -> Server, total: usize) -> f64 {
    let limits = [1, 2, 3, 4, 6, 8, 12, 16, 32, 64];
    let time = |limit: u32| {
        let mut pace = Pace::fixed(NonZeroU32::new(limit).expect("not zero"));
        World::new(server(), 7).burst(&mut pace, total)
    };
    limits.into_iter().map(time).fold(f64::INFINITY, f64::min)
}

/// The mean, over many seeds, of how near a burst comes to the best fixed limit: the first, and one
/// a minute later.
fn shares(server: fn() -> Server, total: usize) -> (f64, f64) {
    let best = best_fixed(server, total);
    let seeds = 1..=40;
    let mut sums = (0.0, 0.0);
    for seed in seeds.clone() {
        let (mut world, mut pace) = (World::new(server(), seed), Pace::auto());
        sums.0 += best / world.burst(&mut pace, total);
        world.clock += 60.0;
        sums.1 += best / world.burst(&mut pace, total);
    }
    let count = f64::from(u32::try_from(seeds.count()).expect("few"));
    (sums.0 / count, sums.1 / count)
}

#[test]
fn an_airflow_on_sqlite_is_never_made_to_stall() {
    let (first, later) = shares(|| SQLITE, 500);
    assert!(first > 0.95 && later > 0.95, "{first} {later}");
}

#[test]
fn an_airflow_on_postgresql_gets_what_it_can_take() {
    let (first, later) = shares(|| POSTGRES, 500);
    assert!(first > 0.87 && later > 0.93, "{first} {later}");
}

#[test]
fn a_fast_stand_in_is_used_fast() {
    let (first, later) = shares(|| FAST, 5000);
    assert!(first > 0.85 && later > 0.9, "{first} {later}");
}

#[test]
fn errors_halve_the_limit_once_for_all_that_was_in_flight() {
    let mut pace = Pace::auto();
    World::new(FAST, 3).burst(&mut pace, 20_000);
    let before = pace.limit();
    assert!(before >= 8, "{before}");
    let now = Instant::now() + Duration::from_mins(1);
    for in_flight in (1..=before).rev() {
        pace.on_answer(Load::Overloaded, in_flight, now);
    }
    assert!((before / 2..=before).contains(&pace.limit()) && pace.limit() < before, "{before} {}", pace.limit());
}

#[test]
fn an_airflow_that_is_away_is_asked_one_by_one_or_as_before() {
    let mut pace = Pace::auto();
    for _ in 0..100 {
        pace.on_answer(Load::Unknown, 1, Instant::now());
        pace.on_answer(Load::Overloaded, 1, Instant::now());
    }
    assert_eq!(pace.limit(), 1);
}

#[test]
fn a_second_request_never_joins_a_single_one() {
    let mut pace = Pace::auto();
    let fine = Load::Fine { round_trip: Duration::from_millis(13) };
    for _ in 0..200 {
        // Nothing waits when the answer comes, and something comes while the next is under way.
        assert_eq!(pace.room(1), 0);
        pace.on_answer(fine, 1, Instant::now());
    }
}

#[test]
fn a_given_limit_stays() {
    let mut pace = Pace::fixed(NonZeroU32::new(3).expect("not zero"));
    pace.on_answer(Load::Overloaded, 3, Instant::now());
    assert_eq!((pace.limit(), pace.room(2), pace.room(5)), (3, 1, 0));
}
