//! What templates can read: the variables, and a znode as they see it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use minijinja::value::{Enumerator, Object};
use minijinja::{Error, ErrorKind, Value};
use serde_json::value::RawValue;

use super::RenderError;
use super::default_conf::default_conf;
use super::ensemble::EnsembleVariable;
use super::filters::Moment;
use crate::domain::schedule::Schedule;
use crate::domain::znode::ChangeKind;

/// Every variable that a template may read.
pub const VARIABLES: [&str; 7] = ["schedule", "nominal_time", "dag_run_id", "znode", "previous", "ensemble", "changes"];

/// What templates are evaluated on.
///
/// A variable that does not apply is `none` in templates, `changes` an empty list.
#[derive(Debug, Clone, Copy)]
pub struct RenderContext<'a> {
    /// The schedule that came due.
    pub schedule: &'a Schedule,
    /// The DAG run's id.
    pub dag_run_id: &'a str,
    /// A cron occurrence's own time.
    pub nominal_time: Option<Timestamp>,
    /// The znode that changed.
    pub znode: Option<&'a Arc<ZnodeFacts>>,
    /// The same znode as it was last handled.
    pub previous: Option<&'a Arc<ZnodeFacts>>,
    /// The ensemble: what became of it, or, of a znode, its name; `None` is the home ensemble.
    pub ensemble: Option<EnsembleVariable<'a>>,
    /// The changes of a batch.
    pub changes: &'a [Arc<ZnodeFacts>],
}

impl<'a> RenderContext<'a> {
    /// Of a run of which nothing but its schedule and its id is known.
    pub fn of(schedule: &'a Schedule, dag_run_id: &'a str) -> Self {
        Self { schedule, dag_run_id, nominal_time: None, znode: None, previous: None, ensemble: None, changes: &[] }
    }

    /// The conf of the DAG run: as the schedule writes it, or else the usual one.
    pub fn conf(&self) -> Result<Box<RawValue>, RenderError> {
        match &self.schedule.conf {
            Some(template) => template.render(self),
            None => default_conf(self),
        }
    }

    /// The variables that `used` asks for, as the engine takes them.
    pub(super) fn variables(&self, used: &dyn Fn(&str) -> bool) -> Value {
        Value::from_pairs(VARIABLES.into_iter().filter(|name| used(name)).map(|name| (name, self.variable(name))))
    }

    fn variable(&self, name: &str) -> Value {
        let znode = |facts: Option<&Arc<ZnodeFacts>>| facts.map_or(none(), ZnodeFacts::to_value);
        match name {
            "schedule" => self.schedule_value(),
            "nominal_time" => self
                .nominal_time
                .map_or(none(), |time| Value::from_object(Moment(time.to_zoned(self.schedule.timezone.clone())))),
            "dag_run_id" => Value::from(self.dag_run_id),
            "znode" => znode(self.znode),
            "previous" => znode(self.previous),
            "ensemble" => self.ensemble.map_or(none(), |ensemble| ensemble.to_value(&self.schedule.timezone)),
            "changes" => self.changes.iter().map(ZnodeFacts::to_value).collect(),
            _ => Value::UNDEFINED,
        }
    }

    fn schedule_value(&self) -> Value {
        let schedule = self.schedule;
        Value::from_pairs([
            ("name", Value::from(schedule.name.as_str())),
            ("owner", schedule.owner.as_deref().map_or(none(), Value::from)),
            ("airflow", Value::from(&*schedule.airflow)),
            ("dag", Value::from(&*schedule.dag_id)),
            ("trigger", Value::from(schedule.trigger.kind().as_str())),
            ("timezone", schedule.timezone.iana_name().map_or(none(), Value::from)),
        ])
    }
}

fn none() -> Value {
    Value::from(())
}

/// A znode, or one change of it, as templates see it.
///
/// `text`, `base64` and `json` are made of the data when a template asks for them. `text` is none
/// for data that is not UTF-8; `json` fails for data that is not JSON; all three are none when
/// there is no data (the znode was deleted).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZnodeFacts {
    /// Absolute path.
    pub path: String,
    /// What happened; `None` for a state that is only looked back at.
    pub event: Option<ChangeKind>,
    /// The data; `None` when the znode was deleted or its data is not known.
    pub data: Option<Vec<u8>>,
    /// The data version.
    pub version: i32,
    /// The transaction that created this incarnation.
    pub czxid: i64,
    /// The transaction that last set its data.
    pub mzxid: i64,
    /// It was deleted and created again since it was last handled.
    pub recreated: bool,
    /// How many changes ZooKeeper merged into this one.
    pub coalesced: i64,
    /// `data` is only the beginning of the data.
    pub truncated: bool,
}

/// The attributes of [`ZnodeFacts`] that a template gets when it takes the whole; `json` is not
/// among them, since the data need not be JSON.
const ATTRIBUTES: [&str; 12] = [
    "path",
    "name",
    "event",
    "text",
    "base64",
    "size_bytes",
    "version",
    "czxid",
    "mzxid",
    "recreated",
    "coalesced",
    "truncated",
];

impl ZnodeFacts {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The data as text, where it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.data.as_deref()?).ok()
    }

    /// The data in standard base64 with padding.
    pub fn base64(&self) -> Option<String> {
        Some(STANDARD.encode(self.data.as_deref()?))
    }

    pub(super) fn to_value(self: &Arc<Self>) -> Value {
        Value::from_dyn_object(Arc::clone(self))
    }

    fn json(&self) -> Value {
        let Some(data) = self.data.as_deref() else { return none() };
        match serde_json::from_slice::<Value>(data) {
            Ok(json) => json,
            Err(error) => Value::from(Error::new(
                ErrorKind::InvalidOperation,
                format!("the data of {} is not JSON: {error}", self.path),
            )),
        }
    }

    fn attribute(&self, name: &str) -> Option<Value> {
        Some(match name {
            "path" => Value::from(self.path.as_str()),
            "name" => Value::from(self.name()),
            "event" => self.event.map_or(none(), |event| Value::from(event.as_str())),
            "text" => self.text().map_or(none(), Value::from),
            "base64" => self.base64().map_or(none(), Value::from),
            "json" => self.json(),
            "size_bytes" => Value::from(self.data.as_ref().map_or(0, Vec::len)),
            "version" => Value::from(self.version),
            "czxid" => Value::from(self.czxid),
            "mzxid" => Value::from(self.mzxid),
            "recreated" => Value::from(self.recreated),
            "coalesced" => Value::from(self.coalesced),
            "truncated" => Value::from(self.truncated),
            _ => return None,
        })
    }
}

impl Object for ZnodeFacts {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.attribute(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.attribute(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&ATTRIBUTES)
    }
}
