//! Passing a request on to the leader, in every way in which that can end.

use flowkeeper::members::{Home, Sight, leader_text};
use flowkeeper::store::Lead;
use flowkeeper::zookeeper::MemberCard;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::member::Member;

const TRIGGER: &str = "/api/v1/schedules/hourly-load/trigger";

/// What the leader does with a request that it has read.
#[derive(Clone, Copy)]
enum Leader {
    Answers(&'static str),
    Resets,
    Breaks,
    IsGone,
}

/// Somebody who takes one request at a time, and the address.
async fn leader(conduct: Leader) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    if !matches!(conduct, Leader::IsGone) {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, conduct).await;
            }
        });
    }
    format!("http://{address}")
}

async fn serve(mut stream: TcpStream, conduct: Leader) {
    let mut request = vec![0; 64 * 1024];
    let _ = stream.read(&mut request).await;
    match conduct {
        Leader::Answers(answer) => stream.write_all(answer.as_bytes()).await.expect("the answer is sent"),
        Leader::Resets => stream.set_zero_linger().expect("a reset"),
        Leader::Breaks => {
            let half = "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"id\":";
            stream.write_all(half.as_bytes()).await.expect("the half is sent");
        }
        Leader::IsGone => {}
    }
}

/// A member that stands by, and takes the one at `url` for the leader.
async fn standby(url: Option<String>) -> Member {
    let member = Member::start().await;
    member.lead.send_replace(None);
    member.status.set_leading(false);
    let own = MemberCard { id: "me:1~0".into(), url: Some("http://me:1".into()), ..MemberCard::default() };
    let text =
        url.map(|url| leader_text(&MemberCard { id: "other:1~0".into(), url: Some(url), ..MemberCard::default() }));
    let home = Home::Disconnected { since: None, reason: "away".into() };
    let lead = Some(Lead { epoch: 2, leader: text, since: None });
    member.sight.send_replace(Sight { own: Some(own), live: Vec::new(), lead, home });
    member
}

#[tokio::test]
async fn each_end_of_a_request_that_is_passed_on_has_its_answer() {
    let html = "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\noops";
    let problem = "HTTP/1.1 409 Conflict\r\nContent-Type: application/problem+json\r\nContent-Length: 31\r\n\r\n\
                   {\"type\":\"urn:x\",\"detail\":\"no\"}  ";
    let done = "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"id\":1}";
    let cases = [
        (Leader::Answers(done), 202, None, ""),
        (Leader::Answers(problem), 409, Some("urn:x"), ""),
        (Leader::IsGone, 502, Some("urn:flowkeeper:problem:leader-unreachable"), "nothing was done"),
        (Leader::Resets, 504, Some("urn:flowkeeper:problem:leader-silent"), "it may have been done"),
        (Leader::Breaks, 504, Some("urn:flowkeeper:problem:leader-silent"), "it may have been done"),
        (Leader::Answers(html), 504, Some("urn:flowkeeper:problem:leader-silent"), "must lead to its own API"),
    ];
    for (conduct, status, kind, hint) in cases {
        let member = standby(Some(leader(conduct).await)).await;
        let answer = member.post(TRIGGER, &json!({ "key": "k" })).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert_eq!(answer.json()["type"].as_str(), kind, "{}", answer.text);
        assert!(answer.json()["hint"].as_str().unwrap_or_default().contains(hint), "{}", answer.text);
        assert!(member.ledger.run("flowkeeper__hourly-load__mk").await.expect("a ledger").is_none());
        member.stop().await;
    }
}

#[tokio::test]
async fn without_a_leader_or_at_an_address_that_leads_back_nothing_is_done() {
    let member = standby(None).await;
    let answer = member.post(TRIGGER, &json!({ "key": "k" })).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["type"]), (503, &json!("urn:flowkeeper:problem:unavailable")));
    assert!(answer.text.contains("no member leads at the moment"), "{}", answer.text);
    // What it can answer itself, it does.
    let schedule = member.get("/api/v1/schedules/hourly-load").await.json();
    assert_eq!((&schedule["name"], &schedule["armed"]), (&json!("hourly-load"), &json!(null)));
    member.stop().await;

    let member = standby(Some("http://me:1".into())).await;
    let answer = member.post(TRIGGER, &json!({ "key": "k" })).await;
    assert_eq!(answer.status.as_u16(), 502, "{}", answer.text);
    assert!(answer.json()["hint"].as_str().is_some_and(|hint| hint.contains("[server] advertise")), "{}", answer.text);
    member.stop().await;
}
