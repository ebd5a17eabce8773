//! Three members, three ZooKeeper servers, a PostgreSQL and two Airflows, with a way between each
//! member and each of the others that can be cut by itself; and how each fault is inflicted on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::store::model::Run;
use jiff::Timestamp;
use tokio::task::{JoinHandle, block_in_place};

use super::faults::{Fault, Kind, Timing};
use super::proof::DagRun;
use super::schedules::{
    CALM, CRON, EDITED, EDITED_NAMES, FAULTY, MEASURED_CHANGES, MEASURED_CRON, ZNODES, configuration,
};
use crate::support::ensemble::ZooKeeperEnsemble;
use crate::support::fake_airflow::{self, FakeAirflow, Fault as AirflowFault, World};
use crate::support::postgres::{PostgresServer, Stop};
use crate::support::process::Member;
use crate::support::proxy::Proxy;

/// How many members there are.
const MEMBERS: usize = 3;

/// How long everything may take to be well again after a fault is healed.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often the Airflows move their DAG runs on.
const SCHEDULER: Duration = Duration::from_millis(200);

/// The tables that every turn of the ledger's writer touches, and those that it fills.
const TABLES: [&str; 4] = ["ledger", "schedules", "runs", "attempts"];

/// What PostgreSQL says when its disk is full.
const DISK_IS_FULL: &str = "CREATE OR REPLACE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$";

/// A member, and its ways to the others.
struct Party {
    process: Member,
    /// One for each server of the ensemble.
    zookeeper: Vec<Proxy>,
    /// One for each Airflow.
    airflow: Vec<Proxy>,
    store: Proxy,
}

impl Party {
    fn cut_zookeeper(&self, cut: bool) {
        for proxy in &self.zookeeper {
            proxy.refuse(cut);
        }
    }

    fn silence_zookeeper(&self, silent: bool) {
        for proxy in &self.zookeeper {
            proxy.freeze(silent);
        }
    }

    fn hold_airflow(&self, held: bool) {
        for proxy in &self.airflow {
            proxy.freeze(held);
        }
    }
}

/// Everything that a fault can hit.
pub(crate) struct Arena {
    pub(crate) ensemble: ZooKeeperEnsemble,
    postgres: PostgresServer,
    /// The database that the members share.
    database: String,
    pub(crate) calm: Arc<FakeAirflow>,
    pub(crate) faulty: Arc<FakeAirflow>,
    parties: Vec<Party>,
    scheduler: JoinHandle<()>,
}

impl Arena {
    /// Starts all but the members.
    pub(crate) async fn new(timing: Timing) -> Self {
        let (ensemble, postgres) = tokio::join!(ZooKeeperEnsemble::start(timing.tick), PostgresServer::start());
        let calm = Arc::new(FakeAirflow::start(airflow()).await);
        let faulty = Arc::new(FakeAirflow::start(airflow()).await);
        let store = postgres.create_database().await;
        let database = store.rsplit('/').next().unwrap_or_default().to_owned();
        let mut parties = Vec::new();
        for _ in 0..MEMBERS {
            let mut zookeeper = Vec::new();
            for server in ensemble.servers() {
                zookeeper.push(Proxy::start(server).await);
            }
            let mut ways = Vec::new();
            for fake in [&calm, &faulty] {
                ways.push(Proxy::start_plain(&fake.address().to_string()).await);
            }
            let way_to_store = Proxy::start_plain(&postgres.connect()).await;
            let servers: Vec<String> = zookeeper.iter().map(Proxy::connect).collect();
            let urls: Vec<String> = ways.iter().map(|way| format!("http://{}", way.connect())).collect();
            let process = Member::sharing(
                &store.replace(&postgres.connect(), &way_to_store.connect()),
                &configuration(&servers.join(","), timing.session.as_millis(), &urls[0], &urls[1]),
            );
            std::fs::write(process.path().join("password"), "admin").expect("write the password");
            let main = process.path().join("flowkeeper.toml");
            let text = std::fs::read_to_string(&main).expect("the configuration");
            std::fs::write(&main, format!("include = [\"{EDITED}\"]\n{text}")).expect("write the configuration");
            parties.push(Party { process, zookeeper, airflow: ways, store: way_to_store });
        }
        let scheduler = tokio::spawn(advance(Arc::clone(&calm), Arc::clone(&faulty)));
        Self { ensemble, postgres, database, calm, faulty, parties, scheduler }
    }

