//! What changes in the ledger, as server-sent events.
//!
//! A stream begins with now: what was missed is in the lists. A client that comes back with
//! `Last-Event-ID`, or that is too slow, is told so by a `lagged` event and reads the lists again.
//! Only the leader changes runs, so a stream ends with its term: the next one is the next leader's.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use super::Api;
use crate::store::model::LedgerEvent;

/// How often a comment is sent when nothing happens, so that proxies keep the connection open.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a browser waits before it connects again.
const RECONNECT: Duration = Duration::from_secs(2);

/// Events were missed: read the lists again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lagged {
    /// How many, where that is known.
    missed: Option<u64>,
}

/// Changes of runs as they are committed: events named `run`, and `lagged` after some were missed
#[utoipa::path(get, path = "/api/v1/events", tag = "history", responses(
    (status = OK, body = LedgerEvent, content_type = "text/event-stream"),
))]
pub(super) async fn events(State(api): State<Api>, headers: HeaderMap) -> impl IntoResponse {
    // Subscribed before the answer: whoever reads the lists after it misses nothing.
    let receiver = api.ledger.subscribe();
    let begun = Event::default().retry(RECONNECT).comment("flowkeeper");
    let resumed = headers.contains_key("last-event-id").then(|| lagged(None));
    let first = stream::iter(std::iter::once(begun).chain(resumed));
    let (shutdown, lead) = (api.shutdown.clone(), api.operations.lead());
    let end = async move {
        match lead {
            Some(lead) => tokio::select! { () = shutdown.cancelled() => {}, () = lead.lost().cancelled() => {} },
            None => shutdown.cancelled().await,
        }
    };
    let events = first.chain(changes(receiver)).take_until(end).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

fn changes(receiver: Receiver<LedgerEvent>) -> impl Stream<Item = Event> {
    stream::unfold(receiver, |mut receiver| async move {
        let event = match receiver.recv().await {
            Ok(event) => Event::default()
                .event("run")
                .id(event.sequence.to_string())
                .json_data(&event)
                .unwrap_or_else(|_| lagged(Some(1))),
            Err(RecvError::Lagged(missed)) => lagged(Some(missed)),
            Err(RecvError::Closed) => return None,
        };
        Some((event, receiver))
    })
}

fn lagged(missed: Option<u64>) -> Event {
    // A struct of one number always has a JSON form.
    Event::default().event("lagged").json_data(Lagged { missed }).unwrap_or_default()
}
