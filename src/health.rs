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
mod patience;
pub mod rounds;
mod sample;
mod shared;
mod told;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use self::inspector::{Inspection, Inspector, ON_DEMAND};
pub use self::latest::{Inspections, Latest};
pub use self::owners::{AskedServer, Owner, OwnerConnection, Owners};
pub use self::told::tell;

use self::look::Looker;
use self::sample::Sampler;
use crate::clock::Clock;
use crate::domain::health::{Report, Thresholds};
use crate::zookeeper::{Settings, SettingsSource};

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
    sampler: KeptSampler,
}

/// What asks an ensemble's servers, for as long as its settings are the same. They are read anew for each
/// look, files included, so that a certificate which was replaced is used from the next one on.
#[derive(Default)]
struct KeptSampler(Mutex<Option<(Settings, Arc<Sampler>)>>);

impl Target {
    /// The ensemble of this name, reached with `settings`: checked by the limits, with an AdminServer and a
    /// canary only once they are set.
    pub fn new(name: Arc<str>, settings: SettingsSource, thresholds: Thresholds) -> Self {
        Self { name, settings, admin: None, canary: None, thresholds, sampler: KeptSampler::default() }
    }

    /// The settings as they are now, and what asks the servers by them. The error is for a person.
    fn sampler(&self, clock: &Clock) -> Result<(Settings, Arc<Sampler>), String> {
        let settings = (self.settings)()?;
        let mut kept = self.sampler.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, sampler)) = &*kept
            && *known == settings
        {
            return Ok((settings, Arc::clone(sampler)));
        }
        let sampler = Arc::new(Sampler::new(&settings, self.admin.as_deref(), clock.clone())?);
        *kept = Some((settings.clone(), Arc::clone(&sampler)));
        Ok((settings, sampler))
    }
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How long after the first sample the second is taken; zero takes one alone.
    pub interval: Duration,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// Looks at an ensemble once. Takes `effort.interval` and as long as its slowest server, but no longer than
/// eight times `effort.timeout` besides; the error, for a person, is about settings that cannot be used.
pub async fn inspect(target: &Target, effort: Effort, clock: &Clock) -> Result<Report, String> {
    Looker::new(target, effort.timeout, clock.clone()).look(effort.interval).await
}

/// Asks who owns the ephemeral znodes of an ensemble. Takes as long as its slowest server; the error,
/// for a person, is about settings that cannot be used.
pub async fn owners_of_ephemerals(target: &Target, timeout: Duration, clock: &Clock) -> Result<Owners, String> {
    let (_, sampler) = target.sampler(clock)?;
    let now = clock.now();
    Ok(owners::put_together(&target.name, &sampler.sessions(timeout).await, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zookeeper::Tls;

    const AUTHORITY: &str = include_str!("health/fixtures/certificate-2030.pem");

    #[test]
    fn what_asks_the_servers_is_made_once_and_anew_when_a_file_was_replaced() {
        let on_disk = Arc::new(Mutex::new(AUTHORITY.to_owned()));
        let read = Arc::clone(&on_disk);
        let settings: SettingsSource = Arc::new(move || {
            let ca = read.lock().expect("not poisoned").clone();
            let connect = "zk1:2281".to_owned();
            let tls = Some(Tls { ca, identity: None });
            Ok(Settings { connect, session_timeout: Duration::from_secs(10), auth: None, tls, sasl: None })
        });
        let target = Target::new("main".into(), settings, Thresholds::default());
        let sampler = || target.sampler(&Clock::system()).expect("settings").1;
        let first = sampler();
        assert!(Arc::ptr_eq(&first, &sampler()), "nothing has changed");
        *on_disk.lock().expect("not poisoned") = format!("{AUTHORITY}{AUTHORITY}");
        let second = sampler();
        assert!(!Arc::ptr_eq(&first, &second), "the file was replaced");
        assert!(Arc::ptr_eq(&second, &sampler()));
    }
}
