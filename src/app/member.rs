//! What lives as long as the process: clients, ledger, sessions with ensembles, what is known of DAGs.
//!
//! A member that stands by keeps all of it warm, so that a term begins without waiting for anybody.
//! What only a leader does is in [`super::term`].

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connect::{self, ConnectError};
use super::owner::{self, Owner};
use super::{ServeError, ServeOptions};
use crate::airflow::Airflow;
use crate::airflow::dags::{self, DagDirectory};
use crate::clock::Clock;
use crate::config::model::ZooKeeper;
use crate::config::{Config, Environment};
use crate::domain::schedule::{Schedule, Trigger, TriggerKind};
use crate::http::{self, Access, Api, Peers};
use crate::lifecycle::Lifecycle;
use crate::members::Sight;
use crate::metrics;
use crate::operations::{Operations, OperationsParts};
use crate::status::Status;
use crate::store::{Leadership, Ledger, StoreError};
use crate::triggers::gatekeeper::Directories;
use crate::triggers::lineage::{Lineage, Lineages};
use crate::zookeeper::{Ensemble, MemberCard, Membership, MembershipParts, member_id};

/// How long the first look at an Airflow may take before a term begins without knowing which DAGs are
/// paused; the ledger remembers what was known last.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(3);

/// The znode below `root` in which the store that works there has its mark.
const STORE_NODE: &str = "store";

/// Ensembles by the name that triggers give them; `None` is the home ensemble.
pub(super) type Ensembles = HashMap<Option<Arc<str>>, Ensemble>;

/// A member with everything that outlives its terms.
pub(super) struct Member {
    /// Nothing is submitted to Airflow and nothing deleted in ZooKeeper, also not what was recorded
    /// before by a member that was no shadow.
    pub(super) shadow: bool,
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) lifecycle: Lifecycle,
    pub(super) ledger: Ledger,
    pub(super) schedules: Arc<Vec<Arc<Schedule>>>,
    pub(super) airflows: HashMap<Arc<str>, Airflow>,
    pub(super) ensembles: Ensembles,
    /// How the ledger and each watched ensemble stand to each other, by the same names.
    pub(super) lineages: Lineages,
    pub(super) directories: Directories,
    pub(super) status: Status,
    /// What the other members are told of this one.
    pub(super) card: MemberCard,
    /// Its place among the others; `None` without `[zookeeper]`, and for a shadow: a shadow has a store
    /// of its own and competes with nobody.
    pub(super) membership: Option<Membership>,
    /// Whose root it is.
    pub(super) owner: watch::Receiver<Owner>,
    /// The lead, while this member has it.
    pub(super) lead: watch::Sender<Option<Leadership>>,
    /// What is known of the members.
    pub(super) sight: watch::Sender<Sight>,
    /// Since when the store does not tell who leads; `None` while it does.
    pub(super) store_silent_since: watch::Sender<Option<Instant>>,
    /// The first looks at each Airflow that are still under way.
    first_looks: TaskTracker,
}

impl Member {
    /// Opens the store and starts what is kept warm.
    pub(super) async fn open(
        config: Config,
        environment: Environment,
        options: ServeOptions,
        lifecycle: Lifecycle,
    ) -> Result<Self, ServeError> {
        let clock = Clock::system();
        let environment = Arc::new(environment);
        let airflows = airflows(&config, &environment, &clock)?;
        let store = config
            .store
            .address(&environment)
            .map_err(|error| ConnectError::Secret { key: "store.password".to_owned(), reason: error.to_string() })?;
        let ledger = if options.shadow {
            Ledger::open_shadow(store.expose(), clock.clone()).await?
        } else {
            Ledger::open(store.expose(), clock.clone()).await?
        };
        lifecycle.watch("ledger's writer", ledger.vigil());
        let ensembles = ensembles(&config, &environment, &clock, &lifecycle)?;
        for ensemble in ensembles.values() {
            lifecycle.watch("ensemble", ensemble.vigil());
        }
        let lineages = lineages(&config, &ensembles, options);
        let (directories, first_looks) = directories(&config, &airflows, &lifecycle);
        let card = card(&config, &ledger, clock.now());
        let membership = if options.shadow { None } else { membership(&config, &environment, &clock, &card)? };
        if let Some(membership) = &membership {
            lifecycle.watch("membership", membership.vigil());
        }
        let owner = follow_owner(&config, &ensembles, &lifecycle);
        for kind in [TriggerKind::Cron, TriggerKind::Znode] {
            let count = config.schedules.iter().filter(|schedule| schedule.trigger.kind() == kind).count();
            metrics::schedules(kind, count);
        }
        metrics::ledger_writable(true);
        metrics::leader(false);
        Ok(Self {
            shadow: options.shadow,
            schedules: Arc::new(config.schedules.clone()),
            config,
            clock,
            lifecycle,
            ledger,
            airflows,
            ensembles,
            lineages,
            directories,
            status: Status::new(),
            sight: watch::Sender::new(Sight { own: Some(card.clone()), ..Sight::default() }),
            card,
            membership,
            owner,
            lead: watch::Sender::new(None),
            store_silent_since: watch::Sender::new(None),
            first_looks,
        })
    }

