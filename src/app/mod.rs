//! Puts the parts together: a member that lives as long as the process, and the terms in which it leads.
//!
//! `member` holds what outlives a term, `term` what runs while this member leads, and `standing` decides
//! which of the two it is. `in_force` has the definitions, `reload` takes newer ones, `resources` has
//! what they need, `duties` says which parts a term has for them. [`serve`] is one straight function from a checked configuration to a running
//! member; it decides nothing but the order in which parts start and end.

pub mod connect;
mod crew;
mod duties;
mod exposure;
mod herald;
mod in_force;
mod join;
pub mod logging;
mod lookout;
mod member;
mod owner;
mod parts;
pub mod preflight;
mod reload;
mod resources;
mod standing;
mod term;
mod witness;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt as _;
use metrics_exporter_prometheus::BuildError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Environment, Fault};
use crate::definitions::follower::OpeningError;
use crate::definitions::reloads::{Look, Reloads};
use crate::definitions::{self, Set};
use crate::http::Access;
use crate::lifecycle::Lifecycle;
use crate::metrics;
use crate::store::StoreError;
use connect::ConnectError;
use member::Member;

/// How many wishes to look at the definitions may wait.
const LOOKS: usize = 16;

/// How a member serves.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeOptions {
    /// Record everything, submit nothing.
    pub shadow: bool,
}

/// Why a member could not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A client cannot be set up.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address is taken or not ours.
    #[error("listen on {address}: {source}")]
    Listen {
        /// `[server] listen`.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The metrics registry is there already, or cannot be made.
    #[error("set up metrics: {0}")]
    Metrics(#[from] BuildError),
    /// A token of `[[server.token]]` cannot be read.
    #[error("read the token of the API: {0}")]
    Token(String),
    /// The client for calling other members cannot be made.
    #[error("set up the client for other members: {0}")]
    Peers(String),
    /// The process cannot hear signals.
    #[error("listen for signals: {0}")]
    Signals(io::Error),
    /// Without `[zookeeper]` a member that was replaced has nothing left to do.
    #[error("go on serving: a newer member has taken the lead on this store")]
    Replaced,
    /// The members under this root have another store.
    #[error(
        "join the other members: this member's store is `{own_url}` ({own_id}), that of the member {member} is \
         `{other_url}` ({other_id})"
    )]
    OtherStore {
        /// Identity of this member's store.
        own_id: String,
        /// Where it is, without a password.
        own_url: String,
        /// The member that was there before.
        member: String,
        /// Identity of its store.
        other_id: String,
        /// Where that is, without a password.
        other_url: String,
    },
    /// There are no definitions to begin with.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// A task failed.
    #[error("go on serving: {0}")]
    Task(String),
}

impl ServeError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) | Self::Opening(OpeningError::Store(error)) => error.hint(),
            Self::Listen { .. } => Some("is another member serving there? change `[server] listen`".into()),
            Self::Connect(_) | Self::Token(_) => {
                Some("set the variable or create the file that the configuration names".into())
            }
            Self::Replaced => Some("members that share a store take turns with `[zookeeper]`".into()),
            Self::OtherStore { .. } => Some(
                "members share one store: correct `[store] url`, or give this member another `[zookeeper] root`".into(),
            ),
            Self::Opening(OpeningError::WouldEnd { .. }) => Some(
                "is ZooKeeper reached? Else write definitions = \"file\" once more, start, and push the definitions \
                 before the next try: docs/live-configuration.md has the steps"
                    .into(),
            ),
            Self::Opening(OpeningError::Faults(_)) => Some("`flowkeeper check` shows what is wrong".into()),
            Self::Metrics(_) | Self::Peers(_) | Self::Signals(_) | Self::Task(_) => None,
        }
    }
}

