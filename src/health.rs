//! The health of an ensemble: asking its servers, trying them out, and judging what came back.
//!
//! Data takes one way: [`sample`] asks every server for what it knows of itself, twice, and
//! [`canary`] works as a client would in between; both give [`facts`]. [`checks`] turns facts into a
//! [`Report`], and does nothing else: it is pure, and knows neither network nor clock. Nothing here
//! changes an ensemble, but for the canary's own ephemeral znodes.

mod canary;
mod checks;
mod facts;
mod inspector;
mod owners;
mod sample;
mod shared;

use std::sync::Arc;
use std::time::Duration;

pub use self::inspector::{Inspection, Inspector, ON_DEMAND};
pub use self::owners::{AskedServer, Owner, OwnerConnection, Owners};

use self::canary::Canary;
use self::checks::Evidence;
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
    let settings = (target.settings)()?;
    let servers: Vec<Arc<str>> = settings.server_names().map(Arc::from).collect();
    let sampler = Sampler::new(&servers, settings.tls.clone(), target.admin.as_deref(), effort.timeout, clock.clone())?;
    let first = sampler.take().await;
    let canary = target.canary.as_ref().map(|parent| Canary::new(&settings, parent, effort.timeout, clock.clone()));
    let flying = async {
        match &canary {
            Some(canary) => Some(canary.fly(&first).await),
            None => None,
        }
    };
    // Zero waits for nothing, and needs the canary to be back before it judges all the same.
    let (canary, ()) = tokio::join!(flying, tokio::time::sleep(effort.interval));
    let second = if effort.interval.is_zero() { None } else { Some(sampler.take().await) };
    let (before, now) = match &second {
        Some(second) => (Some(&first), second),
        None => (None, &first),
    };
    let evidence = Evidence { before, now, canary: canary.as_ref(), thresholds: &target.thresholds, at: clock.now() };
    Ok(Report::new(target.name.to_string(), checks::judge(&evidence)))
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