    /// The home ensemble, and the root of flowkeeper's znodes there.
    pub(super) fn home(&self) -> Option<(Ensemble, Arc<str>)> {
        let root = self.config.zookeeper.as_ref()?.root.as_str().into();
        Some((self.ensembles.get(&None)?.clone(), root))
    }

    /// Where runs can be read, for the notes of DAG runs; `None` where nobody could follow a link.
    pub(super) fn link(&self) -> Option<String> {
        let server = &self.config.server;
        let listens = (!server.listen.ip().is_unspecified()).then(|| format!("http://{}", server.listen));
        server.advertise.clone().or(listens)
    }

    /// The ensembles that a schedule watches.
    pub(super) fn watched_ensembles(&self) -> impl Iterator<Item = &Ensemble> {
        let watched: BTreeSet<_> = self
            .schedules
            .iter()
            .filter_map(|schedule| match &schedule.trigger {
                Trigger::Znode(trigger) => Some(&trigger.ensemble),
                Trigger::Cron(_) => None,
            })
            .collect();
        watched.into_iter().filter_map(|name| self.ensembles.get(name))
    }

    /// Waits until each Airflow was asked once which DAGs are paused, early in the life of the process.
    pub(super) async fn first_looks(&self) {
        self.first_looks.wait().await;
    }

    /// Serves the API for as long as the process lives.
    pub(super) fn spawn_api(
        &self,
        listener: TcpListener,
        metrics: PrometheusHandle,
        access: Access,
    ) -> Result<(), ServeError> {
        let peers = Peers::new(self.sight.subscribe()).map_err(|error| ServeError::Peers(error.to_string()))?;
        let (schedules_sender, schedules) = watch::channel(Arc::clone(&self.schedules));
        let operations = Operations::new(OperationsParts {
            ledger: self.ledger.clone(),
            leadership: self.lead.subscribe(),
            schedules: schedules.clone(),
            airflows: self.airflows.clone(),
            lineages: self.lineages.clone(),
            clock: self.clock.clone(),
        });
        let api = Api {
            ledger: self.ledger.clone(),
            operations,
            schedules,
            clock: self.clock.clone(),
            status: self.status.clone(),
            access,
            home: self.home(),
            peers,
            metrics,
            shutdown: self.lifecycle.ending().clone(),
        };
        self.lifecycle.spawn("HTTP API", async move {
            let served = http::serve(listener, api).await;
            drop(schedules_sender);
            served
        });
        Ok(())
    }
}

/// Takes the address of `[server] listen`.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// What this process tells the others of itself.
fn card(config: &Config, ledger: &Ledger, started: Timestamp) -> MemberCard {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let server = &config.server;
    let port = server.listen.port();
    let reached_at = || match server.listen.ip() {
        ip if ip.is_unspecified() => format!("http://{host}:{port}"),
        _ => format!("http://{}", server.listen),
    };
    MemberCard {
        id: member_id(&format!("{host}:{port}")),
        url: Some(server.advertise.clone().unwrap_or_else(reached_at)),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store_id: ledger.store_id().to_owned(),
        store_url: ledger.url(),
        configuration_version: config.version.clone(),
        started: Some(started),
        host,
    }
}

/// Begins to take part among the members that share the home ensemble.
fn membership(
    config: &Config,
    environment: &Arc<Environment>,
    clock: &Clock,
    card: &MemberCard,
) -> Result<Option<Membership>, ConnectError> {
    let Some(zookeeper) = &config.zookeeper else { return Ok(None) };
    let settings = connect::zookeeper(zookeeper.connection.clone(), Arc::clone(environment), "zookeeper".to_owned())?;
    let root = Arc::from(zookeeper.root.as_str());
    let parts = MembershipParts { settings, root, card: card.clone(), clock: clock.clone() };
    // It ends when it is asked to leave, after the last term.
    Ok(Some(Membership::start(parts, CancellationToken::new())))
}

