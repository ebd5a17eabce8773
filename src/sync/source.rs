//! What znodes want: reads all of them and makes an entry of each, or says why it cannot become one.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::schedule::WatchScope;
use crate::domain::sync::definition::SyncDefinition;
use crate::domain::sync::digest::Digests;
use crate::domain::sync::entry::{EntryKind, EntryValue};
use crate::domain::sync::json;
use crate::domain::sync::plan::Wish;
use crate::domain::template::{ValueContext, ZnodeFacts};
use crate::domain::znode::ZnodeStat;
use crate::zookeeper::{Session, ZooKeeperError};

/// How many requests of one reading may be under way. A server holds all connections back when 1,000 wait.
const PIPELINE: usize = 256;

/// Why nothing can be said of what is wanted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// It cannot be read.
    #[error("{0}")]
    ZooKeeper(#[from] ZooKeeperError),
    /// `watch = "node"`, and the znode is something else.
    #[error("its data is not a JSON object")]
    NotAnObject,
}

/// What a znode wants.
pub(super) struct Wanted {
    /// By key.
    pub(super) wishes: BTreeMap<String, Wish>,
    /// Tells this incarnation of the znode of the sync itself from others, also from one of the same
    /// transaction number in an ensemble that was rebuilt.
    pub(super) incarnation: String,
}

/// Reads everything; `None` when the znode of the sync itself is missing.
pub(super) async fn read(
    session: &Session,
    definition: &SyncDefinition,
    digests: &Digests,
) -> Result<Option<Wanted>, SourceError> {
    let reader = Reader { session, definition, digests };
    match definition.scope {
        WatchScope::Node => reader.members().await,
        WatchScope::Children => reader.children().await,
        WatchScope::Subtree => reader.subtree().await,
    }
}

struct Reader<'a> {
    session: &'a Session,
    definition: &'a SyncDefinition,
    digests: &'a Digests,
}

type Answer = Result<Option<(Vec<u8>, ZnodeStat)>, ZooKeeperError>;

impl Reader<'_> {
    async fn members(&self) -> Result<Option<Wanted>, SourceError> {
        let path = &self.definition.path;
        let Some((data, stat)) = self.session.get_data(path).await? else { return Ok(None) };
        // Member by member, as they are written: a number that no machine holds is a fault of its key.
        let Ok(members) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&data) else {
            return Err(SourceError::NotAnObject);
        };
        let facts = facts(path, data, &stat);
        let mut wishes = BTreeMap::new();
        for (name, member) in &members {
            self.enter(&mut wishes, name, self.wish(name, &facts, Some(member)));
        }
        Ok(Some(Wanted { wishes, incarnation: incarnation(&stat) }))
    }

    async fn children(&self) -> Result<Option<Wanted>, SourceError> {
        let path = &self.definition.path;
        let Some((names, stat)) = self.session.get_children(path).await? else { return Ok(None) };
        let read = |name: String| {
            let path = join(path, &name);
            let answer = self.session.get_data(&path);
            async move { (name, path, answer.await) }
        };
        let mut answers = stream::iter(names).map(read).buffer_unordered(PIPELINE);
        let mut wishes = BTreeMap::new();
        while let Some((name, path, answer)) = answers.next().await {
            if let Some(wish) = self.answered(&name, &path, answer)? {
                self.enter(&mut wishes, &name, wish);
            }
        }
        Ok(Some(Wanted { wishes, incarnation: incarnation(&stat) }))
    }

    async fn subtree(&self) -> Result<Option<Wanted>, SourceError> {
        let root = &self.definition.path;
        let Some((names, stat)) = self.session.get_children(root).await? else { return Ok(None) };
        let mut wishes = BTreeMap::new();
        let mut level = names;
        while !level.is_empty() {
            let read = |name: String| {
                let path = join(root, &name);
                let (data, children) = (self.session.get_data(&path), self.session.get_children(&path));
                async move { (name, path, data.await, children.await) }
            };
            let mut answers = stream::iter(std::mem::take(&mut level)).map(read).buffer_unordered(PIPELINE / 2);
            while let Some((name, path, data, children)) = answers.next().await {
                // What cannot be listed might hold more: nothing below it may count as gone.
                let children = children?.map(|(names, _)| names).unwrap_or_default();
                let only_holds = !children.is_empty() && matches!(&data, Ok(Some((data, _))) if data.is_empty());
                level.extend(children.into_iter().map(|child| format!("{name}/{child}")));
                if !only_holds && let Some(wish) = self.answered(&name, &path, data)? {
                    self.enter(&mut wishes, &name, wish);
                }
            }
        }
        Ok(Some(Wanted { wishes, incarnation: incarnation(&stat) }))
    }

    /// `None` for a znode that was deleted meanwhile.
    fn answered(&self, name: &str, path: &str, answer: Answer) -> Result<Option<Wish>, SourceError> {
        match answer {
            Ok(Some((data, stat))) => Ok(Some(self.wish(name, &facts(path, data, &stat), None))),
            Ok(None) => Ok(None),
            Err(error) if error.ends_session() => Err(error.into()),
            Err(error) => Ok(Some(Wish::Fault(format!("its znode cannot be read: {error}")))),
        }
    }

    fn wish(&self, name: &str, znode: &Arc<ZnodeFacts>, member: Option<&RawValue>) -> Wish {
        let (definition, key) = (self.definition, self.definition.key(name));
        if let Some(fault) = definition.kind.key_fault(&key) {
            return Wish::Fault(fault.to_owned());
        }
        let value = match member.map(|member| serde_json::from_str::<Value>(member.get())) {
            Some(Err(_)) => return Wish::Fault("its JSON has a number that is too large, or is too deep".to_owned()),
            Some(Ok(value)) => Some(value),
            None => None,
        };
        let given = match (&definition.value, member, value) {
            (Some(template), _, value) => {
                let context = ValueContext { key: name, value: value.as_ref(), znode };
                template.render(&context).map_err(|error| error.to_string())
            }
            // A variable gets the JSON as it is written, with every digit of its numbers.
            (None, Some(member), Some(Value::Object(_) | Value::Array(_) | Value::Number(_)))
                if definition.kind == EntryKind::Variables =>
            {
                Ok(Value::String(json::compact(member.get())))
            }
            (None, _, Some(value)) => Ok(value),
            (None, _, None) => znode.text().map(Value::from).ok_or_else(|| "its data is not UTF-8".to_owned()),
        };
        match given.and_then(|given| EntryValue::read(definition.kind, given)) {
            Ok(value) => {
                let digest = self.digests.of(&definition.airflow, definition.kind, &key, &value);
                Wish::Entry { value, digest }
            }
            Err(fault) => Wish::Fault(fault),
        }
    }

    fn enter(&self, wishes: &mut BTreeMap<String, Wish>, name: &str, wish: Wish) {
        let key = self.definition.key(name);
        let wish = match wishes.get(&key) {
            Some(_) => Wish::Fault("two znodes become this key; write another `separator`".to_owned()),
            None => wish,
        };
        wishes.insert(key, wish);
    }
}

fn incarnation(stat: &ZnodeStat) -> String {
    format!("{:x}-{}", stat.czxid, stat.ctime_ms)
}

fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

fn facts(path: &str, data: Vec<u8>, stat: &ZnodeStat) -> Arc<ZnodeFacts> {
    Arc::new(ZnodeFacts {
        path: path.to_owned(),
        event: None,
        data: Some(data),
        version: stat.version,
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        recreated: false,
        coalesced: 0,
        truncated: false,
    })
}
