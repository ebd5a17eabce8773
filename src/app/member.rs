//! What lives as long as the process: clients, ledger, sessions with ensembles, what is known of DAGs.
//!
//! A member that stands by keeps all of it warm, so that a term begins without waiting for anybody.
//! What only a leader does is in [`super::term`].

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connect::{self, ConnectError};
use super::exposure;
use super::in_force::Board;
use super::owner::{self, Owner};
use super::reload::{self, Refused};
use super::resources::{Resources, Workshop, store_node};
use super::{ServeError, ServeOptions};
use crate::clock::Clock;
use crate::config::model::DefinitionsSource;
use crate::config::{Config, Environment};
use crate::definitions::desk::Desk;
use crate::definitions::reloads::Reloads;
use crate::definitions::{Set, follower};
use crate::health::Latest;
use crate::http::{self, Access, Api, Peers};
use crate::lifecycle::Lifecycle;
use crate::members::Sight;
use crate::metrics;
use crate::operations::{Operations, OperationsParts};
use crate::status::Status;
use crate::store::{Leadership, Ledger, StoreError};
use crate::sync::Desks;
use crate::zookeeper::{Ensemble, MemberCard, Membership, MembershipParts, member_id};

/// A member with everything that outlives its terms.
pub(super) struct Member {
    /// Nothing is submitted to Airflow and nothing deleted in ZooKeeper, also not what was recorded
    /// before by a member that was no shadow.
    pub(super) shadow: bool,
    /// The sections of the main file are those that the process began with.
    pub(super) main: Arc<Config>,
    pub(super) clock: Clock,
    pub(super) lifecycle: Lifecycle,
    pub(super) ledger: Ledger,
    /// The znode that holds the definitions, where they are in ZooKeeper.
    pub(super) znode: Option<follower::Parts>,
    /// The znode that pushed definitions are written to; `None` without `[zookeeper]`.
    place: Option<follower::Parts>,
    /// The definitions in force.
    pub(super) board: Board,
    /// The newest definitions, where they are refused.
    pub(super) refused: watch::Sender<Option<Refused>>,
    /// Sections of the main file that were changed since the process began with it.
    pub(super) restart: watch::Sender<Vec<String>>,
    /// What the resources of definitions are made with.
    pub(super) workshop: Workshop,
    pub(super) status: Status,
    /// What was seen of ensembles in the rounds of the term.
    pub(super) inspections: Latest,
    /// What the other members are told of this one.
    pub(super) card: MemberCard,
    /// Its place among the others; `None` without `[zookeeper]`, and for a shadow: a shadow has a store
    /// of its own and competes with nobody.
    pub(super) membership: Option<Membership>,
    /// Whose root it is.
    pub(super) owner: watch::Receiver<Owner>,
    /// Where syncs take orders.
    pub(super) desks: Desks,
    /// The lead, while this member has it.
    pub(super) lead: watch::Sender<Option<Leadership>>,
    /// What is known of the members.
    pub(super) sight: watch::Sender<Sight>,
    /// Since when the store does not tell who leads; `None` while it does.
    pub(super) store_silent_since: watch::Sender<Option<Instant>>,
}

impl Member {
    /// Opens the store and starts what is kept warm.
    pub(super) async fn open(
        set: Set,
        environment: Arc<Environment>,
        options: ServeOptions,
        lifecycle: Lifecycle,
    ) -> Result<Self, ServeError> {
        let clock = Clock::system();
        let config = Arc::clone(&set.config);
        let workshop = Workshop::new(Arc::clone(&environment), clock.clone(), lifecycle.clone(), options.shadow);
        let store = config.store.address(&environment).map_err(|error| ConnectError::Secret {
            key: "store.password".to_owned(),
            reason: error.to_string(),
            lasts: true,
        })?;
        let ledger = if options.shadow {
            Ledger::open_shadow(store.expose(), clock.clone()).await?
        } else {
            Ledger::open(store.expose(), clock.clone()).await?
        };
        lifecycle.watch("ledger's writer", ledger.vigil());
        let first = Resources::equip(&config, &Resources::default(), &workshop)?;
        let place = definitions_place(&config, &first, &environment, &ledger, &clock);
        let znode = place.clone().filter(|_| config.server.definitions == DefinitionsSource::ZooKeeper);
        let (in_force, refused) = match &znode {
            Some(znode) => {
                let opening = znode.opening(|set| reload::first_or_refusal(set, &first, &workshop)).await?;
                (opening.begun, opening.refused)
            }
            None => (reload::first(set, &first, &workshop)?, None),
        };
        let in_force = Arc::new(in_force);
        let config = Arc::clone(&in_force.config);
        let summary = refused.as_ref().map(|refusal| refusal.summary());
        let card = MemberCard { refuses: summary, ..card(&config, &ledger, clock.now()) };
        let membership = if options.shadow { None } else { membership(&config, &environment, &clock, &card)? };
        if let Some(membership) = &membership {
            lifecycle.watch("membership", membership.vigil());
        }
        let owner = follow_owner(&config, &in_force.resources, &lifecycle);
        metrics::ledger_writable(true);
        metrics::leader(false);
        let member = Self {
            shadow: options.shadow,
            board: Board::new(in_force, clock.now()),
            refused: watch::Sender::new(None),
            restart: watch::Sender::default(),
            workshop,
            main: config,
            clock,
            lifecycle,
            ledger,
            znode,
            place,
            status: Status::new(),
            inspections: Latest::default(),
            sight: watch::Sender::new(Sight { own: Some(card.clone()), ..Sight::default() }),
            card,
            membership,
            owner,
            desks: Desks::default(),
            lead: watch::Sender::new(None),
            store_silent_since: watch::Sender::new(None),
        };
        if let Some(refusal) = refused {
            reload::refuse(&member, &refusal, Vec::new());
        }
        Ok(member)
    }

