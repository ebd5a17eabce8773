//! What a set of definitions needs from the process: clients of Airflows, sessions with ensembles, what
//! is known of DAGs.
//!
//! A set is equipped beside the one before it: what stays the same is shared by both, what is new is
//! started, and what nobody shares any more ends when the last set that has it is dropped. So a change
//! of one section disturbs no other. An incarnation numbers each of them, for the parts that depend on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::connect::{self, ConnectError, Watched};
use crate::airflow::Airflow;
use crate::airflow::dags::{self, DagDirectory};
use crate::clock::Clock;
use crate::config::model::{self, Connection, ZooKeeper};
use crate::config::{Config, Environment};
use crate::domain::schedule::Trigger;
use crate::health::Inspector;
use crate::lifecycle::Lifecycle;
use crate::operations::Airflows;
use crate::store::StoreError;
use crate::triggers::gatekeeper::Directories;
use crate::triggers::lineage::{Lineage, Lineages};
use crate::zookeeper::Ensemble;

/// How long the first look at an Airflow may take before a term begins without knowing which DAGs are
/// paused; the ledger remembers what was known last.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(3);

/// The znode below `root` in which the store that works there has its mark.
const STORE_NODE: &str = "store";

/// What resources are made with: the same for as long as the process lives.
#[derive(Clone)]
pub(super) struct Workshop {
    pub(super) environment: Arc<Environment>,
    pub(super) clock: Clock,
    pub(super) lifecycle: Lifecycle,
    /// A shadow writes nothing into ZooKeeper.
    pub(super) shadow: bool,
    incarnations: Arc<AtomicU64>,
}

impl Workshop {
    pub(super) fn new(environment: Arc<Environment>, clock: Clock, lifecycle: Lifecycle, shadow: bool) -> Self {
        Self { environment, clock, lifecycle, shadow, incarnations: Arc::default() }
    }

    fn next_incarnation(&self) -> u64 {
        self.incarnations.fetch_add(1, Ordering::Relaxed)
    }
}

/// A client of an Airflow.
pub(super) struct KeptAirflow {
    pub(super) client: Airflow,
    pub(super) incarnation: u64,
    settings: model::Airflow,
}

/// A session with an ensemble, and how it stands to the ledger.
pub(super) struct KeptEnsemble {
    pub(super) ensemble: Ensemble,
    pub(super) lineage: Lineage,
    pub(super) incarnation: u64,
    connection: Connection,
    _over: DropGuard,
}

/// What one Airflow says of the DAGs that schedules use.
struct KeptDirectory {
    directory: watch::Receiver<DagDirectory>,
    /// Whether it was asked once.
    asked: watch::Receiver<bool>,
    dags: Vec<String>,
    airflow: u64,
    _over: DropGuard,
}

/// Everything that a set needs. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Resources {
    pub(super) airflows: BTreeMap<Arc<str>, Arc<KeptAirflow>>,
    /// By the name that triggers give them; `None` is the home ensemble.
    pub(super) ensembles: HashMap<Option<Arc<str>>, Arc<KeptEnsemble>>,
    /// Looks at the health of ensembles for those who ask.
    pub(super) inspector: Arc<Inspector>,
    /// The ensembles whose health the leader checks.
    pub(super) watched: Arc<Vec<Watched>>,
    directories: HashMap<Arc<str>, Arc<KeptDirectory>>,
}

impl Resources {
    /// What `config` needs. What `before` has and is still right is taken over.
    pub(super) fn equip(config: &Config, before: &Self, workshop: &Workshop) -> Result<Self, ConnectError> {
        let mut airflows = BTreeMap::new();
        for (name, settings) in &config.airflows {
            let known = before.airflows.get(name).filter(|known| same_client(&known.settings, settings));
            let kept = match known {
                Some(known) => Arc::clone(known),
                None => Arc::new(KeptAirflow {
                    client: connect::airflow(settings, &workshop.environment, workshop.clock.clone())?,
                    incarnation: workshop.next_incarnation(),
                    settings: settings.clone(),
                }),
            };
            airflows.insert(Arc::clone(name), kept);
        }
        let mut ensembles = HashMap::new();
        for name in ensembles_of(config) {
            // The configuration was checked: a schedule names only ensembles that there are.
            let Some(connection) = config.connection(name.as_deref()) else { continue };
            let known = before.ensembles.get(&name).filter(|known| known.connection == *connection);
            let kept = match known {
                Some(known) => Arc::clone(known),
                None => Arc::new(KeptEnsemble::start(name.clone(), connection, config, workshop)?),
            };
            ensembles.insert(name, kept);
        }
        let mut directories = HashMap::new();
        for (name, airflow) in &airflows {
            let dags = dags_of(config, name);
            let known = before.directories.get(name).filter(|known| known.airflow == airflow.incarnation);
            let kept = match known {
                Some(known) if known.dags == dags => Arc::clone(known),
                known => Arc::new(KeptDirectory::follow(airflow, dags, known, workshop)),
            };
            directories.insert(Arc::clone(name), kept);
        }
        let watched = connect::watched(config, &workshop.environment)?.into_iter().map(|watched| {
            let known = before.watched.iter().find(|known| known.identity == watched.identity);
            known.cloned().unwrap_or(watched)
        });
        let watched: Arc<Vec<_>> = Arc::new(watched.collect());
        let inspector = Arc::new(Inspector::new(watched.iter().map(|watched| Arc::clone(&watched.target))));
        Ok(Self { airflows, ensembles, inspector, watched, directories })
    }

