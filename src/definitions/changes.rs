//! In what two sets differ, by schedule and by section. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Config;
use crate::config::model::{Airflow, AirflowAuth, Connection, Ensemble, HeaderText, Server};
use crate::domain::edit::{Fates, Origin};
use crate::domain::schedule::{Schedule, ScheduleName};

/// The names of what is new, other and gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Changes {
    /// Schedules that were not there.
    pub added: Vec<String>,
    /// Schedules that are written otherwise.
    pub changed: Vec<String>,
    /// Schedules that are gone.
    pub removed: Vec<String>,
    /// Schedules with another name, by the one before.
    pub renamed: BTreeMap<String, String>,
}

impl Changes {
    /// From one set to another.
    pub fn between(before: &[Arc<Schedule>], after: &[Arc<Schedule>]) -> Self {
        Self::by(&Fates::between(before, after), before, after)
    }

    /// The same where more is known of what becomes of each.
    pub fn by(fates: &Fates, before: &[Arc<Schedule>], after: &[Arc<Schedule>]) -> Self {
        let old: HashMap<&ScheduleName, &Arc<Schedule>> =
            before.iter().map(|schedule| (&schedule.name, schedule)).collect();
        let mut changes = Self::default();
        for schedule in after {
            let name = schedule.name.as_str();
            match (fates.origin(&schedule.name), old.get(&schedule.name)) {
                (Origin::Renamed(from) | Origin::TakenBack(from), _) if old.contains_key(from) => {
                    changes.renamed.insert(from.to_string(), name.to_owned());
                }
                (Origin::GoesOn, Some(known)) if Arc::ptr_eq(known, schedule) || *known == schedule => {}
                (Origin::GoesOn, Some(_)) => changes.changed.push(name.to_owned()),
                _ => changes.added.push(name.to_owned()),
            }
        }
        let gone = before.iter().filter(|schedule| fates.goes_on_as(&schedule.name).is_none());
        changes.removed = gone.map(|schedule| schedule.name.to_string()).collect();
        for names in [&mut changes.added, &mut changes.changed, &mut changes.removed] {
            names.sort_unstable();
        }
        changes
    }

    /// How many schedules they touch.
    pub fn count(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len() + self.renamed.len()
    }
}

/// The schedules of `after`, where those that are as in `before` are the same values: so that who works
/// with one need not look whether it is another.
pub fn keep_equal(before: &[Arc<Schedule>], after: &[Arc<Schedule>]) -> Vec<Arc<Schedule>> {
    let known: HashMap<&str, &Arc<Schedule>> =
        before.iter().map(|schedule| (schedule.name.as_str(), schedule)).collect();
    let kept = |schedule: &Arc<Schedule>| match known.get(schedule.name.as_str()) {
        Some(known) if **known == *schedule => Arc::clone(known),
        _ => Arc::clone(schedule),
    };
    after.iter().map(kept).collect()
}

/// Whether files of secrets and certificates are the same ones. Paths start from the directory of the file
/// that names them, so the same text means others when that has moved; its version does not tell.
pub fn same_places(one: &Config, other: &Config) -> bool {
    one.airflows.values().map(places_of).eq(other.airflows.values().map(places_of))
        && one.ensembles.values().map(connection_of).eq(other.ensembles.values().map(connection_of))
}

fn places_of(airflow: &Airflow) -> (&AirflowAuth, &[(String, HeaderText)], Option<&Path>) {
    (&airflow.auth, &airflow.headers, airflow.ca.as_deref())
}

fn connection_of(ensemble: &Ensemble) -> Option<&Connection> {
    ensemble.connection.as_ref()
}

