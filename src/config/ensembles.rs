//! Which ensembles there are to look after, and which one is meant: shared by the command, the API and
//! the loop of the leader, so that all speak of the same.

use std::sync::Arc;

use super::model::{Config, Ensemble};
use super::text::did_you_mean;

/// Why it is not known which ensemble is meant; fits "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEnsemble {
    /// The configuration has none of this name.
    #[error("find the ensemble `{name}`: the configuration has none of this name")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<Arc<str>>,
    },
    /// The configuration has none at all.
    #[error("find an ensemble: the configuration has none")]
    None,
    /// None was named, there are several, and none is the home ensemble.
    #[error("choose an ensemble: there are several, and none is the home ensemble")]
    Several {
        /// Those that there are.
        known: Vec<Arc<str>>,
    },
}

impl NoEnsemble {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { name, known } if !known.is_empty() => {
                let known: Vec<&str> = known.iter().map(|name| &**name).collect();
                did_you_mean(name, &known, "there are")
            }
            Self::Unknown { .. } | Self::None => {
                "add a section [zookeeper], or an [ensemble.NAME] with `connect`".to_owned()
            }
            Self::Several { known } => format!("name one of {}", known.join(", ")),
        }
    }
}

impl Config {
    /// Every ensemble that can be checked, by name: those with a section, and the home ensemble also
    /// without one.
    pub fn ensembles_to_check(&self) -> Vec<Ensemble> {
        let mut ensembles: Vec<Ensemble> = self.ensembles.values().cloned().collect();
        let is_named = |ensemble: &Ensemble| ensemble.connection.is_none() || &*ensemble.name == Ensemble::HOME;
        if self.zookeeper.is_some() && !ensembles.iter().any(is_named) {
            ensembles.push(Ensemble::home());
            ensembles.sort_by(|one, other| one.name.cmp(&other.name));
        }
        ensembles
    }

    /// The ensemble that is meant: the one that is named, else the home ensemble, else the only one. The
    /// home ensemble may be named `home` whatever its section is called, unless another one is called so.
    pub fn ensemble_to_check(&self, name: Option<&str>) -> Result<Ensemble, NoEnsemble> {
        let mut ensembles = self.ensembles_to_check();
        let home = ensembles.iter().position(|ensemble| ensemble.connection.is_none());
        let meant = match name {
            Some(name) => {
                let named = ensembles.iter().position(|ensemble| *ensemble.name == *name);
                named.or(home.filter(|_| name == Ensemble::HOME))
            }
            None => home.or((ensembles.len() == 1).then_some(0)),
        };
        let known = || ensembles.iter().map(|ensemble| Arc::clone(&ensemble.name)).collect();
        match (meant, name) {
            (Some(index), _) => Ok(ensembles.swap_remove(index)),
            (None, Some(name)) => Err(NoEnsemble::Unknown { name: name.to_owned(), known: known() }),
            (None, None) if ensembles.is_empty() => Err(NoEnsemble::None),
            (None, None) => Err(NoEnsemble::Several { known: known() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment};

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("flowkeeper.toml");
        std::fs::write(&file, text).expect("a file");
        let checked = config::check(&file, &Environment::default());
        checked.unwrap_or_else(|faults| panic!("{:?}", faults.faults)).0
    }

    const HOME_ALONE: &str = "[zookeeper]\nconnect = \"a\"\n";
    const NAMED_HOME: &str = "[zookeeper]\nconnect = \"a\"\n[ensemble.main]\n[ensemble.solr]\nconnect = \"b\"\n";
    const NAMESAKE: &str = "[zookeeper]\nconnect = \"a\"\n[ensemble.home]\nconnect = \"b\"\n";
    const ONE: &str = "[ensemble.solr]\nconnect = \"b\"\n";
    const TWO: &str = "[ensemble.solr]\nconnect = \"b\"\n[ensemble.kafka]\nconnect = \"c\"\n";

    #[test]
    fn the_ensemble_that_is_meant_is_found() {
        for (text, name, expected) in [
            (HOME_ALONE, None, Ok("home")),
            (HOME_ALONE, Some("home"), Ok("home")),
            (HOME_ALONE, Some("main"), Err("there are: home")),
            (NAMED_HOME, None, Ok("main")),
            (NAMED_HOME, Some("home"), Ok("main")),
            (NAMED_HOME, Some("solr"), Ok("solr")),
            (NAMED_HOME, Some("solar"), Err("did you mean `solr`?")),
            (NAMESAKE, Some("home"), Ok("home")),
            (ONE, None, Ok("solr")),
            (ONE, Some("home"), Err("there are: solr")),
            (TWO, None, Err("name one of kafka, solr")),
            ("", None, Err("add a section [zookeeper], or an [ensemble.NAME] with `connect`")),
            ("", Some("main"), Err("add a section [zookeeper], or an [ensemble.NAME] with `connect`")),
        ] {
            let found = config(text).ensemble_to_check(name);
            let found = found.map(|ensemble| ensemble.name.to_string()).map_err(|error| error.hint());
            assert_eq!(found, expected.map(ToOwned::to_owned).map_err(ToOwned::to_owned), "{name:?} of {text}");
        }
    }

    #[test]
    fn every_ensemble_is_there_once() {
        for (text, expected) in [
            ("", &[][..]),
            (HOME_ALONE, &["home"]),
            (NAMED_HOME, &["main", "solr"]),
            (NAMESAKE, &["home"]),
            (TWO, &["kafka", "solr"]),
        ] {
            let names: Vec<_> = config(text).ensembles_to_check().into_iter().map(|one| one.name).collect();
            assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