fn airflows(
    config: &Config,
    environment: &Environment,
    clock: &Clock,
) -> Result<HashMap<Arc<str>, Airflow>, ConnectError> {
    let airflows = config.airflows.iter();
    airflows
        .map(|(name, settings)| Ok((Arc::clone(name), connect::airflow(settings, environment, clock.clone())?)))
        .collect()
}

/// Connects to the home ensemble, if there is one, and to every other that a schedule watches.
fn ensembles(
    config: &Config,
    environment: &Arc<Environment>,
    clock: &Clock,
    lifecycle: &Lifecycle,
) -> Result<Ensembles, ConnectError> {
    let watched = config.schedules.iter().filter_map(|schedule| match &schedule.trigger {
        Trigger::Znode(trigger) => Some(trigger.ensemble.clone()),
        Trigger::Cron(_) => None,
    });
    let names: BTreeSet<_> = std::iter::once(None).chain(watched).collect();
    let mut ensembles = Ensembles::new();
    for name in names {
        // The configuration was checked: a schedule names only ensembles that there are.
        let Some(connection) = config.connection(name.as_deref()) else { continue };
        let key = name.as_ref().map_or_else(|| "zookeeper".to_owned(), |name| format!("ensemble.{name}"));
        let settings = connect::zookeeper(connection.clone(), Arc::clone(environment), key)?;
        let ensemble = Ensemble::start(name.clone(), settings, clock.clone(), lifecycle.ending().clone());
        ensembles.insert(name, ensemble);
    }
    Ok(ensembles)
}

/// Reads whose root it is for as long as the process lives.
fn follow_owner(config: &Config, ensembles: &Ensembles, lifecycle: &Lifecycle) -> watch::Receiver<Owner> {
    let (sender, owner) = watch::channel(Owner::Unread);
    if let (Some(home), Some(ensemble)) = (&config.zookeeper, ensembles.get(&None)) {
        let follow = owner::follow(ensemble.clone(), store_node(home).into(), sender);
        let ending = lifecycle.ending().clone();
        lifecycle.spawn("owner of the root", async move {
            let () = ending.run_until_cancelled(follow).await.unwrap_or_default();
            Ok::<(), StoreError>(())
        });
    }
    owner
}

/// The path of the znode in which the store that works under a root has its mark.
fn store_node(home: &ZooKeeper) -> String {
    format!("{}/{STORE_NODE}", home.root)
}

/// How the ledger and each ensemble stand to each other. A shadow writes nothing into ZooKeeper.
fn lineages(config: &Config, ensembles: &Ensembles, options: ServeOptions) -> Lineages {
    let written = config.zookeeper.as_ref().filter(|_| !options.shadow);
    let lineage = |name: &Option<Arc<str>>| match (name, written) {
        (None, Some(home)) => Lineage::home(&store_node(home)),
        _ => Lineage::unwritten(name.clone()),
    };
    ensembles.keys().map(|name| (name.clone(), lineage(name))).collect()
}

/// Follows what each Airflow knows of the DAGs that schedules use; the tracker has a token for each
/// that was not asked yet.
fn directories(
    config: &Config,
    airflows: &HashMap<Arc<str>, Airflow>,
    lifecycle: &Lifecycle,
) -> (Directories, TaskTracker) {
    let mut directories = Directories::new();
    let first_looks = TaskTracker::new();
    for (name, airflow) in airflows {
        let used = config.schedules.iter().filter(|schedule| schedule.airflow == *name);
        let dags: BTreeSet<String> = used.map(|schedule| schedule.dag_id.to_string()).collect();
        let dags: Vec<String> = dags.into_iter().collect();
        let (sender, directory) = watch::channel(DagDirectory::default());
        let (airflow, ending) = (airflow.clone(), lifecycle.ending().clone());
        let under_way = first_looks.token();
        let follow = async move {
            sender.send_replace(dags::first(&airflow, &dags, DIRECTORY_PATIENCE).await);
            drop(under_way);
            dags::refresh(airflow, dags, sender).await;
        };
        lifecycle.spawn("DAG directory", async move {
            let () = ending.run_until_cancelled(follow).await.unwrap_or_default();
            Ok::<(), StoreError>(())
        });
        directories.insert(Arc::clone(name), directory);
    }
    first_looks.close();
    (directories, first_looks)
}
