//! Asking the servers of an ensemble, all of them at the same time, each with limits of its own.
//!
//! A server is asked `srvr` first: what becomes of it decides whether the other words are worth
//! asking. The AdminServer is asked meanwhile for `server_stats`, and stands in for the words that
//! the whitelist refuses. Never judges: whatever could not be learned is kept with its reason.

mod admin;
mod certificate;
#[cfg(test)]
mod faults;
mod sessions;
#[cfg(test)]
mod tests;
mod transport;
pub(super) mod words;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde_json::{Map, Value};

use self::transport::Endpoint;
use super::facts::{AdminFacts, Answer, Learned, Sample, ServerFacts, Why};
use crate::clock::{Clock, awake_time};
use crate::zookeeper::{Tls, TlsClient};

/// The words that are asked after `srvr`.
const FURTHER_WORDS: [&str; 5] = ["mntr", "isro", "cons", "conf", "dirs"];

/// Asks servers.
pub(super) struct Sampler {
    servers: Vec<(Arc<str>, Option<Endpoint>)>,
    tls: Option<Tls>,
    admin: Option<Admin>,
    timeout: Duration,
    clock: Clock,
}

/// How AdminServers are reached.
struct Admin {
    client: reqwest::Client,
    /// The URL of the commands; `{host}` is the server's.
    template: String,
}

impl Sampler {
    /// `servers` as `host:port`; `admin` is the URL of an AdminServer's commands, with `{host}` in it.
    pub(super) fn new(
        servers: &[Arc<str>],
        tls: Option<Tls>,
        admin: Option<&str>,
        timeout: Duration,
        clock: Clock,
    ) -> Result<Self, String> {
        let admin = match admin {
            None => None,
            Some(template) => {
                let mut client = reqwest::Client::builder().no_proxy();
                if let Some(tls) = &tls {
                    let authorities = reqwest::Certificate::from_pem_bundle(tls.ca.as_bytes())
                        .map_err(|error| format!("the file of `tls.ca` is no PEM: {error}"))?;
                    client = client.tls_certs_merge(authorities);
                }
                let client = client.build().map_err(|error| error.to_string())?;
                Some(Admin { client, template: template.trim_end_matches('/').to_owned() })
            }
        };
        let servers = servers.iter().map(|server| (Arc::clone(server), Endpoint::parse(server))).collect();
        Ok(Self { servers, tls, admin, timeout, clock })
    }

    /// Asks every server.
    pub(super) async fn take(&self) -> Sample {
        let taken = awake_time();
        let servers = join_all(self.servers.iter().map(|(server, endpoint)| self.server(server, endpoint.as_ref())));
        Sample { taken, servers: servers.await }
    }

    async fn server(&self, server: &Arc<str>, endpoint: Option<&Endpoint>) -> ServerFacts {
        let failed = |why| ServerFacts::unknown(Arc::clone(server), Answer::Failed(why));
        let Some(endpoint) = endpoint else { return failed(Why::Unreachable("its name has no port".to_owned())) };
        let encryption = match self.tls.as_ref().map(TlsClient::new).transpose() {
            Ok(encryption) => encryption,
            Err(reason) => return failed(Why::Unreachable(reason)),
        };
        let (mut facts, stats) = tokio::join!(
            self.ask_words(server, endpoint, encryption.as_ref()),
            self.command(endpoint, "server_stats"),
        );
        self.stand_in(&mut facts, endpoint, stats).await;
        facts.certificate = encryption.map(|encryption| {
            let seen = encryption.certificate().ok_or(Why::NotAsked)?;
            certificate::ends(&seen).ok_or_else(|| Why::Unreadable("its certificate is none".to_owned()))
        });
        facts
    }

    /// What the four-letter words tell.
    async fn ask_words(&self, server: &Arc<str>, endpoint: &Endpoint, encryption: Option<&TlsClient>) -> ServerFacts {
        let ask = |word| transport::ask(endpoint, encryption, word, self.timeout);
        let summary = ask("srvr").await.and_then(|answer| words::summary(&answer));
        let answer = match &summary {
            Ok(_) => Answer::Serves,
            Err(Why::NotServing) => Answer::NotServing,
            Err(why) => Answer::Failed(why.clone()),
        };
        let mut facts = ServerFacts::unknown(Arc::clone(server), answer);
        facts.admin = Err(Why::NotAsked);
        let worth_asking = matches!(summary, Ok(_) | Err(Why::Refused(_)));
        facts.summary = summary;
        if !worth_asking {
            return facts;
        }
        // One after the other: a server counts connections by address, and this may be near its limit.
        let mut unanswered = Vec::new();
        for word in FURTHER_WORDS {
            let answer = ask(word).await;
            if matches!(answer, Err(Why::Refused(_) | Why::TurnedAway)) {
                unanswered.push(word);
            }
            let answer = answer.as_deref().map_err(Clone::clone);
            match word {
                "mntr" => facts.metrics = answer.and_then(words::metrics),
                "isro" => facts.write_access = answer.and_then(words::write_access),
                "cons" => facts.connections = answer.and_then(words::connections),
                "conf" => facts.settings = answer.and_then(words::settings),
                _ => facts.directory_bytes = answer.and_then(words::directory_bytes),
            }
        }
        facts.missing_words = unanswered;
        facts
    }

