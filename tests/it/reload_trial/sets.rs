//! Sets of definitions drawn at random: good ones, of which it is known what they make due, and bad ones.
//!
//! Each set is a round of its own, and every conf tells the round of the set that it was rendered under.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::support::random::Random;

/// The znode whose every version must run, whatever is edited.
pub(crate) const FLAG: &str = "/flag";

/// A subtree that is watched by a rule that is edited.
pub(crate) const TREE: &str = "/tree";

/// The znode below [`TREE`] that each rule is about.
pub(crate) const ALWAYS: &str = "/tree/always";

/// The one that some rules are not about.
pub(crate) const SOMETIMES: &str = "/tree/sometimes";

/// What is due at each step, in every set.
pub(crate) const TICK: &str = "tick";

/// The schedule that is edited, renamed, removed and made again.
pub(crate) const JOB: &str = "job";

/// The names that it goes by.
const JOB_NAMES: [&str; 2] = ["job", "work"];

/// Schedules that come and go.
const EXTRAS: [&str; 3] = ["extra-a", "extra-b", "extra-c"];

/// A DAG has one run of each logical date, and those of [`TICK`] have the nominal time for it.
const BESIDE: &str = "logical_date = \"none\"\n";

/// How much text makes a set too large for one znode, in bytes.
const MORE_THAN_A_ZNODE_BYTES: usize = 1_200_000;

/// When a schedule by the clock is due: from this second of each minute on, every so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) first: i64,
    pub(crate) every: i64,
}

impl Rule {
    /// Its expression.
    pub(crate) fn cron(self) -> String {
        format!("{}-59/{} * * * * *", self.first, self.every)
    }

    /// Whether it is due at this second since 1970.
    pub(crate) fn is_due(self, second: i64) -> bool {
        let second = second.rem_euclid(60) - self.first;
        second >= 0 && second % self.every == 0
    }
}

/// A good set.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) round: u64,
    pub(crate) text: String,
    /// The rules of [`JOB`] and of [`EXTRAS`], where it has them, whatever their names are in it.
    pub(crate) clocks: BTreeMap<&'static str, Rule>,
    /// Whether its rule for [`TREE`] is about [`SOMETIMES`].
    pub(crate) sees_sometimes: bool,
    /// How many schedules there are in it.
    pub(crate) schedules: usize,
}

/// What of a clock a schedule is, whatever its name is in the set that it was recorded under.
pub(crate) fn clock_of(schedule: &str) -> Option<&'static str> {
    if JOB_NAMES.contains(&schedule) {
        return Some(JOB);
    }
    EXTRAS.into_iter().find(|name| *name == schedule)
}

/// What all sets of a trial have in common.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    /// The addresses of one Airflow.
    pub(crate) urls: Vec<String>,
    pub(crate) username: String,
    /// A file with the password.
    pub(crate) password: String,
    pub(crate) dag: String,
    /// How many requests may be in flight.
    pub(crate) in_flight: Vec<&'static str>,
    /// The seconds between two nominal times of [`TICK`].
    pub(crate) step: i64,
}

