//! Which faults there are, and which of them a seed draws: a plan, made before anything runs.

use std::fmt;
use std::time::Duration;

use crate::support::random::Random;

/// How fast ZooKeeper notices that somebody is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How long a member's session lives without a sign of life.
    pub(crate) session: Duration,
    /// ZooKeeper's `tickTime`: sessions expire on a whole one.
    pub(crate) tick: Duration,
}

impl Timing {
    /// Short, so that many faults fit in an hour.
    pub(crate) const SHORT: Self = Self { session: Duration::from_secs(2), tick: Duration::from_millis(250) };
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGTERM to the leader, which hands over; it is started again.
    HandOver,
    /// SIGKILL to the leader; it is started again.
    KillLeader,
    /// SIGSTOP to the leader until its session is over, while Airflow's side holds its requests; then
    /// it goes on, and its requests arrive.
    FreezeLeader,
    /// The leader's connections to ZooKeeper are reset, and new ones refused.
    CutLeader,
    /// Nothing passes between the leader and ZooKeeper, in connections that stay open.
    SilenceLeader,
    /// A member that does not lead loses ZooKeeper.
    CutStandby,
    /// The leader's connections to PostgreSQL are reset, in the middle of what they do.
    ResetStore,
    /// SIGKILL to the leader of the ensemble; it is started again.
    KillZooKeeperLeader,
    /// SIGKILL to every server of the ensemble; they are started again.
    StopEnsemble,
    /// PostgreSQL is stopped in order and started again.
    RestartPostgres,
    /// SIGKILL to every process of PostgreSQL; it recovers.
    KillPostgres,
    /// SIGKILL to every member; they are started again.
    KillMembers,
    /// PostgreSQL is gone for longer than anybody waits for an answer.
    StopPostgres,
    /// PostgreSQL answers, and refuses every write as it does when its disk is full.
    FillDisk,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::HandOver,
        Self::KillLeader,
        Self::FreezeLeader,
        Self::CutLeader,
        Self::SilenceLeader,
        Self::CutStandby,
        Self::ResetStore,
        Self::KillZooKeeperLeader,
        Self::StopEnsemble,
        Self::RestartPostgres,
        Self::KillPostgres,
        Self::KillMembers,
        Self::StopPostgres,
        Self::FillDisk,
    ];

    /// Faults of the leader are what failover is about, so they are drawn twice as often as others;
    /// those that last long are rare.
    fn weight(self) -> usize {
        match self {
            Self::HandOver | Self::KillLeader | Self::FreezeLeader | Self::CutLeader | Self::SilenceLeader => 8,
            Self::StopPostgres | Self::FillDisk => 1,
            _ => 4,
        }
    }

    /// How long it may last until it is healed, in milliseconds. Around the timeout of a session, so
    /// that some faults are over before it is and others are not.
    fn lasts(self, timing: Timing) -> (u64, u64) {
        let session = u64::try_from(timing.session.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::HandOver | Self::ResetStore => (0, 1),
            Self::KillLeader => (0, session + 500),
            Self::FreezeLeader => (session + 500, session + 1500),
            Self::CutLeader | Self::SilenceLeader | Self::CutStandby => (300, session + 2000),
            Self::KillZooKeeperLeader | Self::RestartPostgres | Self::KillPostgres => (0, 800),
            Self::StopEnsemble | Self::KillMembers => (300, session + 500),
            Self::StopPostgres => (15_000, 30_000),
            Self::FillDisk => (10_000, 20_000),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HandOver => "SIGTERM to the leader",
            Self::KillLeader => "SIGKILL to the leader",
            Self::FreezeLeader => "SIGSTOP to the leader, then SIGCONT",
            Self::CutLeader => "leader cut from ZooKeeper, reset",
            Self::SilenceLeader => "leader cut from ZooKeeper, silent",
            Self::CutStandby => "standby cut from ZooKeeper",
            Self::ResetStore => "leader's connections to PostgreSQL reset",
            Self::KillZooKeeperLeader => "SIGKILL to ZooKeeper's leader",
            Self::StopEnsemble => "SIGKILL to the whole ensemble",
            Self::RestartPostgres => "PostgreSQL restarted",
            Self::KillPostgres => "SIGKILL to PostgreSQL",
            Self::KillMembers => "SIGKILL to all members",
            Self::StopPostgres => "PostgreSQL gone for 15 to 30 s",
            Self::FillDisk => "PostgreSQL refuses writes for 10 to 20 s",
        })
    }
}

/// One fault, as planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// 1 for the first.
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// Calm before it, so that it comes at any part of a second.
    pub(crate) calm: Duration,
    /// From its beginning until it is healed.
    pub(crate) lasts: Duration,
    /// Chooses among those that it may hit.
    pub(crate) choice: u64,
}

/// The faults of a seed: first one of each of these kinds, then any of them, as many as there are to be.
pub(crate) fn plan(seed: u64, count: usize, among: &[Kind], timing: Timing) -> Vec<Fault> {
    let mut random = Random::new(seed);
    let mut kinds = among.to_vec();
    for last in (1..kinds.len()).rev() {
        let other = random.below(last as u64 + 1);
        kinds.swap(last, usize::try_from(other).expect("an index"));
    }
    let drawn: Vec<Kind> = among.iter().flat_map(|kind| std::iter::repeat_n(*kind, kind.weight())).collect();
    let mut fault = |index: usize| {
        let kind = kinds.get(index).copied().unwrap_or_else(|| random.pick(&drawn));
        let (shortest, longest) = kind.lasts(timing);
        Fault {
            number: index + 1,
            kind,
            calm: random.milliseconds(0, 1000),
            lasts: random.milliseconds(shortest, longest),
            choice: random.below(1 << 16),
        }
    };
    (0..count).map(&mut fault).collect()
}

#[test]
fn a_seed_draws_the_same_faults_again_and_one_of_each_kind_first() {
    assert_eq!(plan(7, 200, &Kind::ALL, Timing::SHORT), plan(7, 200, &Kind::ALL, Timing::SHORT));
    assert_ne!(plan(7, 200, &Kind::ALL, Timing::SHORT), plan(8, 200, &Kind::ALL, Timing::SHORT));
    for seed in 0..20 {
        let faults = plan(seed, 200, &Kind::ALL, Timing::SHORT);
        let mut first: Vec<Kind> = faults.iter().take(Kind::ALL.len()).map(|fault| fault.kind).collect();
        first.sort_unstable();
        assert_eq!(first, Kind::ALL, "seed {seed}");
    }
}
