//! The real binary, serving: started, killed, asked to end, and looked at from outside.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::store::Ledger;
use flowkeeper::store::model::{Run, RunFilter};

use super::children;
use super::ports::free_port;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(3);

/// A directory with a configuration, a ledger, and at most one process that serves them.
pub(crate) struct Member {
    directory: tempfile::TempDir,
    port: u16,
    /// What [`Member::ledger`] opens.
    store: String,
    process: Option<Child>,
    /// What it finds in its environment, beside that of the tests.
    variables: Vec<(String, String)>,
}

impl Member {
    /// A member with a ledger of its own in SQLite: `[server]`, `[store]` and `[log]` are added to `rest`.
    pub(crate) fn new(rest: &str) -> Self {
        Self::configured("sqlite://ledger.db", "", rest)
    }

    /// A member that shares the store at `store` with others and tells them where it listens.
    pub(crate) fn sharing(store: &str, rest: &str) -> Self {
        Self::configured(store, "advertise = \"http://127.0.0.1:{port}\"\n", rest)
    }

    fn configured(store: &str, server: &str, rest: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the member");
        let port = free_port();
        let server = server.replace("{port}", &port.to_string());
        let head = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\n{server}[log]\nlevel = \"debug\"\n[store]\nurl = \"{store}\"\n"
        );
        std::fs::write(directory.path().join("flowkeeper.toml"), head + rest).expect("write the configuration");
        let store = match store.strip_prefix("sqlite://") {
            Some(file) => format!("sqlite://{}", directory.path().join(file).display()),
            None => store.to_owned(),
        };
        Self { directory, port, store, process: None, variables: Vec::new() }
    }

    /// Has it read definitions from files in `schedules/` as well; before it starts.
    pub(crate) fn include_schedules(&self) {
        let main = self.path().join("flowkeeper.toml");
        let text = std::fs::read_to_string(&main).expect("the configuration");
        std::fs::write(&main, format!("include = [\"schedules/*.toml\"]\n{text}")).expect("write the configuration");
    }

    /// Sets a variable of its environment and of its commands; before it starts.
    pub(crate) fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn log(&self) -> PathBuf {
        self.path().join("serve.log")
    }

    /// What the member has logged so far, in all its lives.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// A command of the binary with this member's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowkeeper"));
        command.arg("-c").arg(self.configuration()).args(arguments).envs(self.variables.iter().cloned());
        command
    }

    fn configuration(&self) -> PathBuf {
        self.path().join("flowkeeper.toml")
    }

    /// Runs a command of the binary to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("the command is waited for");
        output.expect("run flowkeeper")
    }

    /// Runs a command that must succeed; the JSON that it prints.
    pub(crate) async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[&["-o", "json"], arguments].concat()).await;
        let complaint = || format!("{arguments:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.logged());
        assert!(output.status.success(), "{}", complaint());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", complaint()))
    }

    /// Starts to serve.
    pub(crate) fn start(&mut self) {
        self.start_with(&["serve"]);
    }

    /// Starts to serve with these arguments.
    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).expect("open the log");
        let mut command = children::mortal(env!("CARGO_BIN_EXE_flowkeeper"));
        command.arg("-c").arg(self.configuration()).args(arguments).envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(children::spawn(command).expect("start flowkeeper"));
    }

    /// Kills it with SIGKILL, wherever it stands.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill flowkeeper");
            process.wait().expect("wait for flowkeeper");
        }
    }

    /// Sends a signal, `STOP` for example.
    pub(crate) fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("a process to signal");
        let sent = Command::new("kill").args(["-s", signal, &process.id().to_string()]).status().expect("run kill");
        assert!(sent.success(), "SIG{signal} is sent");
    }

    /// Asks it to end with SIGTERM; its exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        let mut process = self.process.take().expect("a process to stop");
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().expect("wait for flowkeeper") {
                return status.code();
            }
            assert!(Instant::now() < end, "flowkeeper does not end\n{}", self.logged());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How it ended, if it was not told to and has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|process| process.try_wait().expect("look at flowkeeper"))
    }

    /// Where it listens: `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks the API; `None` while it does not answer well.
    pub(crate) async fn get(&self, path: &str) -> Option<serde_json::Value> {
        let url = format!("{}/api/v1/{path}", self.url());
        let answer = reqwest::get(url).await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    }

    /// Asks for a page that is text, `metrics` for example; `None` while it does not answer well.
    pub(crate) async fn text(&self, path: &str) -> Option<String> {
        let request = reqwest::Client::new().get(format!("{}/{path}", self.url())).timeout(Duration::from_secs(20));
        request.send().await.ok()?.error_for_status().ok()?.text().await.ok()
    }

    /// Posts JSON to the API.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let url = format!("{}/api/v1/{path}", self.url());
        let answer = reqwest::Client::new().post(url).json(body).send().await.expect("an answer");
        answer.error_for_status().expect("a good answer").json().await.expect("JSON")
    }

    /// Waits until every schedule is armed.
    pub(crate) async fn armed(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = self.ended();
            assert!(ended.is_none(), "flowkeeper ended: {ended:?}\n{}", self.logged());
            if let Some(schedules) = self.get("schedules").await {
                let items = schedules["items"].as_array().cloned().unwrap_or_default();
                if !items.is_empty() && items.iter().all(|schedule| schedule["armed"] == true) {
                    return;
                }
            }
            assert!(Instant::now() < end, "not armed\n{}", self.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The ledger, for reading.
    pub(crate) async fn ledger(&self) -> Ledger {
        Ledger::open_read_only(&self.store, Clock::system()).await.expect("open the ledger")
    }

    /// Every run in the ledger, oldest first.
    pub(crate) async fn runs(&self) -> Vec<Run> {
        let ledger = self.ledger().await;
        let (mut runs, mut cursor) = (Vec::new(), None);
        loop {
            let page = ledger.runs(&RunFilter::default(), 1000, cursor.as_deref()).await.expect("read runs");
            runs.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                runs.reverse();
                return runs;
            }
        }
    }

    /// One run with its attempts and its timeline.
    pub(crate) async fn history(&self, dag_run_id: &str) -> Run {
        let run = self.ledger().await.run(dag_run_id).await.expect("read the run");
        run.unwrap_or_else(|| panic!("the ledger has no run {dag_run_id}"))
    }

    /// Waits until one run, with its attempts and its timeline, is as `good` says.
    pub(crate) async fn wait_for_run(&self, what: &str, dag_run_id: &str, good: impl Fn(&Run) -> bool) -> Run {
        let end = Instant::now() + PATIENCE;
        loop {
            let run = self.history(dag_run_id).await;
            if good(&run) {
                return run;
            }
            assert!(Instant::now() < end, "{what}: {run:#?}\n{}", self.logged());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the runs are as `good` says.
    pub(crate) async fn wait_for_runs(&self, what: &str, good: impl Fn(&[Run]) -> bool) -> Vec<Run> {
        let end = Instant::now() + PATIENCE;
        loop {
            let runs = self.runs().await;
            if good(&runs) {
                return runs;
            }
            if Instant::now() > end {
                let states: Vec<_> = runs.iter().map(|run| (&run.dag_run_id, run.state, &run.reason)).collect();
                panic!("{what}: {states:#?}\n{}", self.logged());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
