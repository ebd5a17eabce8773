//! What the leader tells in the home ensemble: JSON in persistent znodes, for whoever reads ZooKeeper.
//!
//! A [`Publisher`] takes values and never makes its caller wait; [`write`] puts them into ZooKeeper for
//! as long as the term lasts, and tries again for as long as that fails. Of each znode the last value
//! counts. What a znode holds is read once in each session: a root that was wiped or restored is filled
//! again, and a value that is there already is not written, since every write costs the whole ensemble.
//!
//! This is for reading, not for agreeing on anything: before each round the lead is confirmed, but a
//! leader that is replaced in the midst of one may still write what it knew. The next value mends that.
//! Nothing is deleted but what was told, by this leader or one before it, of things that have left the
//! configuration.

mod folder;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tracing::{debug, warn};

use self::folder::Names;
pub use self::folder::{AIRFLOW, Folder, HEALTH};
use crate::store::{Leadership, Ledger, StoreError};
use crate::zookeeper::{Ensemble, Lifetime, Session, ZooKeeperError};

/// The longest value, in bytes: servers take about 1 MiB a request, and answer a longer one by hanging up.
const VALUE_MAX_BYTES: usize = 1_000_000;

/// When to try again what was refused, or when the lead could not be confirmed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How often one value is written before it is left to the next round, where others write the same znode.
const ATTEMPTS: u32 = 3;

/// Values by the path below the root.
type Values = BTreeMap<Arc<str>, Arc<[u8]>>;

/// What is to be told, and in which folders nothing else is.
#[derive(Debug, Clone, Default)]
struct Wanted {
    values: Values,
    folders: BTreeMap<Folder, Names>,
}

impl Wanted {
    /// Whether what `path` is about is in the configuration, as far as that was said.
    fn is_declared(&self, path: &str) -> bool {
        let Some((folder, name)) = path.split_once('/') else { return true };
        let names = self.folders.iter().find_map(|(known, names)| (known.name == folder).then_some(names));
        names.is_none_or(|names| names.contains(name))
    }
}

/// Takes what is to be told. Cheap to clone. Without [`write`] it keeps everything to itself: so a
/// shadow, and a member without a home ensemble, tell nobody.
#[derive(Debug, Clone, Default)]
pub struct Publisher(watch::Sender<Wanted>);

impl Publisher {
    /// Tells this at `path` below the root, `health/main` for example. Does not wait; a value that has no
    /// JSON or is too long is logged, and the znode stays as it is. What is told late of something that has
    /// left the configuration is dropped.
    pub fn publish(&self, path: &str, value: &impl Serialize) {
        let json = match serde_json::to_vec(value) {
            Ok(json) => json,
            Err(error) => return warn!(path, %error, "a value has no JSON, so it is not published in ZooKeeper"),
        };
        if json.len() > VALUE_MAX_BYTES {
            let (size_bytes, limit_bytes) = (json.len(), VALUE_MAX_BYTES);
            return warn!(path, size_bytes, limit_bytes, "a value is too long to be published in ZooKeeper");
        }
        self.0.send_if_modified(|wanted| match wanted.values.get(path) {
            Some(known) if **known == *json => false,
            _ if !wanted.is_declared(path) => false,
            _ => {
                wanted.values.insert(path.into(), json.into());
                true
            }
        });
    }

    /// Says of which things a folder tells from now on. What it tells of others is taken back, whoever told
    /// it.
    pub fn declare(&self, folder: Folder, names: impl IntoIterator<Item = Arc<str>>) {
        let names = Arc::new(names.into_iter().collect());
        self.0.send_if_modified(|wanted| {
            if wanted.folders.get(&folder) == Some(&names) {
                return false;
            }
            wanted.folders.insert(folder, names);
            let mut values = std::mem::take(&mut wanted.values);
            values.retain(|path, _| wanted.is_declared(path));
            wanted.values = values;
            true
        });
    }
}

/// Where values are written, and under whose lead.
pub struct Parts {
    /// The home ensemble.
    pub ensemble: Ensemble,
    /// The root of flowkeeper's own znodes.
    pub root: Arc<str>,
    /// Knows who leads.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
}

/// Writes what `publisher` is given until the lead is lost.
pub async fn write(publisher: Publisher, parts: Parts) -> Result<(), StoreError> {
    let lost = parts.leadership.lost().clone();
    let writer = Writer { parts, written: Written::default(), refused: BTreeSet::new() };
    lost.run_until_cancelled(writer.run(publisher.0.subscribe())).await.unwrap_or(Ok(()))
}

