//! Server-sent events: what is committed is told, and whoever missed something is told that.

use flowkeeper::domain::run::{AirflowState, RunState};
use reqwest::{Method, Response};
use serde_json::Value;

use crate::support::member::{Member, dag_run_id};
use crate::support::world::PATIENCE;

/// Events of a stream, as they come.
struct Events {
    response: Response,
    buffer: String,
}

impl Events {
    async fn open(member: &Member, last_event_id: Option<&str>) -> Self {
        let mut request = member.request(Method::GET, "/api/v1/events");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.expect("a stream");
        assert!(response.headers()["content-type"].to_str().is_ok_and(|kind| kind.starts_with("text/event-stream")));
        Self { response, buffer: String::new() }
    }

    /// The fields of the next event that has data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Option<String>, Value)> {
        loop {
            while let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
                };
                let event = (field("event"), field("id"), field("data"));
                let rest = rest.to_owned();
                self.buffer = rest;
                if let (Some(kind), id, Some(data)) = event {
                    return Some((kind, id, serde_json::from_str(&data).expect("JSON")));
                }
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk());
            let chunk = chunk.await.expect("news in time").ok().flatten()?;
            self.buffer.push_str(&String::from_utf8_lossy(&chunk));
        }
    }
}

#[tokio::test]
async fn commits_are_told_as_they_happen() {
    let member = Member::start().await;
    let mut events = Events::open(&member, None).await;
    let id = member.record("2026-11-22T11:00:00Z", RunState::Pending).await;
    let (kind, sequence, run) = events.next().await.expect("an event");
    assert_eq!((kind.as_str(), &run["state"], &run["run"]), ("run", &"pending".into(), &id.0.into()));
    assert_eq!(run["dag_run_id"], dag_run_id("2026-11-22T11:00:00Z"));
    member.see(&dag_run_id("2026-11-22T11:00:00Z"), AirflowState::Running).await;
    let (_, next_sequence, run) = events.next().await.expect("an event");
    assert_eq!(run["state"], "running");
    let number = |id: Option<String>| id.and_then(|id| id.parse::<u64>().ok()).expect("a number");
    assert!(number(next_sequence) > number(sequence));
    member.stop().await;
}

#[tokio::test]
async fn who_comes_back_is_told_to_read_the_lists_again() {
    let member = Member::start().await;
    let mut events = Events::open(&member, Some("17")).await;
    let (kind, _, lagged) = events.next().await.expect("an event");
    assert_eq!((kind.as_str(), &lagged["missed"]), ("lagged", &Value::Null));
    member.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_member_does() {
    let member = Member::start().await;
    let mut events = Events::open(&member, None).await;
    member.stop().await;
    assert!(events.next().await.is_none());
}
