//! Real Airflows, which `make test` starts and names in the environment.
//!
//! `FLOWKEEPER_TEST_AIRFLOW3` and `FLOWKEEPER_TEST_AIRFLOW2` are folders with the files `url`,
//! `username` and `password`, and `dags`, the folder that Airflow reads its DAGs from. Tests fail
//! without them: what is not tried is not proved.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flowkeeper::airflow::{Airflow, Auth, Settings};
use flowkeeper::clock::Clock;
use flowkeeper::secret::{Credential, Secret};

/// A running Airflow.
pub(crate) struct RealAirflow {
    folder: PathBuf,
}

impl RealAirflow {
    /// Airflow 3.
    pub(crate) fn three() -> Self {
        Self::named("FLOWKEEPER_TEST_AIRFLOW3")
    }

    /// Airflow 2.
    pub(crate) fn two() -> Self {
        Self::named("FLOWKEEPER_TEST_AIRFLOW2")
    }

    fn named(variable: &str) -> Self {
        let folder = std::env::var_os(variable)
            .unwrap_or_else(|| panic!("{variable} is not set: run the tests with `make test`"));
        Self { folder: folder.into() }
    }

    fn read(&self, name: &str) -> String {
        let path = self.folder.join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        self.read("url")
    }

    /// Its user and password.
    pub(crate) fn login(&self) -> (String, String) {
        (self.read("username"), self.read("password"))
    }

    /// Its home, with its configuration and its metadata database.
    pub(crate) fn home(&self) -> &Path {
        &self.folder
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Airflow {
        self.client_with(&self.login().1)
    }

    /// A client of it with this password.
    pub(crate) fn client_with(&self, password: &str) -> Airflow {
        client(&self.url(), &self.login().0, password)
    }
}

/// A client of the Airflow at `url`.
pub(crate) fn client(url: &str, username: &str, password: &str) -> Airflow {
    let settings = Settings {
        name: "main".into(),
        url: url.parse().expect("an address"),
        auth: Auth::Password { username: username.to_owned(), password: Credential::Fixed(Secret::new(password)) },
        headers: Vec::new(),
        ca: None,
        timeout: Duration::from_secs(30),
    };
    Airflow::new(settings, Clock::system()).expect("good settings")
}
