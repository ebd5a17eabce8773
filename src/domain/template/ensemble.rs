//! A transition of an ensemble, as templates and the default conf have it.

use std::sync::Arc;

use jiff::tz::TimeZone;
use minijinja::Value;
use serde_json::{Value as Json, json};

use super::filters::Moment;
use crate::domain::ensemble::Transition;

/// The variable `ensemble`.
#[derive(Debug, Clone, Copy)]
pub enum EnsembleVariable<'a> {
    /// Of a znode trigger: the name of the ensemble.
    Name(&'a str),
    /// Of an ensemble trigger: what happened, as far as the schedule listens to it.
    Transition(&'a Transition),
}

impl EnsembleVariable<'_> {
    pub(super) fn to_value(self, zone: &TimeZone) -> Value {
        match self {
            Self::Name(name) => Value::from(name),
            Self::Transition(transition) => {
                let at = Value::from_object(Moment(transition.at.to_zoned(zone.clone())));
                let plain = match transition_json(transition) {
                    Json::Object(plain) => plain,
                    _ => serde_json::Map::new(),
                };
                let others = plain.into_iter().filter(|(key, _)| key != "at");
                // Every JSON has a form as a value of templates.
                let value = |json| serde_json::from_value::<Value>(json).unwrap_or(Value::UNDEFINED);
                let others = others.map(|(key, json)| (Arc::<str>::from(key), value(json)));
                Value::from_pairs(others.chain([(Arc::from("at"), at)]))
            }
        }
    }
}

/// `name, at, event, events, server, count, before, after, leader_before, leader_after, servers,
/// failing`. `event`, `server` are those of the first of `events`, which is what matters most.
pub(super) fn transition_json(transition: &Transition) -> Json {
    let first = transition.events.first();
    json!({
        "name": transition.ensemble,
        "at": format!("{:.6}", transition.at),
        "event": first.map(|happening| happening.event),
        "server": first.and_then(|happening| happening.server.as_deref()),
        "events": transition.events,
        "count": transition.count(),
        "before": transition.before,
        "after": transition.after,
        "leader_before": transition.leader_before,
        "leader_after": transition.leader_after,
        "servers": transition.servers,
        "failing": transition.failing,
    })
}