/// Runs a member until a signal asks it to end.
pub async fn serve(set: Set, environment: Environment, options: ServeOptions) -> Result<(), ServeError> {
    let lifecycle = Lifecycle::new();
    for Fault { file, line, key, hint, message, .. } in &set.warnings {
        tracing::warn!(file, line, key, hint, "the configuration is taken, but: {message}");
    }
    let environment = Arc::new(environment);
    let config = Arc::clone(&set.config);
    let address = config.server.listen;
    let listener = member::listen(address).await?;
    let prometheus = metrics::install()?;
    let access =
        Access::from_config(&config.server, &environment).map_err(|error| ServeError::Token(error.to_string()))?;
    let member = Arc::new(Member::open(set, Arc::clone(&environment), options, lifecycle.clone()).await?);
    let definitions = follow_definitions(&member, environment);
    member.spawn_api(listener, prometheus, access, definitions.clone())?;
    let lookout = lookout::run(Arc::clone(&member));
    lifecycle.spawn("lookout", async move {
        lookout.await;
        Ok::<(), ServeError>(())
    });
    let herald = herald::run(Arc::clone(&member));
    lifecycle.spawn("herald", async move {
        herald.await;
        Ok::<(), ServeError>(())
    });
    let (sender, mut stood) = oneshot::channel();
    let (standing, ending) = (standing::run(Arc::clone(&member), definitions), lifecycle.clone());
    lifecycle.spawn("standing", async move {
        // Nobody hears it only when a second signal has ended everything.
        drop(sender.send(standing.await));
        ending.end();
        Ok::<(), ServeError>(())
    });
    tracing::info!(
        address = %address,
        schedules = member.board.now().schedules.len(),
        shadow = options.shadow,
        "flowkeeper serves"
    );
    lifecycle.ended().await.map_err(ServeError::Signals)?;
    let finished = lifecycle.finish().await.map_err(ServeError::Task);
    stood.try_recv().unwrap_or(Ok(())).and(finished)
}

/// Follows the source of the definitions, and takes what it proposes.
fn follow_definitions(member: &Arc<Member>, environment: Arc<Environment>) -> Reloads {
    let (lifecycle, ending) = (&member.lifecycle, member.lifecycle.ending().clone());
    let (looks, asked) = mpsc::channel::<Look>(LOOKS);
    let (found, proposals) = mpsc::channel(1);
    let path = member.main.file.clone();
    let parts = definitions::follow::Parts { path, environment, clock: member.clock.clone() };
    if let Some(znode) = member.znode.clone() {
        let has_definitions = !member.board.now().set.documents.is_empty();
        let source = znode.follow(has_definitions, asked, found);
        lifecycle.spawn("source of definitions", until(ending.clone(), source));
        let (read, main) = mpsc::channel(1);
        let heeding = futures_util::future::join(
            definitions::follow::follow_main(parts, read),
            reload::heed_main_file(Arc::clone(member), main, looks.clone()),
        );
        lifecycle.spawn("main file", until(ending.clone(), heeding.map(|_| ())));
    } else {
        let source = definitions::follow::follow(parts, asked, found);
        lifecycle.spawn("source of definitions", until(ending.clone(), source));
    }
    lifecycle.spawn("definitions", reload::run(Arc::clone(member), proposals).map(Ok::<(), ServeError>));
    let now = member.board.now();
    let state = watch::Sender::new(Arc::new(reload::state_of(member, &now, &now, member.refused.borrow().as_ref())));
    let reloads = Reloads { state: state.subscribe(), looks: looks.clone() };
    lifecycle.spawn("state of definitions", until(ending.clone(), reload::tell(Arc::clone(member), state)));
    lifecycle.spawn("signals", async move {
        ending.run_until_cancelled(reload::heed_signals(looks)).await.unwrap_or(Ok(())).map_err(ServeError::Signals)
    });
    reloads
}

/// Runs until the process ends.
async fn until(ending: CancellationToken, work: impl Future<Output = ()>) -> Result<(), ServeError> {
    let () = ending.run_until_cancelled(work).await.unwrap_or_default();
    Ok(())
}