    /// Fills what the words left open with what the AdminServer tells.
    async fn stand_in(&self, facts: &mut ServerFacts, endpoint: &Endpoint, stats: Learned<AdminAnswer>) {
        let stats = match stats {
            Ok(stats) => stats,
            Err(why) => {
                facts.admin = Err(why);
                return;
            }
        };
        facts.admin =
            Ok(AdminFacts { slow_fsyncs: admin::slow_fsyncs(&stats.object), clock_offset_ms: stats.clock_offset_ms });
        if facts.summary.is_err() {
            facts.summary = admin::summary(&stats.object);
        }
        // With TLS the connection may fail for reasons of this client's own.
        if matches!(facts.answer, Answer::Failed(Why::Refused(_))) && facts.summary.is_ok() {
            facts.answer = Answer::Serves;
        }
        if is_open(&facts.metrics) {
            let monitor = self.command(endpoint, "monitor").await;
            facts.metrics = monitor.and_then(|answer| admin::metrics(&answer.object));
        }
        if is_open(&facts.connections) {
            let connections = self.command(endpoint, "connections").await;
            facts.connections = connections.and_then(|answer| admin::connections(&answer.object));
        }
        if is_open(&facts.settings) {
            let configuration = self.command(endpoint, "configuration").await;
            let view = self.command(endpoint, "voting_view").await.ok();
            facts.settings =
                configuration.map(|answer| admin::settings(&answer.object, view.as_ref().map(|view| &view.object)));
        }
        if is_open(&facts.directory_bytes) {
            let directories = self.command(endpoint, "dirs").await;
            facts.directory_bytes = directories.and_then(|answer| admin::directory_bytes(&answer.object));
        }
        let learned = |word: &&str| match *word {
            "mntr" => facts.metrics.is_ok(),
            "cons" => facts.connections.is_ok(),
            "conf" => facts.settings.is_ok(),
            "dirs" => facts.directory_bytes.is_ok(),
            // The mode of `srvr` and of `server_stats` says the same.
            _ => facts.summary.is_ok(),
        };
        let missing = facts.missing_words.iter().copied().filter(|word| !learned(word)).collect();
        facts.missing_words = missing;
    }

    /// Asks the AdminServer of a server.
    async fn command(&self, endpoint: &Endpoint, command: &str) -> Learned<AdminAnswer> {
        let Some(admin) = &self.admin else { return Err(Why::NotAsked) };
        let url = format!("{}/{command}", admin.template.replace("{host}", &endpoint.url_host()));
        let asked = self.clock.now();
        let (status, date, body) = transport::get(&admin.client, url, self.timeout).await?;
        let clock_offset_ms = date.and_then(|date| clock_offset_ms(&date, asked, self.clock.now()));
        if !status.is_success() {
            return Err(Why::Unreadable(format!("the AdminServer answers HTTP {status}")));
        }
        Ok(AdminAnswer { object: admin::object(&body)?, clock_offset_ms })
    }
}

struct AdminAnswer {
    object: Map<String, Value>,
    clock_offset_ms: Option<i64>,
}

/// Whether the AdminServer may know what the words did not tell.
fn is_open<T>(learned: &Learned<T>) -> bool {
    matches!(learned, Err(Why::Refused(_) | Why::TurnedAway | Why::Unreachable(_) | Why::OutOfSight(_)))
}

/// How far a server's clock is from ours at least, in milliseconds, given its `Date` (whole seconds,
/// rounded down), when it was asked and when it had answered.
fn clock_offset_ms(date: &str, asked: Timestamp, answered: Timestamp) -> Option<i64> {
    let shown = rfc2822::parse(date).ok()?.timestamp().as_millisecond();
    let (earliest, latest) = (shown, shown + 999);
    Some(if earliest > answered.as_millisecond() {
        earliest - answered.as_millisecond()
    } else if latest < asked.as_millisecond() {
        latest - asked.as_millisecond()
    } else {
        0
    })
}
