//! The processes that are compared: started, awaited until they are ready, measured, ended.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Outcome, Setting, measure};

/// The variable that tells this program to play a floor or a peer instead.
pub(crate) const ROLE: &str = "FLOWKEEPER_BENCH_ROLE";

/// How long a party may take until it is ready; the slowest loads 10,000 schedules.
const READY: Duration = Duration::from_mins(3);

/// How many schedules are asked for at once.
const PAGE: usize = 1_000;

/// Where flowkeeper is told to find the token for the stand-in, which takes any.
const TOKEN: &str = "AIRFLOW_BENCH_TOKEN";

/// The part of flowkeeper's configuration that names the stand-in.
pub(crate) fn airflow(url: &str) -> String {
    format!("[airflow.main]\nurl = \"{url}\"\nauth = {{ token = {{ env = \"{TOKEN}\" }} }}\n\n")
}

/// A running process that triggers DAG runs; ended when dropped.
pub(crate) struct Party {
    pub(crate) name: &'static str,
    child: Child,
    started: Instant,
    ready_after: Duration,
}

/// What a process used while it ran.
#[derive(serde::Serialize)]
pub(crate) struct Cost {
    pub(crate) ready_after_s: f64,
    pub(crate) ran_s: f64,
    pub(crate) processor_s: f64,
    pub(crate) peak_memory_mib: f64,
}

impl Party {
    /// A floor or a Rust peer: this program in another role.
    pub(crate) async fn role(name: &'static str, role: &[&str]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ROLE, role.join(" "));
        Self::speaking(name, command).await
    }

    /// A peer in Python.
    pub(crate) async fn python(
        setting: &Setting,
        name: &'static str,
        script: &str,
        arguments: &[&str],
    ) -> Outcome<Self> {
        Self::speaking(name, python_command(setting, script, arguments)).await
    }

    /// Starts a program that prints `ready` once it is.
    async fn speaking(name: &'static str, mut command: Command) -> Outcome<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut party = Self::spawn(name, &mut command)?;
        let output = party.child.stdout.take().ok_or("no standard output")?;
        let line = tokio::task::spawn_blocking(move || BufReader::new(output).lines().next());
        match tokio::time::timeout(READY, line).await?? {
            Some(Ok(line)) if line == "ready" => {}
            other => return Err(format!("{name} did not become ready: {other:?}").into()),
        }
        party.ready_after = party.started.elapsed();
        Ok(party)
    }

    /// flowkeeper itself, with a configuration of its own; ready when every schedule is armed.
    pub(crate) async fn flowkeeper(setting: &Setting, name: &'static str, schedules: &str) -> Outcome<Self> {
        let address = free_address()?;
        let dir = fresh(setting, &name.replace(' ', "-"))?;
        let head = format!(
            "[server]\nlisten = \"{address}\"\n\n[store]\nurl = \"sqlite://flowkeeper.db\"\n\n[zookeeper]\nconnect = \"{}\"\n\n",
            setting.zookeeper
        );
        let mut party = Self::member(name, &dir, &(head + schedules))?;
        party.until_armed(&dir, &format!("http://{address}")).await?;
        Ok(party)
    }

    /// One member of flowkeeper, with its configuration and its log in a directory of its own; it is not
    /// waited for.
    pub(crate) fn member(name: &'static str, dir: &Path, config: &str) -> Outcome<Self> {
        let file = dir.join("flowkeeper.toml");
        std::fs::write(&file, config)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowkeeper"));
        command
            .arg("--config")
            .arg(&file)
            .arg("serve")
            .env(TOKEN, "token")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Self::spawn(name, &mut command)
    }

    /// Waits until every schedule of flowkeeper is armed.
    pub(crate) async fn until_armed(&mut self, dir: &Path, url: &str) -> Outcome<()> {
        let (began, url) = (Instant::now(), format!("{url}/api/v1/schedules"));
        while !armed(&url).await {
            if began.elapsed() > READY || self.child.try_wait()?.is_some() {
                let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
                return Err(format!("flowkeeper did not become ready; its log:\n{log}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.ready_after = self.started.elapsed();
        Ok(())
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What a program prints, as JSON; it runs to its end.
    async fn answer(name: &'static str, mut command: Command) -> Outcome<serde_json::Value> {
        let output = tokio::task::spawn_blocking(move || command.stderr(Stdio::inherit()).output()).await??;
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{name}: {error}").into())
    }

    /// What a Rust peer measures itself: this program in another role.
    pub(crate) async fn answer_of_role(name: &'static str, role: &[&str]) -> Outcome<serde_json::Value> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ROLE, role.join(" "));
        Self::answer(name, command).await
    }

    /// What a peer in Python measures itself.
    pub(crate) async fn answer_of_python(
        setting: &Setting,
        name: &'static str,
        script: &str,
        arguments: &[&str],
    ) -> Outcome<serde_json::Value> {
        Self::answer(name, python_command(setting, script, arguments)).await
    }

    fn spawn(name: &'static str, command: &mut Command) -> Outcome<Self> {
        let started = Instant::now();
        let child = command.spawn().map_err(|error| format!("start {name}: {error}"))?;
        Ok(Self { name, child, started, ready_after: Duration::ZERO })
    }

    /// What it used so far.
    pub(crate) fn cost(&self) -> Cost {
        let (processor_s, peak_memory_mib) = measure::used(self.child.id());
        Cost {
            ready_after_s: self.ready_after.as_secs_f64(),
            ran_s: self.started.elapsed().as_secs_f64(),
            processor_s,
            peak_memory_mib,
        }
    }

    /// Ends it and returns what it used.
    pub(crate) fn end(self) -> Cost {
        self.cost()
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        // Killed, not asked: nothing that it holds is needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python_command(setting: &Setting, script: &str, arguments: &[&str]) -> Command {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "benches", "peers", script].iter().collect();
    let mut command = Command::new(&setting.python);
    command.arg(path).args(arguments);
    command
}

/// An empty directory of this name; ledgers in it are fresh.
pub(crate) fn fresh(setting: &Setting, name: &str) -> Outcome<PathBuf> {
    let dir = setting.dir.join(name);
    // There may be none of an earlier round.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// An address of the loopback interface on which nobody listens.
pub(crate) fn free_address() -> Outcome<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Whether flowkeeper answers and every timer and watch of it is set, page by page.
async fn armed(url: &str) -> bool {
    let mut page_url = format!("{url}?limit={PAGE}");
    loop {
        let Ok(answer) = reqwest::get(&page_url).await else { return false };
        let Ok(page) = answer.json::<serde_json::Value>().await else { return false };
        let all_armed = page["items"].as_array().is_some_and(|schedules| {
            !schedules.is_empty() && schedules.iter().all(|schedule| schedule["armed"].as_bool() == Some(true))
        });
        match (all_armed, page["next_cursor"].as_str()) {
            (false, _) => return false,
            (true, None) => return true,
            (true, Some(cursor)) => page_url = format!("{url}?limit={PAGE}&cursor={cursor}"),
        }
    }
}
