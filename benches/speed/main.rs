//! How fast flowkeeper is, beside the floor (the same libraries with no logic) and beside what people
//! use today, in one run on one machine.
//!
//! Every party is a process of its own: flowkeeper's real binary, the floors and
//! tokio-cron-scheduler (this program in another role), kazoo and `APScheduler` in Python. This
//! process drives `ZooKeeper`, and its stand-in for Airflow's API notes when each request arrives.
//! `scripts/bench.sh` starts what is needed; `docs/performance.md` explains the numbers.

mod cron;
mod floor;
mod measure;
mod pacing;
mod pages;
mod party;
mod reload;
mod report;
mod stand_in;
mod team;
mod znodes;

use std::error::Error;
use std::path::PathBuf;

use measure::Disk;
use report::Report;

/// What every benchmark returns: nothing here can be repaired, so any failure ends the run.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Where things are and how much to measure.
pub(crate) struct Setting {
    /// `host:port` of the `ZooKeeper` server.
    pub(crate) zookeeper: String,
    /// `host:port` of a PostgreSQL server whose superuser `flowkeeper` needs no password; only for `reload` and
    /// `pages`.
    pub(crate) postgres: Option<String>,
    /// A Python that has the peers' packages.
    pub(crate) python: PathBuf,
    /// Where ledgers and configurations go; on the disk that is measured.
    pub(crate) dir: PathBuf,
    /// The folder that describes a real Airflow; only for `pacing`.
    pub(crate) airflow: Option<PathBuf>,
    /// Shorter and rougher.
    pub(crate) quick: bool,
}

impl Setting {
    fn from_environment() -> Outcome<Self> {
        let need = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set: run `make bench`"));
        Ok(Self {
            zookeeper: need("FLOWKEEPER_BENCH_ZOOKEEPER")?,
            postgres: std::env::var("FLOWKEEPER_BENCH_POSTGRES").ok(),
            python: need("FLOWKEEPER_BENCH_PYTHON")?.into(),
            dir: need("FLOWKEEPER_BENCH_DIR")?.into(),
            airflow: std::env::var_os("FLOWKEEPER_BENCH_AIRFLOW").map(PathBuf::from),
            quick: std::env::var_os("FLOWKEEPER_BENCH_QUICK").is_some(),
        })
    }

    /// The full number, or the smaller one of a quick run.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The floors are this program again, told by the environment what to be.
    if let Ok(role) = std::env::var(party::ROLE) {
        return runtime.block_on(floor::play(&role));
    }
    // Cargo itself adds options; only words are names of cases.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let setting = Setting::from_environment()?;
    runtime.block_on(run(&wanted, &setting))
}

async fn run(wanted: &[String], setting: &Setting) -> Outcome<()> {
    let wants = |case: &str| wanted.is_empty() || wanted.iter().any(|name| name == case);
    let disk = Disk::measure(&setting.dir, setting.pick(400, 100))?;
    let mut report = Report::new(&disk, setting.quick);
    if wants("change") {
        znodes::one_change(setting, &disk, &mut report).await?;
    }
    if wants("changes") {
        znodes::many_changes(setting, &mut report).await?;
    }
    if wants("children") {
        znodes::many_children(setting, &mut report).await?;
    }
    if wants("cron") {
        cron::due_together(setting, &mut report).await?;
    }
    if wants("reload") {
        reload::other_definitions(setting, &mut report).await?;
    }
    if wants("pages") {
        pages::of_a_long_history(setting, &mut report).await?;
    }
    if wants("pacing") && setting.airflow.is_some() {
        pacing::burst(setting, &mut report).await?;
    }
    report.finish()
}