    /// Where each member has its files.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.parties.iter().map(|party| party.process.path().to_owned()).collect()
    }

    /// Starts the members, and waits until everything is well.
    pub(crate) async fn start_members(&mut self) -> Result<(), String> {
        for party in &mut self.parties {
            party.process.start();
        }
        let leader = self.one_leads(Instant::now() + PATIENCE).await?;
        self.parties[leader].process.armed().await;
        Ok(())
    }

    /// Which member leads, once exactly one says that it does.
    async fn one_leads(&mut self, deadline: Instant) -> Result<usize, String> {
        loop {
            let mut leading = Vec::new();
            for (index, party) in self.parties.iter_mut().enumerate() {
                if let Some(status) = party.process.ended() {
                    return Err(format!("member {index} ended by itself: {status}"));
                }
                let metrics = party.process.text("metrics").await.unwrap_or_default();
                if metrics.lines().any(|line| line == "flowkeeper_leader 1") {
                    leading.push(index);
                }
            }
            match leading[..] {
                [leader] => return Ok(leader),
                _ if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => return Err(format!("these members say that they lead: {leading:?}")),
            }
        }
    }

    /// Inflicts a fault, and heals it; when it began.
    pub(crate) async fn inflict(&mut self, fault: Fault) -> Result<Timestamp, String> {
        let clock = Clock::system();
        let leader = self.one_leads(Instant::now() + PATIENCE).await?;
        let random = Duration::from_millis(fault.choice % 500);
        tokio::time::sleep(fault.calm).await;
        match fault.kind {
            Kind::HandOver => {
                let at = clock.now();
                let code = self.parties[leader].process.stop().await;
                if code != Some(0) {
                    return Err(format!("asked to end, member {leader} ended with {code:?}"));
                }
                self.parties[leader].process.start();
                Ok(at)
            }
            Kind::KillLeader => {
                let at = clock.now();
                self.parties[leader].process.kill();
                tokio::time::sleep(fault.lasts).await;
                self.parties[leader].process.start();
                Ok(at)
            }
            Kind::FreezeLeader => {
                // What it sends from now on arrives when somebody else leads.
                self.parties[leader].hold_airflow(true);
                tokio::time::sleep(random).await;
                let at = clock.now();
                self.parties[leader].process.signal("STOP");
                tokio::time::sleep(fault.lasts).await;
                self.parties[leader].process.signal("CONT");
                tokio::time::sleep(random / 2).await;
                self.parties[leader].hold_airflow(false);
                Ok(at)
            }
            Kind::CutLeader | Kind::SilenceLeader | Kind::CutStandby => {
                let standby = (leader + 1 + usize::from(fault.choice.is_multiple_of(2))) % MEMBERS;
                let party = &self.parties[if fault.kind == Kind::CutStandby { standby } else { leader }];
                let silent = match fault.kind {
                    Kind::CutLeader => false,
                    Kind::SilenceLeader => true,
                    _ => fault.choice % 4 < 2,
                };
                let cut = |cut| if silent { party.silence_zookeeper(cut) } else { party.cut_zookeeper(cut) };
                let at = clock.now();
                cut(true);
                tokio::time::sleep(fault.lasts).await;
                cut(false);
                Ok(at)
            }
            Kind::ResetStore => {
                let at = clock.now();
                self.parties[leader].store.cut();
                Ok(at)
            }
            Kind::KillZooKeeperLeader => {
                let first = self.ensemble.leader().ok_or("the ensemble has no leader")?;
                let at = clock.now();
                self.ensemble.kill(first);
                tokio::time::sleep(fault.lasts).await;
                self.ensemble.restart(first).await;
                Ok(at)
            }
            Kind::StopEnsemble => {
                let at = clock.now();
                self.ensemble.kill_all();
                tokio::time::sleep(fault.lasts).await;
                self.ensemble.restart_all().await;
                Ok(at)
            }
            Kind::RestartPostgres | Kind::KillPostgres | Kind::StopPostgres | Kind::FillDisk => {
                Ok(self.inflict_on_store(fault).await)
            }
            Kind::KillMembers => {
                let at = clock.now();
                for party in &mut self.parties {
                    party.process.kill();
                }
                tokio::time::sleep(fault.lasts).await;
                for party in &mut self.parties {
                    party.process.start();
                }
                Ok(at)
            }
        }
    }

    /// A fault of PostgreSQL itself; when it began.
    async fn inflict_on_store(&self, fault: Fault) -> Timestamp {
        let clock = Clock::system();
        if fault.kind == Kind::FillDisk {
            self.postgres.execute(&self.database, DISK_IS_FULL).await;
            let at = clock.now();
            let create = "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE OR DELETE";
            self.refuse_writes(create, "EXECUTE FUNCTION disk_is_full()").await;
            tokio::time::sleep(fault.lasts).await;
            self.refuse_writes("DROP TRIGGER full_disk", "").await;
            return at;
        }
        let how = if fault.kind == Kind::KillPostgres { Stop::Kill } else { Stop::Fast };
        let at = clock.now();
        block_in_place(|| self.postgres.stop(how));
        tokio::time::sleep(fault.lasts).await;
        self.postgres.start_again().await;
        at
    }

    /// Changes the trigger that refuses writes on every table, one after the other: all at once would
    /// be a deadlock with whoever writes.
    async fn refuse_writes(&self, before: &str, after: &str) {
        for table in TABLES {
            self.postgres.execute(&self.database, &format!("{before} ON {table} {after}")).await;
        }
    }

    /// Waits until everything is well: the ensemble is whole, every member is ready, one leads, and
    /// what comes due from now on reaches Airflow, by the clock and by znodes.
    pub(crate) async fn settled(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        self.ensemble.is_whole().await;
        let leader = self.one_leads(deadline).await?;
        let since = Clock::system().now();
        for index in 0..MEMBERS {
            while self.parties[index].process.text("readyz").await.is_none() {
                if Instant::now() > deadline {
                    return Err(format!("member {index} is not ready"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for dag_id in [MEASURED_CRON, MEASURED_CHANGES] {
            while !self.arrives(dag_id, since) {
                if Instant::now() > deadline {
                    return Err(format!("member {leader} leads, and no run of {dag_id} arrives any more"));
                }
                if let Some(status) = self.parties[leader].process.ended() {
                    return Err(format!("member {leader}, which led, ended by itself: {status}"));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Whether a run has arrived that the present leader has found since this moment.
    fn arrives(&self, dag_id: &str, since: Timestamp) -> bool {
        let world = self.calm.world();
        let last = world.runs().iter().rev().take(100).find(|run| run.dag_id == dag_id);
        last.is_some_and(|run| run.logical_date.unwrap_or(run.queued_at) >= since)
    }

    /// Whether the second Airflow fails requests.
    pub(crate) fn fail_requests(&self, fail: bool) {
        let faults = vec![
            AirflowFault::ErrorBefore,
            AirflowFault::ErrorAfter,
            AirflowFault::ResetBefore,
            AirflowFault::ResetAfter,
            AirflowFault::HangBefore,
            AirflowFault::HangAfter,
            AirflowFault::TooMany(0),
            AirflowFault::TokensExpire,
            AirflowFault::Html,
            AirflowFault::Truncated,
        ];
        self.faulty.world().chaos = fail.then_some((5, faults));
    }

    /// Ends the members in order.
    pub(crate) async fn stop_members(&mut self) -> Result<(), String> {
        for (index, party) in self.parties.iter_mut().enumerate() {
            let code = party.process.stop().await;
            if code != Some(0) {
                return Err(format!("asked to end, member {index} ended with {code:?}"));
            }
        }
        Ok(())
    }

    /// Every row of the ledger.
    pub(crate) async fn runs(&self) -> Vec<Run> {
        self.parties[0].process.runs().await
    }

    /// Every DAG run of both Airflows.
    pub(crate) fn dag_runs(&self) -> Vec<DagRun> {
        let of = |airflow: &'static str, fake: &FakeAirflow| {
            let dag_run = |run: &fake_airflow::Run| DagRun {
                airflow,
                dag_id: run.dag_id.clone(),
                id: run.dag_run_id.clone(),
                logical_date: run.logical_date,
                accepted: run.queued_at,
                ended: run.ended_at,
                conf: serde_json::from_str(&run.conf).expect("a conf in JSON"),
            };
            fake.world().runs().iter().map(dag_run).collect::<Vec<_>>()
        };
        [of(CALM, &self.calm), of(FAULTY, &self.faulty)].concat()
    }

    /// Copies the logs of the members to a place where they stay.
    pub(crate) fn keep_logs(&self, directory: &Path) -> PathBuf {
        std::fs::create_dir_all(directory).expect("a directory for logs");
        for (index, party) in self.parties.iter().enumerate() {
            std::fs::write(directory.join(format!("member-{index}.log")), party.process.logged()).expect("keep a log");
        }
        directory.to_owned()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.scheduler.abort();
    }
}

fn airflow() -> World {
    let mut world = World::default();
    let dags = CRON.into_iter().chain(EDITED_NAMES).chain(ZNODES);
    world.dags.extend(dags.map(|dag_id| (dag_id.to_owned(), fake_airflow::Dag::default())));
    world
}

/// Lets DAG runs go on by themselves.
async fn advance(calm: Arc<FakeAirflow>, faulty: Arc<FakeAirflow>) {
    loop {
        tokio::time::sleep(SCHEDULER).await;
        calm.world().advance();
        faulty.world().advance();
    }
}
