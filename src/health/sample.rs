//! Asking the servers of an ensemble, all of them at the same time and each with limits of time: for an
//! answer, and for all of them together.
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
use tokio::time::Instant;

use super::facts::{AdminFacts, Answer, Learned, Sample, ServerFacts, Why};
use super::patience::Patience;
use crate::clock::{Clock, awake_time};
use crate::zookeeper::{Server, Settings, TlsClient, TlsMaterial};

/// How long a connection with an AdminServer is kept for the next question: for those of one sample, not
/// for the next one, when the server may have closed it already.
const ADMIN_IDLE: Duration = Duration::from_secs(2);

/// The words that are asked after `srvr`.
const FURTHER_WORDS: [&str; 5] = ["mntr", "isro", "cons", "conf", "dirs"];

/// Asks the servers of one ensemble. Made once, and kept for as long as its settings are the same.
pub(super) struct Sampler {
    servers: Vec<(Arc<str>, Server)>,
    /// Certificates and key, or why they cannot be used.
    tls: Option<Result<TlsMaterial, String>>,
    admin: Option<Admin>,
    clock: Clock,
}

/// How AdminServers are reached.
struct Admin {
    client: reqwest::Client,
    /// The URL of the commands; `{host}` is the server's.
    template: String,
}

/// One server, for the questions of one sample.
struct Asking<'s> {
    sampler: &'s Sampler,
    server: &'s Server,
    encryption: Option<TlsClient>,
    patience: Patience,
}

impl Sampler {
    /// `admin` is the URL of an AdminServer's commands, with `{host}` in it. The error is for a person.
    pub(super) fn new(settings: &Settings, admin: Option<&str>, clock: Clock) -> Result<Self, String> {
        let admin = match admin {
            None => None,
            Some(template) => {
                let mut client = reqwest::Client::builder().no_proxy().pool_idle_timeout(ADMIN_IDLE);
                if let Some(tls) = &settings.tls {
                    let authorities = reqwest::Certificate::from_pem_bundle(tls.ca.as_bytes())
                        .map_err(|error| format!("the file of `tls.ca` is no PEM: {error}"))?;
                    client = client.tls_certs_merge(authorities);
                }
                let client = client.build().map_err(|error| error.to_string())?;
                Some(Admin { client, template: template.trim_end_matches('/').to_owned() })
            }
        };
        let servers = settings.server_names().map(Arc::from).zip(settings.servers()).collect();
        Ok(Self { servers, tls: settings.tls.as_ref().map(TlsMaterial::new), admin, clock })
    }

    /// Asks every server; an answer may take `answer`.
    pub(super) async fn take(&self, answer: Duration) -> Sample {
        let (taken, patience) = (awake_time(), Patience::for_sample(answer, Instant::now()));
        let servers = self.servers.iter().map(|(name, server)| async move {
            match self.asking(server, patience) {
                Ok(asking) => asking.facts(name).await,
                Err(why) => ServerFacts::unknown(Arc::clone(name), Answer::Failed(why)),
            }
        });
        Sample { taken, servers: join_all(servers).await }
    }

    fn asking<'s>(&'s self, server: &'s Server, patience: Patience) -> Result<Asking<'s>, Why> {
        let encryption = match self.tls.as_ref().filter(|_| server.tls) {
            None => None,
            Some(Ok(material)) => Some(material.client()),
            Some(Err(reason)) => return Err(Why::Unreachable(reason.clone())),
        };
        Ok(Asking { sampler: self, server, encryption, patience })
    }
}

impl Asking<'_> {
    /// All that can be learned of the server.
    async fn facts(&self, name: &Arc<str>) -> ServerFacts {
        let (mut facts, stats) = tokio::join!(self.ask_words(name), self.command("server_stats"));
        self.stand_in(&mut facts, stats).await;
        facts.certificate = self.encryption.as_ref().map(|encryption| {
            let seen = encryption.certificate().ok_or(Why::NotAsked)?;
            certificate::ends(&seen).ok_or_else(|| Why::Unreadable("its certificate is none".to_owned()))
        });
        facts
    }

    /// Asks a question for as long as there is time, and tells apart what came too late for this sample.
    async fn in_time<T>(&self, ask: impl AsyncFnOnce(Duration) -> Learned<T>) -> Learned<T> {
        let Some(wait) = self.patience.at(Instant::now()) else { return Err(Why::OutOfTime) };
        let started = Instant::now();
        let answer = ask(wait.time).await;
        if wait.is_cut && answer.is_err() && started.elapsed() >= wait.time { Err(Why::OutOfTime) } else { answer }
    }

    /// Asks a four-letter word.
    async fn word(&self, word: &'static str) -> Learned<String> {
        self.in_time(async |within| transport::ask(self.server, self.encryption.as_ref(), word, within).await).await
    }

    /// What the four-letter words tell.
    async fn ask_words(&self, server: &Arc<str>) -> ServerFacts {
        let summary = self.word("srvr").await.and_then(|answer| words::summary(&answer));
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
            let answer = self.word(word).await;
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
    async fn stand_in(&self, facts: &mut ServerFacts, stats: Learned<AdminAnswer>) {
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
            let monitor = self.command("monitor").await;
            facts.metrics = monitor.and_then(|answer| admin::metrics(&answer.object));
        }
        if is_open(&facts.connections) {
            let connections = self.command("connections").await;
            facts.connections = connections.and_then(|answer| admin::connections(&answer.object));
        }
        if is_open(&facts.settings) {
            let configuration = self.command("configuration").await;
            let view = self.command("voting_view").await.ok();
            facts.settings =
                configuration.map(|answer| admin::settings(&answer.object, view.as_ref().map(|view| &view.object)));
        }
        if is_open(&facts.directory_bytes) {
            let directories = self.command("dirs").await;
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

    /// Asks its AdminServer.
    async fn command(&self, command: &str) -> Learned<AdminAnswer> {
        let Sampler { admin, clock, .. } = self.sampler;
        let Some(admin) = admin else { return Err(Why::NotAsked) };
        let url = format!("{}/{command}", admin.template.replace("{host}", &self.server.url_host()));
        let asked = clock.now();
        let get = async |within| transport::get(&admin.client, url, within).await;
        let (status, date, body) = self.in_time(get).await?;
        let clock_offset_ms = date.and_then(|date| clock_offset_ms(&date, asked, clock.now()));
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