/// Draws a good set.
pub(crate) fn draw(ground: &Ground, random: &mut Random, round: u64) -> Set {
    let Ground { username, password, dag, step, .. } = ground;
    let mut clocks = BTreeMap::new();
    let mut schedules = 3;
    let mut text = format!(
        "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"{username}\", password = {{ file = \"{password}\" }} }}\n\
         in_flight = {}\ntimeout = \"{}s\"\n",
        pick(&ground.urls, random),
        pick(&ground.in_flight, random),
        30 + random.below(2),
    );
    let mut schedule = |name: &str, trigger: &str, conf: &str, more: &str| {
        let _ = write!(
            text,
            "[[schedule]]\nname = \"{name}\"\n{trigger}\ndag = \"{dag}\"\npaused_dag = \"submit\"\noverlap = \"allow\"\n\
             catchup = \"all\"\nretry = {{ initial = \"100ms\", max = \"300ms\" }}\nconf = {{ round = {round}{conf} }}\n{more}"
        );
    };
    let tick = if random.below(2) == 0 { format!("*/{step}") } else { format!("0-59/{step}") };
    schedule(TICK, &format!("cron = \"{tick} * * * * *\""), "", "");
    let of_znode = ", path = \"{{ znode.path }}\", version = \"{{ znode.version }}\"";
    let on = random.pick(&[r#""changed""#, r#""created", "changed""#, r#""created", "changed", "deleted""#]);
    schedule("flag", &format!("znode = {{ path = \"{FLAG}\", on = [{on}] }}"), of_znode, "");
    let sees_sometimes = random.below(2) == 0;
    let include = if sees_sometimes { random.pick(&[r#""*""#, r#""always", "sometimes""#]) } else { r#""always""# };
    let on = random.pick(&[r#""changed""#, r#""created", "changed""#]);
    let tree = format!("znode = {{ path = \"{TREE}\", watch = \"subtree\", on = [{on}], include = [{include}] }}");
    schedule("tree", &tree, of_znode, "");
    if random.below(4) > 0 {
        let rules = [(0, 2), (1, 2), (0, 3)].map(|(first, every)| Rule { first: first * step, every: every * step });
        let rule = random.pick(&rules);
        let renamed = random.below(3) == 0;
        let [name, was] = if renamed { [JOB_NAMES[1], JOB_NAMES[0]] } else { JOB_NAMES };
        schedule(name, &format!("cron = \"{}\"", rule.cron()), "", &format!("was = \"{was}\"\n{BESIDE}"));
        clocks.insert(JOB, rule);
        schedules += 1;
    }
    for name in EXTRAS {
        if random.below(4) > 0 {
            let rule = Rule { first: 0, every: *step };
            schedule(name, &format!("cron = \"{}\"", rule.cron()), "", BESIDE);
            clocks.insert(name, rule);
            schedules += 1;
        }
    }
    Set { round, text, clocks, sees_sometimes, schedules }
}

fn pick<'a, T>(among: &'a [T], random: &mut Random) -> &'a T {
    &among[usize::try_from(random.below(among.len() as u64)).expect("below the length")]
}

/// Makes a set larger than a znode may be, without another meaning.
pub(crate) fn enlarge(text: &str) -> String {
    let filling = format!("# {}\n", "x".repeat(998));
    text.to_owned() + &filling.repeat(MORE_THAN_A_ZNODE_BYTES / filling.len())
}

/// What is wrong with a bad set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mistake {
    /// It is no TOML.
    Syntax,
    /// A key that there is not.
    UnknownKey,
    /// An Airflow that there is not.
    BadReference,
    /// A second that a minute does not have.
    BadValue,
    /// A name that is there twice.
    TwoOfAName,
    /// A file with a secret that is not there; only a member finds that.
    NoSecret,
}

impl Mistake {
    /// Those that checking finds, whoever checks.
    pub(crate) const CHECKED: [Self; 5] =
        [Self::Syntax, Self::UnknownKey, Self::BadReference, Self::BadValue, Self::TwoOfAName];

    pub(crate) const ALL: [Self; 6] =
        [Self::Syntax, Self::UnknownKey, Self::BadReference, Self::BadValue, Self::TwoOfAName, Self::NoSecret];

    /// Makes it, in a good set.
    pub(crate) fn spoil(self, set: &Set, ground: &Ground) -> String {
        let text = &set.text;
        match self {
            Self::Syntax => format!("{text}[[schedule\n"),
            Self::UnknownKey => text.replacen("cron =", "corn =", 1),
            Self::BadReference => text.replacen("dag =", "airflow = \"nowhere\"\ndag =", 1),
            Self::BadValue => text.replacen("cron = \"", "cron = \"61,", 1),
            Self::TwoOfAName => format!("{text}[[schedule]]\nname = \"{TICK}\"\ncron = \"@daily\"\ndag = \"d\"\n"),
            Self::NoSecret => text.replacen(&ground.password, &format!("{}-that-is-not-there", ground.password), 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowkeeper::config::{self, Environment};

    fn check(text: &str) -> Result<usize, usize> {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("flowkeeper.toml");
        std::fs::write(&file, format!("{text}\n[zookeeper]\nconnect = \"h:1\"\n")).expect("written");
        match config::check(&file, &Environment::default()) {
            Ok((config, _)) => Ok(config.schedules.len()),
            Err(faults) => Err(faults.faults.len()),
        }
    }

    #[test]
    fn good_sets_are_good_and_bad_ones_are_not() {
        for step in [1, 5] {
            let ground = Ground {
                urls: vec!["http://a".into(), "http://b".into()],
                username: "admin".into(),
                password: "/password".into(),
                dag: "load".into(),
                in_flight: vec!["1", "\"auto\""],
                step,
            };
            let mut random = Random::new(7);
            for round in 0..30 {
                let set = draw(&ground, &mut random, round);
                assert_eq!(check(&set.text), Ok(set.schedules), "{}", set.text);
                for mistake in Mistake::CHECKED {
                    assert!(check(&mistake.spoil(&set, &ground)).is_err(), "{mistake:?}\n{}", set.text);
                }
                assert_ne!(Mistake::NoSecret.spoil(&set, &ground), set.text);
            }
        }
    }

    #[test]
    fn a_rule_is_due_where_its_cron_is() {
        let due = |first, every| {
            let rule = Rule { first, every };
            (120..180).filter(|second| rule.is_due(*second)).map(|second| second - 120).take(3).collect::<Vec<_>>()
        };
        assert_eq!((due(0, 2), due(1, 2), due(5, 10)), (vec![0, 2, 4], vec![1, 3, 5], vec![5, 15, 25]));
        assert_eq!(Rule { first: 5, every: 10 }.cron(), "5-59/10 * * * * *");
    }
}