/// What the znodes hold as far as one session has shown.
#[derive(Debug, Default)]
struct Written {
    session: u64,
    values: BTreeMap<Arc<str>, (Arc<[u8]>, i32)>,
    /// Folders in which nothing is told of other things than these.
    folders: BTreeMap<Folder, Names>,
}

impl Written {
    /// Forgets what another session has shown.
    fn enter(&mut self, session: u64) {
        if self.session != session {
            *self = Self { session, ..Self::default() };
        }
    }

    /// Folders that may tell of things which have left the configuration.
    fn to_clear(&self, wanted: &Wanted) -> Vec<(Folder, Names)> {
        let is_due = |(folder, names): &(&Folder, &Names)| self.folders.get(*folder) != Some(*names);
        wanted.folders.iter().filter(is_due).map(|(folder, names)| (*folder, Arc::clone(names))).collect()
    }

    /// What is not in its znode yet.
    fn due(&self, values: &Values) -> Vec<(Arc<str>, Arc<[u8]>)> {
        let is_due =
            |(path, value): &(&Arc<str>, &Arc<[u8]>)| self.values.get(*path).is_none_or(|(known, _)| known != *value);
        values.iter().filter(is_due).map(|(path, value)| (Arc::clone(path), Arc::clone(value))).collect()
    }
}

struct Writer {
    parts: Parts,
    written: Written,
    /// Paths and folders whose refusal was logged.
    refused: BTreeSet<Arc<str>>,
}

/// When there may be something to do again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// When there is a new value or another session.
    Change,
    /// After a rest at the latest.
    Rest,
}

impl Writer {
    async fn run(mut self, mut news: watch::Receiver<Wanted>) -> Result<(), StoreError> {
        let mut status = self.parts.ensemble.status();
        loop {
            status.mark_unchanged();
            let wanted = news.borrow_and_update().clone();
            let next = self.round(&wanted).await?;
            let rest = async {
                match next {
                    Next::Change => std::future::pending().await,
                    Next::Rest => tokio::time::sleep(TRY_AGAIN_AFTER).await,
                }
            };
            tokio::select! {
                // Both senders live as long as this task: the ensemble and the publisher are held by it.
                _ = status.changed() => {}
                _ = news.changed() => {}
                () = rest => {}
            }
        }
    }

    /// Takes back and writes what is due, once.
    async fn round(&mut self, wanted: &Wanted) -> Result<Next, StoreError> {
        let Some(session) = self.parts.ensemble.session() else { return Ok(Next::Change) };
        self.written.enter(session.number());
        let (to_clear, due) = (self.written.to_clear(wanted), self.written.due(&wanted.values));
        if to_clear.is_empty() && due.is_empty() {
            return Ok(Next::Change);
        }
        match self.parts.ledger.confirm_lead(&self.parts.leadership).await {
            Ok(()) => {}
            Err(error) if error.is_transient() => {
                debug!(%error, "the lead cannot be confirmed, so nothing is published in ZooKeeper for now");
                return Ok(Next::Rest);
            }
            Err(error) => return Err(error),
        }
        let mut next = Next::Change;
        for (folder, names) in to_clear {
            match folder.withdraw(&session, &self.parts.root, &names).await {
                Ok(withdrawn) => {
                    for name in withdrawn {
                        self.written.values.remove(&*format!("{}/{name}", folder.name));
                    }
                    self.refused.remove(folder.name);
                    self.written.folders.insert(folder, names);
                }
                Err(error) if error.ends_session() => {
                    debug!(folder = folder.name, %error, "it is not known what was taken back; the next session looks");
                    session.give_up();
                    return Ok(Next::Change);
                }
                Err(error) => {
                    if self.refused.insert(folder.name.into()) {
                        warn!(
                            path = format!("{}/{}", self.parts.root, folder.name),
                            reason = %error,
                            hint = error.hint(),
                            "failed to take back in ZooKeeper what has left the configuration, trying again every {} s",
                            TRY_AGAIN_AFTER.as_secs()
                        );
                    }
                    next = Next::Rest;
                }
            }
        }
        for (path, value) in due {
            let node = format!("{}/{path}", self.parts.root);
            let known = self.written.values.get(&path).map(|(_, version)| *version);
            match put(&session, &node, &value, known).await {
                Ok(version) => {
                    self.refused.remove(&path);
                    self.written.values.insert(path, (value, version));
                }
                Err(error) if error.ends_session() => {
                    debug!(path = node, %error, "it is not known whether a value was published; the next session reads it");
                    session.give_up();
                    return Ok(Next::Change);
                }
                Err(error) => {
                    self.written.values.remove(&path);
                    if self.refused.insert(path) {
                        warn!(
                            path = node,
                            reason = %error,
                            hint = error.hint(),
                            "failed to publish in ZooKeeper, trying again every {} s",
                            TRY_AGAIN_AFTER.as_secs()
                        );
                    }
                    next = Next::Rest;
                }
            }
        }
        Ok(next)
    }
}