    /// The home ensemble, and the root of flowkeeper's znodes there.
    pub(super) fn home(&self) -> Option<(Ensemble, Arc<str>)> {
        Some((self.board.now().resources.ensembles.get(&None)?.ensemble.clone(), self.root()?))
    }

    /// The root of flowkeeper's own znodes in the home ensemble.
    pub(super) fn root(&self) -> Option<Arc<str>> {
        Some(self.main.zookeeper.as_ref()?.root.as_str().into())
    }

    /// Where runs can be read, for the notes of DAG runs; `None` where nobody could follow a link.
    pub(super) fn link(&self) -> Option<String> {
        let server = &self.main.server;
        let listens = (!server.listen.ip().is_unspecified()).then(|| format!("http://{}", server.listen));
        server.advertise.clone().or(listens)
    }

    /// Serves the API for as long as the process lives.
    pub(super) fn spawn_api(
        &self,
        listener: TcpListener,
        metrics: PrometheusHandle,
        access: Access,
        reloads: Reloads,
    ) -> Result<(), ServeError> {
        let peers = Peers::new(self.sight.subscribe()).map_err(|error| ServeError::Peers(error.to_string()))?;
        let operations = Operations::new(OperationsParts {
            ledger: self.ledger.clone(),
            leadership: self.lead.subscribe(),
            schedules: self.board.schedules(),
            teams: self.board.teams(),
            airflows: self.board.airflows(),
            lineages: self.board.lineages(),
            desks: self.desks.clone(),
            clock: self.clock.clone(),
        });
        let api = Api {
            ledger: self.ledger.clone(),
            operations,
            definitions: Desk::new(self.place.clone().filter(|_| !self.shadow), Arc::clone(&self.main)),
            schedules: self.board.schedules(),
            clock: self.clock.clone(),
            status: self.status.clone(),
            access,
            home: self.home(),
            config: self.board.config(),
            reloads,
            inspector: self.board.inspector(),
            peers,
            inspections: self.inspections.subscribe(),
            metrics,
            shutdown: self.lifecycle.ending().clone(),
        };
        self.lifecycle.spawn("HTTP API", http::serve(listener, api));
        Ok(())
    }
}

/// Where definitions are in ZooKeeper, if this member has a home ensemble.
fn definitions_place(
    config: &Config,
    resources: &Resources,
    environment: &Arc<Environment>,
    ledger: &Ledger,
    clock: &Clock,
) -> Option<follower::Parts> {
    let home = config.zookeeper.as_ref()?;
    Some(follower::Parts {
        ensemble: resources.ensembles.get(&None)?.ensemble.clone(),
        path: format!("{}/{}", home.root.trim_end_matches('/'), follower::ZNODE).into(),
        main_file: Arc::new(config.file.clone()),
        environment: Arc::clone(environment),
        ledger: ledger.clone(),
        clock: clock.clone(),
    })
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
        refuses: None,
        configuration_since: Some(started),
        schedules: Some(config.schedules.len()),
        unrecorded_since: None,
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

/// Reads whose root it is for as long as the process lives.
fn follow_owner(config: &Config, resources: &Resources, lifecycle: &Lifecycle) -> watch::Receiver<Owner> {
    let (sender, owner) = watch::channel(Owner::Unread);
    if let (Some(home), Some(ensemble)) = (&config.zookeeper, resources.ensembles.get(&None)) {
        let follow = owner::follow(ensemble.ensemble.clone(), store_node(home).into(), sender);
        let ending = lifecycle.ending().clone();
        lifecycle.spawn("owner of the root", async move {
            let () = ending.run_until_cancelled(follow).await.unwrap_or_default();
            Ok::<(), StoreError>(())
        });
        let watch = exposure::watch(ensemble.ensemble.clone(), home.root.as_str().into());
        let ending = lifecycle.ending().clone();
        lifecycle.spawn("exposure of the root", async move {
            let () = ending.run_until_cancelled(watch).await.unwrap_or_default();
            Ok::<(), StoreError>(())
        });
    }
    owner
}
