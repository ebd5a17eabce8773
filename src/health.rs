//! The health of an ensemble: asking its servers, trying them out, and judging what came back.
//!
//! Data takes one way: [`sample`] asks every server for what it knows of itself, and [`canary`] works as
//! a client would; both give [`facts`]. [`checks`] turns facts into a [`Report`], and does nothing else:
//! it is pure, and knows neither network nor clock. [`look`] puts a look together, [`rounds`] looks again
//! and again for the leader, [`inspector`] when somebody asks. Nothing here changes an ensemble, but for
//! the canary's own ephemeral znodes.

mod canary;
mod checks;
mod facts;
mod inspector;
mod latest;
mod look;
mod owners;
pub mod rounds;
mod sample;
mod shared;
mod told;

use std::sync::Arc;
use std::time::Duration;

pub use self::inspector::{Inspection, Inspector, ON_DEMAND};
pub use self::latest::{Inspections, Latest};
pub use self::owners::{AskedServer, Owner, OwnerConnection, Owners};
pub use self::told::tell;

use self::look::Looker;
use self::sample::Sampler;
use crate::clock::Clock;
use crate::domain::health::{Report, Thresholds};
use crate::zookeeper::SettingsSource;

/// What is checked, and how.
pub struct Target {
    /// The ensemble's name in the configuration.
    pub name: Arc<str>,
    /// How it is reached; read anew for each inspection.
    pub settings: SettingsSource,
    /// The URL of the AdminServer's commands, with `{host}` in it; `None` asks none.
    pub admin: Option<String>,
    /// The znode under which the canary works; `None` lets none fly.
    pub canary: Option<String>,
    /// From which values on a check is bad.
    pub thresholds: Thresholds,
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How long after the first sample the second is taken; zero takes one alone.
    pub interval: Duration,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// Looks at an ensemble once. Takes `effort.interval` and as long as its slowest server; the error,
/// for a person, is about settings that cannot be used.
pub async fn inspect(target: &Target, effort: Effort, clock: &Clock) -> Result<Report, String> {
    Looker::new(target, effort.timeout, clock.clone()).look(effort.interval).await
}

/// Asks who owns the ephemeral znodes of an ensemble. Takes as long as its slowest server; the error,
/// for a person, is about settings that cannot be used.
pub async fn owners_of_ephemerals(target: &Target, timeout: Duration, clock: &Clock) -> Result<Owners, String> {
    let settings = (target.settings)()?;
    let servers: Vec<Arc<str>> = settings.server_names().map(Arc::from).collect();
    let sampler = Sampler::new(&servers, settings.tls.clone(), target.admin.as_deref(), timeout, clock.clone())?;
    let now = clock.now();
    Ok(owners::put_together(&target.name, &sampler.sessions().await, now))
}
