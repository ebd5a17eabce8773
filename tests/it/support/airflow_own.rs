//! An API server of Airflow 3 that a test has for itself, and may stop, kill and start again.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::children;
use super::ports::free_port;
use super::real_airflow::RealAirflow;

/// How long it may take to answer, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(4);

/// An API server with a metadata database of its own: a copy of the one of the Airflow that `make test` starts.
pub(crate) struct OwnAirflow {
    home: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl OwnAirflow {
    /// Copies what it needs, and starts it; `fernet` tells whether it encrypts what is secret.
    pub(crate) async fn start(fernet: bool) -> Self {
        let (real, home) = (RealAirflow::three(), tempfile::tempdir().expect("a home"));
        for name in ["airflow.cfg", "passwords.json", "secret", "username", "password", "python"] {
            std::fs::copy(real.home().join(name), home.path().join(name)).expect("copy what Airflow needs");
        }
        if !fernet {
            let config = std::fs::read_to_string(home.path().join("airflow.cfg")).expect("its configuration");
            let without =
                config.lines().map(|line| if line.starts_with("fernet_key =") { "fernet_key =" } else { line });
            let without = without.collect::<Vec<_>>().join("\n");
            std::fs::write(home.path().join("airflow.cfg"), without).expect("write its configuration");
        }
        let copy = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
        let mut command = Command::new(std::fs::read_to_string(real.home().join("python")).expect("a Python").trim());
        command.arg("-c").arg(copy).args([real.home().join("airflow.db"), home.path().join("airflow.db")]);
        let copied = tokio::task::spawn_blocking(move || command.status()).await.expect("it is waited for");
        assert!(copied.expect("run Python").success(), "the database is copied");
        let mut own = Self { home, port: free_port(), process: None };
        own.restart().await;
        own
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("server.log")).unwrap_or_default()
    }

    /// Starts it again, and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        // The configuration that was copied names the database that it was copied from.
        const START: &str = "source \"$1\"; airflow_environment \"$2\" \"$3\" \"$4\"
            export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=sqlite:///$3/airflow.db; exec airflow api-server";
        let python = std::fs::read_to_string(self.home.path().join("python")).expect("a Python");
        let environment = Path::new(python.trim()).parent().and_then(Path::parent).expect("a virtual environment");
        let mut command = children::mortal("bash");
        command.args(["-euc", START, "bash", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib.sh")]);
        command.arg(environment).arg(self.home.path()).arg(self.port.to_string());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.home.path().join("server.log"));
        let log = log.expect("open the log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
        self.process = Some(children::spawn(command).expect("start Airflow's API server"));
        let end = Instant::now() + PATIENCE;
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("a client");
        loop {
            let answer = client.get(format!("{}/api/v2/version", self.url())).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            let ended = self.process.as_mut().and_then(|process| process.try_wait().expect("look at Airflow"));
            assert!(ended.is_none() && Instant::now() < end, "Airflow does not answer: {ended:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Kills it, wherever it stands.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill Airflow");
            process.wait().expect("wait for Airflow");
        }
    }

    /// Stops it where it stands, or has it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let process = self.process.as_ref().expect("a process to signal");
        let signal = if frozen { "STOP" } else { "CONT" };
        let sent = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status().expect("run kill");
        assert!(sent.success(), "SIG{signal} is sent");
    }
}

impl Drop for OwnAirflow {
    fn drop(&mut self) {
        self.kill();
    }
}