/// The sections of the main file, read at the start only, in which two configurations differ.
pub fn main_sections(one: &Config, other: &Config) -> Vec<String> {
    // What may be pushed is read whenever a set is judged.
    let server = Server { pushed: one.server.pushed.clone(), ..other.server.clone() };
    let differ = [
        ("server", one.server != server),
        ("log", one.log != other.log),
        ("store", one.store != other.store),
        ("zookeeper", one.zookeeper != other.zookeeper),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(section, _)| section.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("flowkeeper.toml");
        let airflow = "[airflow.main]\nurl = \"http://h\"\nauth = { token = { env = \"T\" } }\n";
        // By itself the ledger lies beside the file, which is elsewhere each time.
        let store = if text.contains("[store]") { "" } else { "[store]\nurl = \"postgres://h/d\"\n" };
        std::fs::write(&file, format!("{store}{airflow}{text}")).unwrap();
        config::check(&file, &Environment::default()).unwrap_or_else(|faults| panic!("{:?}", faults.faults)).0
    }

    fn schedule(name: &str, cron: &str, more: &str) -> String {
        format!("[[schedule]]\nname = \"{name}\"\ncron = \"{cron}\"\ndag = \"d\"\n{more}\n")
    }

    #[test]
    fn the_same_text_elsewhere_names_other_files() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |directory: &tempfile::TempDir, text: &str| {
            let file = directory.path().join("flowkeeper.toml");
            std::fs::write(&file, format!("[store]\nurl = \"postgres://h/d\"\n{text}")).unwrap();
            config::check(&file, &Environment::default()).unwrap_or_else(|faults| panic!("{:?}", faults.faults)).0
        };
        let airflow = |more: &str| format!("[airflow.main]\nurl = \"http://h\"\n{more}\n");
        let ensemble = |more: &str| format!("[ensemble.e]\nconnect = \"h:1\"\n{more}\n");
        for (text, expected) in [
            (airflow("auth = { token = { env = \"T\" } }"), true),
            (airflow("auth = { token = { file = \"/t\" } }"), true),
            (airflow("auth = { token = { file = \"t\" } }"), false),
            (airflow("headers = { X = { file = \"t\" } }"), false),
            (airflow("tls = { ca = \"ca.pem\" }"), false),
            (ensemble(""), true),
            (ensemble("tls = { ca = \"ca.pem\" }"), false),
            (ensemble("auth = { credential = { file = \"t\" } }"), false),
        ] {
            let (one, other) = (read(&here, &text), read(&there, &text));
            assert_eq!(one.version, other.version, "{text}");
            assert!(same_places(&one, &read(&here, &text)), "{text}");
            assert_eq!(same_places(&one, &other), expected, "{text}");
        }
    }

    #[test]
    fn schedules_are_new_other_renamed_or_gone() {
        let before =
            ["a", "b", "c", "d"].map(|name| schedule(name, "@daily", "conf = { at = \"{{ nominal_time }}\" }"));
        let before = config(&before.concat());
        let after = [
            schedule("a", "@daily", "conf = { at = \"{{ nominal_time }}\" }"),
            schedule("b", "@daily", "conf = { at = \"{{ dag_run_id }}\" }"),
            schedule("e", "@daily", "was = \"c\""),
            schedule("f", "@daily", "was = \"nobody\""),
        ];
        let after = config(&after.concat());
        let changes = Changes::between(&before.schedules, &after.schedules);
        let expected = Changes {
            added: vec!["f".into()],
            changed: vec!["b".into()],
            removed: vec!["d".into()],
            renamed: BTreeMap::from([("c".into(), "e".into())]),
        };
        assert_eq!(changes, expected);
        assert_eq!(changes.count(), 4);
        let kept = keep_equal(&before.schedules, &after.schedules);
        let same: Vec<bool> = kept.iter().zip(&before.schedules).map(|(new, old)| Arc::ptr_eq(new, old)).collect();
        assert_eq!(same, [true, false, false, false]);
    }

    #[test]
    fn a_name_may_pass_on_from_one_that_is_removed() {
        let daily = |name: &str, more: &str| schedule(name, "@daily", more);
        let before = config(&(daily("a", "") + &daily("b", "")));
        let after = config(&daily("b", "was = \"a\""));
        let expected = Changes {
            removed: vec!["b".into()],
            renamed: BTreeMap::from([("a".into(), "b".into())]),
            ..Changes::default()
        };
        assert_eq!(Changes::between(&before.schedules, &after.schedules), expected);
        assert_eq!(Changes::between(&after.schedules, &after.schedules), Changes::default(), "it stays written");
        let back = Changes { renamed: BTreeMap::from([("b".into(), "a".into())]), ..Changes::default() };
        let a = config(&daily("a", ""));
        assert_eq!(Changes::between(&after.schedules, &a.schedules), back, "rolled back");
    }

    #[test]
    fn everything_that_is_written_of_a_schedule_makes_it_another() {
        let one = |text: &str| config(&format!("[zookeeper]\nconnect = \"h:1\"\n[[schedule]]\nname = \"a\"\n{text}"));
        let cron = "cron = \"0 0 * * *\"\ndag = \"d\"\n";
        let znode = |more: &str| format!("znode = {{ path = \"/x\", watch = \"subtree\"{more} }}\ndag = \"d\"\n");
        let before = one(cron);
        assert_eq!(*one(cron).schedules[0], *before.schedules[0]);
        for other in [
            "cron = \"0 1 * * *\"\ndag = \"d\"\n".to_owned(),
            "cron = \"@daily\"\ndag = \"d\"\n".to_owned(),
            "cron = \"0 0 * * *\"\ndag = \"e\"\n".to_owned(),
            znode(""),
        ]
        .into_iter()
        .chain(
            [
                "timezone = \"Europe/Berlin\"",
                "owner = \"o\"",
                "jitter = \"1m\"",
                "catchup = \"all\"",
                "catchup_window = \"1h\"",
                "overlap = \"queue\"",
                "retry = { for = \"1h\" }",
                "deadline = { start = \"5m\" }",
                "lock = \"l\"",
                "paused = true",
                "paused_dag = \"submit\"",
                "logical_date = \"none\"",
                "data_interval = \"dag\"",
                "dst = { gap = \"skip\" }",
                "conf = { a = 1 }",
                "conf = { a = \"{{ dag_run_id }}\" }",
            ]
            .map(|more| format!("{cron}{more}\n")),
        ) {
            assert_ne!(*one(&other).schedules[0], *before.schedules[0], "{other}");
        }
        let before = one(&znode(""));
        assert_eq!(*one(&znode("")).schedules[0], *before.schedules[0]);
        for more in [", include = [\"*\"]", ", on = [\"deleted\"]", ", settle = \"1s\"", ", settle = \"1s\", batch = 2"]
        {
            assert_ne!(*one(&znode(more)).schedules[0], *before.schedules[0], "{more}");
        }
    }

    #[test]
    fn sections_that_are_read_at_the_start_are_told() {
        let before = config("");
        for (text, expected) in [
            ("", vec![]),
            ("[server]\nlisten = \"127.0.0.1:1\"\n", vec!["server"]),
            ("[log]\nlevel = \"debug\"\n[store]\nurl = \"postgres://h/d\"\nretention = \"1d\"\n", vec!["log", "store"]),
            ("[zookeeper]\nconnect = \"h:1\"\n", vec!["zookeeper"]),
        ] {
            assert_eq!(main_sections(&before, &config(text)), expected, "{text}");
        }
    }
}
