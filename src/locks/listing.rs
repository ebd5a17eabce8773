//! Who holds locks and who waits for them, for people: read from ZooKeeper, whoever they are.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{NodeData, lock_path, locks_path};
use crate::domain::run::RunId;
use crate::store::model::optional_microseconds;
use crate::store::{Ledger, StoreError};
use crate::zookeeper::contender::in_order;
use crate::zookeeper::{Session, ZooKeeperError};

/// How many reads are under way at once.
const BESIDE: usize = 64;

/// How much of what others write into their znodes is shown, in characters.
const TEXT_LENGTH: usize = 120;

/// One that stands in the queue for a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LockEntry {
    /// The lock: a name under `locks/` of the root.
    pub lock: String,
    /// 1 for whoever holds it.
    pub position: usize,
    /// `held` or `waiting`.
    pub state: LockState,
    /// Since when it stands in the queue.
    #[serde(serialize_with = "optional_microseconds")]
    pub since: Option<Timestamp>,
    /// Since when it holds the lock; known of runs in this ledger alone.
    #[serde(serialize_with = "optional_microseconds")]
    pub held_since: Option<Timestamp>,
    /// For a run: its number in the ledger of `store_id`.
    pub run: Option<RunId>,
    /// For a run: its identity in Airflow.
    pub dag_run_id: Option<String>,
    /// For a run: its schedule.
    pub schedule: Option<String>,
    /// For a run: the store that has it.
    pub store_id: Option<String>,
    /// For `flowkeeper lock`: the host and the process.
    pub client: Option<String>,
    /// What others have written into their znode, as far as it is text.
    pub text: Option<String>,
    /// The path of its znode.
    pub node: String,
}

/// Whether one holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockState {
    /// It is first in the queue.
    Held,
    /// It waits.
    Waiting,
}

impl LockState {
    /// The spelling of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Waiting => "waiting",
        }
    }
}

impl LockEntry {
    /// Who it is, in a few words.
    pub fn who(&self) -> String {
        let run = self.run.map(|run| format!("run {run} of {}", self.schedule.as_deref().unwrap_or("?")));
        run.or_else(|| self.client.clone()).or_else(|| self.text.clone()).unwrap_or_else(|| "unknown".to_owned())
    }
}

/// Everybody in the queue of every lock under the root, by lock, first come first. `ledger` adds what it
/// knows of its own runs.
pub async fn list(session: &Session, root: &str, ledger: Option<&Ledger>) -> Result<Vec<LockEntry>, ListError> {
    // Nobody has ever asked for a lock where there is no such znode.
    let Some((mut locks, _)) = session.get_children(&locks_path(root)).await? else { return Ok(Vec::new()) };
    locks.sort_unstable();
    let mut nodes = Vec::new();
    for lock in locks {
        let Some((children, _)) = session.get_children(&lock_path(root, &lock)).await? else { continue };
        for contender in in_order(children.iter().map(String::as_str)) {
            nodes.push((lock.clone(), format!("{}/{}", lock_path(root, &lock), contender.name)));
        }
    }
    let read = |(lock, node): (String, String)| async move {
        let answer = session.get_data(&node).await;
        match answer {
            Ok(found) => Ok(found.map(|(data, stat)| entry(lock, node, &data, stat.mtime_ms))),
            Err(ZooKeeperError::NoPermission) => Ok(Some(entry(lock, node, b"", 0))),
            Err(error) => Err(error),
        }
    };
    let entries: Vec<Option<LockEntry>> = stream::iter(nodes).map(read).buffered(BESIDE).try_collect().await?;
    // Those that have left meanwhile do not count.
    let mut entries: Vec<LockEntry> = entries.into_iter().flatten().collect();
    number(&mut entries);
    if let Some(ledger) = ledger {
        add_runs(&mut entries, ledger).await?;
    }
    Ok(entries)
}

/// Why locks cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// ZooKeeper did not answer, or refused.
    #[error("read the locks in ZooKeeper: {0}")]
    ZooKeeper(#[from] ZooKeeperError),
    /// The ledger did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn entry(lock: String, node: String, data: &[u8], mtime_ms: i64) -> LockEntry {
    let ours: Option<NodeData> = serde_json::from_slice(data).ok();
    let ours = ours.filter(|ours| ours.run.is_some() || ours.host.is_some()).unwrap_or_default();
    let set = (mtime_ms > 0).then(|| Timestamp::from_millisecond(mtime_ms).ok()).flatten();
    let client = ours.host.as_ref().map(|host| {
        let process = ours.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        let command = ours.command.as_ref().map(|command| format!(": {command}")).unwrap_or_default();
        format!("{host}{process}{command}")
    });
    let is_text = |text: &&str| !text.is_empty() && !text.chars().any(char::is_control);
    let text = std::str::from_utf8(data).ok().filter(is_text);
    let text = text.filter(|_| ours == NodeData::default()).map(|text| text.chars().take(TEXT_LENGTH).collect());
    LockEntry {
        lock,
        position: 0,
        state: LockState::Waiting,
        since: ours.at.or(set),
        held_since: None,
        run: ours.run,
        dag_run_id: ours.dag_run_id,
        schedule: ours.schedule,
        store_id: ours.store_id,
        client,
        text,
        node,
    }
}

/// Tells places in the queues, of entries that are in order.
fn number(entries: &mut [LockEntry]) {
    let mut last: Option<(String, usize)> = None;
    for entry in entries {
        let position = match &last {
            Some((lock, position)) if *lock == entry.lock => position + 1,
            _ => 1,
        };
        entry.position = position;
        entry.state = if position == 1 { LockState::Held } else { LockState::Waiting };
        last = Some((entry.lock.clone(), position));
    }
}

async fn add_runs(entries: &mut [LockEntry], ledger: &Ledger) -> Result<(), StoreError> {
    let ours = |entry: &LockEntry| entry.run.filter(|_| entry.store_id.as_deref() == Some(ledger.store_id()));
    let runs: Vec<RunId> = entries.iter().filter_map(ours).collect();
    let known = ledger.lock_runs(&runs).await?;
    // The ledger is read after the queue: a run that has come to its lock in between is shown as it stood.
    for entry in entries.iter_mut().filter(|entry| entry.state == LockState::Held) {
        let run = ours(entry);
        entry.held_since = known.iter().find(|known| Some(known.run) == run).and_then(|known| known.held_at);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_queues_is_told_as_well_as_can_be() {
        let data = |text: &str| entry("warehouse".into(), "/n".into(), text.as_bytes(), 1_000);
        let run = r#"{"store_id":"s","run":7,"dag_run_id":"flowkeeper__a__m1","schedule":"a","member":"m"}"#;
        let command = r#"{"host":"h","pid":3,"command":"rsync"}"#;
        for (text, who) in [
            (run, "run 7 of a"),
            (command, "h, process 3: rsync"),
            ("10.0.0.7", "10.0.0.7"),
            (r#"{"mine":true}"#, r#"{"mine":true}"#),
            ("", "unknown"),
            ("\u{1}\u{2}", "unknown"),
        ] {
            assert_eq!(data(text).who(), who, "{text}");
        }
        let mut entries = vec![data(run), data(command), LockEntry { lock: "other".into(), ..data("x") }];
        number(&mut entries);
        let places: Vec<_> = entries.iter().map(|entry| (entry.position, entry.state.as_str())).collect();
        assert_eq!(places, [(1, "held"), (2, "waiting"), (1, "held")]);
    }
}