    /// The clients by name.
    pub(super) fn clients(&self) -> Airflows {
        Arc::new(self.airflows.iter().map(|(name, kept)| (Arc::clone(name), kept.client.clone())).collect())
    }

    /// How the ledger and each ensemble stand to each other.
    pub(super) fn lineages(&self) -> Arc<Lineages> {
        Arc::new(self.ensembles.iter().map(|(name, kept)| (name.clone(), kept.lineage.clone())).collect())
    }

    /// What is known of the DAGs of each Airflow.
    pub(super) fn directories(&self) -> Directories {
        self.directories.iter().map(|(name, kept)| (Arc::clone(name), kept.directory.clone())).collect()
    }

    /// Waits until each Airflow was asked once which of the DAGs are paused. That takes a few seconds at
    /// most, also where one does not answer.
    pub(super) async fn asked(&self) {
        for kept in self.directories.values() {
            // Who asks ends early only with the process.
            drop(kept.asked.clone().wait_for(|asked| *asked).await);
        }
    }
}

impl KeptEnsemble {
    /// Begins to connect.
    fn start(
        name: Option<Arc<str>>,
        connection: &Connection,
        config: &Config,
        workshop: &Workshop,
    ) -> Result<Self, ConnectError> {
        let key = name.as_ref().map_or_else(|| "zookeeper".to_owned(), |name| format!("ensemble.{name}"));
        let settings = connect::zookeeper(connection.clone(), Arc::clone(&workshop.environment), key)?;
        let over = workshop.lifecycle.ending().child_token();
        let lineage = match (&name, config.zookeeper.as_ref().filter(|_| !workshop.shadow)) {
            (None, Some(home)) => Lineage::home(&store_node(home)),
            _ => Lineage::at(name.clone(), &connection.connect),
        };
        let ensemble = Ensemble::start(name, settings, workshop.clock.clone(), over.clone());
        workshop.lifecycle.watch_until("ensemble", ensemble.vigil(), over.clone());
        Ok(Self {
            ensemble,
            lineage,
            incarnation: workshop.next_incarnation(),
            connection: connection.clone(),
            _over: over.drop_guard(),
        })
    }
}

impl KeptDirectory {
    /// Begins to ask. What was `known` of these DAGs holds until there is an answer.
    fn follow(airflow: &KeptAirflow, dags: Vec<String>, known: Option<&Arc<Self>>, workshop: &Workshop) -> Self {
        let known = known.map(|known| known.directory.borrow().clone()).unwrap_or_default();
        let (sender, directory) = watch::channel(known);
        let (first_look, asked) = watch::channel(false);
        let over = workshop.lifecycle.ending().child_token();
        let (client, follow_until) = (airflow.client.clone(), over.clone());
        let own_dags = dags.clone();
        let follow = async move {
            if let Some(found) = dags::first(&client, &own_dags, DIRECTORY_PATIENCE).await {
                sender.send_replace(found);
            }
            first_look.send_replace(true);
            dags::refresh(client, own_dags, sender).await;
        };
        workshop.lifecycle.spawn("DAG directory", async move {
            let () = follow_until.run_until_cancelled(follow).await.unwrap_or_default();
            Ok::<(), StoreError>(())
        });
        Self { directory, asked, dags, airflow: airflow.incarnation, _over: over.drop_guard() }
    }
}

/// The path of the znode in which the store that works under a root has its mark.
pub(super) fn store_node(home: &ZooKeeper) -> String {
    format!("{}/{STORE_NODE}", home.root)
}

/// Whether one client serves both sections: how many requests may be under way and what is recorded
/// makes no other client.
fn same_client(one: &model::Airflow, other: &model::Airflow) -> bool {
    one.url == other.url
        && one.auth == other.auth
        && one.headers == other.headers
        && one.ca == other.ca
        && one.timeout == other.timeout
}

/// The home ensemble, and every other that a schedule or a sync watches.
fn ensembles_of(config: &Config) -> BTreeSet<Option<Arc<str>>> {
    let watched = config.schedules.iter().filter_map(|schedule| match &schedule.trigger {
        Trigger::Znode(trigger) => Some(trigger.ensemble.clone()),
        Trigger::Cron(_) | Trigger::Ensemble(_) => None,
    });
    let synced = config.syncs.iter().map(|sync| sync.ensemble.clone());
    std::iter::once(None).chain(watched).chain(synced).collect()
}

/// The DAGs that schedules run in an Airflow, sorted.
fn dags_of(config: &Config, airflow: &Arc<str>) -> Vec<String> {
    let used = config.schedules.iter().filter(|schedule| schedule.airflow == *airflow);
    let dags: BTreeSet<&str> = used.map(|schedule| &*schedule.dag_id).collect();
    dags.into_iter().map(ToOwned::to_owned).collect()
}
