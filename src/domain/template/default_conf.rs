//! The `conf` of a schedule that has none: what came due, in a form of a known size.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value as Json, json};

use super::RenderError;
use super::context::{RenderContext, ZnodeFacts};
use super::ensemble::{EnsembleVariable, transition_json};

/// How much of a znode's data the default conf holds.
pub const DEFAULT_CONF_TEXT_BYTES: usize = 8 * 1024;

/// How much data all changes of a batch hold together: some databases under Airflow keep no more
/// than 64 KiB of conf.
pub const DEFAULT_CONF_TOTAL_BYTES: usize = 48 * 1024;

/// `{"znode": …}` for a change, `{"changes": […]}` for a batch, `{"ensemble": …}` for a transition of an
/// ensemble, and otherwise
/// `{"schedule": …, "nominal_time": …}`.
///
/// A znode has `text`, or `base64` where the data is not UTF-8, cut to
/// [`DEFAULT_CONF_TEXT_BYTES`]; `truncated` says so, `size_bytes` is the size of the whole.
pub(super) fn default_conf(context: &RenderContext<'_>) -> Result<Box<RawValue>, RenderError> {
    let conf = if !context.changes.is_empty() {
        let mut room_bytes = DEFAULT_CONF_TOTAL_BYTES;
        json!({ "changes": context.changes.iter().map(|facts| znode(facts, &mut room_bytes)).collect::<Vec<_>>() })
    } else if let Some(facts) = context.znode {
        json!({ "znode": znode(facts, &mut DEFAULT_CONF_TOTAL_BYTES.clone()) })
    } else if let Some(EnsembleVariable::Transition(transition)) = context.ensemble {
        json!({ "ensemble": transition_json(transition) })
    } else {
        json!({
            "schedule": context.schedule.name.as_str(),
            "nominal_time": context.nominal_time.map(|time| time.to_string()),
        })
    };
    to_raw_value(&conf).map_err(|error| RenderError::new(format!("the conf has no JSON form: {error}")))
}

fn znode(facts: &ZnodeFacts, room_bytes: &mut usize) -> Json {
    let limit = DEFAULT_CONF_TEXT_BYTES.min(*room_bytes);
    let data = facts.data.as_deref().unwrap_or_default();
    let (text, kept) = match facts.text() {
        Some(text) => {
            let kept = text.floor_char_boundary(limit);
            (Json::from(&text[..kept]), kept)
        }
        None => (Json::Null, limit.min(data.len())),
    };
    *room_bytes -= kept;
    let base64 = match &text {
        Json::Null if facts.data.is_some() => {
            Json::from(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &data[..kept]))
        }
        _ => Json::Null,
    };
    json!({
        "path": facts.path,
        "name": facts.name(),
        "event": facts.event.map(crate::domain::znode::ChangeKind::as_str),
        "text": text,
        "base64": base64,
        "size_bytes": data.len(),
        "version": facts.version,
        "czxid": facts.czxid,
        "mzxid": facts.mzxid,
        "recreated": facts.recreated,
        "coalesced": facts.coalesced,
        "truncated": facts.truncated || kept < data.len(),
    })
}