/// Makes a znode hold `value`, with the parents that are missing; the version that holds it. `known` is
/// the version that this session wrote last; without one the znode is read first.
async fn put(session: &Session, path: &str, value: &[u8], mut known: Option<i32>) -> Result<i32, ZooKeeperError> {
    for _ in 0..ATTEMPTS {
        let Some(version) = known else {
            match session.get_data(path).await? {
                Some((data, stat)) if data == value => return Ok(stat.version),
                Some((_, stat)) => known = Some(stat.version),
                None => {
                    if let Some((parent, _)) = path.rsplit_once('/') {
                        session.make_path(parent).await?;
                    }
                    if session.create(path, value, Lifetime::Persistent).await? {
                        return Ok(0);
                    }
                }
            }
            continue;
        };
        match session.set_data(path, value, Some(version)).await {
            Ok(Some(version)) => return Ok(version),
            // Somebody has deleted it or written it meanwhile.
            Ok(None) | Err(ZooKeeperError::BadVersion) => known = None,
            Err(error) => return Err(error),
        }
    }
    Err(ZooKeeperError::BadVersion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|(path, value)| ((*path).into(), value.as_bytes().into())).collect()
    }

    #[test]
    fn the_last_value_of_each_path_counts_and_only_news_are_news() {
        let publisher = Publisher::default();
        let mut news = publisher.0.subscribe();
        publisher.publish("health/main", &1);
        publisher.publish("airflow/main", &"up");
        publisher.publish("health/main", &2);
        assert_eq!(news.borrow_and_update().values, values(&[("airflow/main", "\"up\""), ("health/main", "2")]));
        publisher.publish("health/main", &2);
        assert!(!news.has_changed().expect("a sender"));
    }

    #[test]
    fn what_cannot_be_told_leaves_the_last_value() {
        let publisher = Publisher::default();
        publisher.publish("a", &1);
        publisher.publish("a", &"x".repeat(VALUE_MAX_BYTES));
        publisher.publish("a", &BTreeMap::from([((1, 2), "a key that is no text")]));
        assert_eq!(publisher.0.borrow().values, values(&[("a", "1")]));
    }

    #[test]
    fn nothing_is_told_of_what_has_left_the_configuration() {
        let publisher = Publisher::default();
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>();
        publisher.publish("health/early", &1);
        publisher.declare(HEALTH, names(&["main", "solr"]));
        for path in ["health/main", "health/solr", "health/other", "airflow/main", "a"] {
            publisher.publish(path, &1);
        }
        let told = |publisher: &Publisher| publisher.0.borrow().values.keys().cloned().collect::<Vec<_>>();
        assert_eq!(told(&publisher), names(&["a", "airflow/main", "health/main", "health/solr"]));
        let mut written = Written::default();
        written.enter(1);
        let cleared = |written: &Written| written.to_clear(&publisher.0.borrow()).len();
        assert_eq!(cleared(&written), 1, "nobody has looked in this session");
        let all = Arc::new(names(&["main", "solr"]).into_iter().collect());
        written.folders.insert(HEALTH, all);
        assert_eq!(cleared(&written), 0);
        publisher.declare(HEALTH, names(&["main"]));
        publisher.publish("health/solr", &2);
        assert_eq!((told(&publisher), cleared(&written)), (names(&["a", "airflow/main", "health/main"]), 1));
    }

    #[test]
    fn what_a_session_has_shown_holds_for_that_session() {
        let wanted = values(&[("a", "1"), ("b", "2")]);
        let due = |written: &Written| written.due(&wanted).iter().map(|(path, _)| path.to_string()).collect::<Vec<_>>();
        let mut written = Written::default();
        written.enter(1);
        assert_eq!(due(&written), ["a", "b"]);
        written.values.insert("a".into(), (b"1".as_slice().into(), 0));
        written.values.insert("b".into(), (b"1".as_slice().into(), 7));
        written.enter(1);
        assert_eq!(due(&written), ["b"], "the value before this one is there");
        written.enter(2);
        assert_eq!(due(&written), ["a", "b"], "another session may see another root");
    }
}
