//! Servers that fail in every way there is, and what is known of them afterwards.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::zookeeper::Tls;

const TIMEOUT: Duration = Duration::from_millis(300);

/// How a server takes a connection.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Answers this to everything.
    Says(&'static str),
    /// Accepts, and stays silent.
    Silent,
    /// Answers a byte now and then, and never ends.
    Trickles,
    /// The same, but for `srvr`, which it answers as it should.
    TricklesBehind(&'static str),
    /// Closes at once.
    Closes,
    /// Resets the connection instead of answering.
    Resets,
    /// Says this, and resets the connection behind it.
    SaysAndResets(&'static str),
    /// Never stops.
    Floods,
}

async fn listen(manner: Manner) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, manner));
        }
    });
    (port, serving)
}

async fn serve(mut connection: TcpStream, manner: Manner) {
    let mut asked = [0; 4];
    if !matches!(manner, Manner::Closes) {
        connection.read_exact(&mut asked).await.ok();
    }
    match manner {
        Manner::Closes => {}
        Manner::Says(text) => {
            connection.write_all(text.as_bytes()).await.ok();
        }
        Manner::Silent => tokio::time::sleep(Duration::from_mins(1)).await,
        Manner::TricklesBehind(text) if asked == *b"srvr" => {
            connection.write_all(text.as_bytes()).await.ok();
        }
        Manner::Trickles | Manner::TricklesBehind(_) => {
            while connection.write_all(b"Z").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Manner::Resets => {
            connection.set_zero_linger().ok();
        }
        Manner::SaysAndResets(text) => {
            connection.write_all(text.as_bytes()).await.ok();
            // What was said must be on its way before the reset throws away what was not.
            tokio::time::sleep(Duration::from_millis(100)).await;
            connection.set_zero_linger().ok();
        }
        Manner::Floods => {
            let block = vec![b'x'; 64 << 10];
            while connection.write_all(&block).await.is_ok() {}
        }
    }
}

async fn sample(server: u16, admin: Option<u16>, tls: Option<Tls>) -> ServerFacts {
    let settings = Settings {
        connect: format!("127.0.0.1:{server}"),
        session_timeout: Duration::from_secs(10),
        auth: None,
        tls,
        sasl: None,
    };
    let admin = admin.map(|port| format!("http://{{host}}:{port}/commands"));
    let sampler = Sampler::new(&settings, admin.as_deref(), Clock::system()).expect("settings");
    sampler.take(TIMEOUT).await.servers.remove(0)
}

const SRVR: &str = include_str!("../fixtures/4lw-srvr.follower.txt");

#[tokio::test]
async fn a_server_fails_in_its_own_way_and_in_bounded_time() {
    for (manner, answer) in [
        (Manner::Says(SRVR), Answer::Serves),
        (Manner::SaysAndResets(SRVR), Answer::Serves),
        (Manner::Says(include_str!("../fixtures/4lw-srvr.noquorum.txt")), Answer::NotServing),
        (Manner::Silent, Answer::Failed(Why::Silent)),
        (Manner::Trickles, Answer::Failed(Why::Silent)),
        (Manner::Closes, Answer::Failed(Why::TurnedAway)),
        (Manner::Resets, Answer::Failed(Why::TurnedAway)),
        (
            Manner::Says("HTTP/1.1 400 Bad Request\r\n"),
            Answer::Failed(Why::Unreadable("\"HTTP/1.1 400 Bad Request\"".into())),
        ),
        (
            Manner::Says("srvr is not executed because it is not in the whitelist.\n"),
            Answer::Failed(Why::Refused("srvr")),
        ),
    ] {
        let (port, serving) = listen(manner).await;
        let started = Instant::now();
        let facts = sample(port, None, None).await;
        assert_eq!(facts.answer, answer, "{manner:?}");
        assert!(started.elapsed() < TIMEOUT * 10, "{manner:?} took {:?}", started.elapsed());
        serving.abort();
    }
    let (port, serving) = listen(Manner::Floods).await;
    let flooded = sample(port, None, None).await;
    assert!(matches!(flooded.answer, Answer::Failed(Why::Unreadable(_) | Why::Silent)), "{:?}", flooded.answer);
    serving.abort();
}

/// Each of a dozen answers would take its whole time.
#[tokio::test]
async fn a_server_that_drips_its_answers_holds_nobody_up() {
    let (port, serving) = listen(Manner::TricklesBehind(SRVR)).await;
    let (admin, answering) = listen(Manner::Trickles).await;
    let started = Instant::now();
    let facts = sample(port, Some(admin), None).await;
    let took = started.elapsed();
    assert_eq!(facts.answer, Answer::Serves);
    assert_eq!(facts.metrics, Err(Why::Silent), "what was asked in time");
    assert_eq!(facts.directory_bytes, Err(Why::OutOfTime), "what was not");
    assert!(facts.summary.is_ok() && facts.admin.is_err(), "{facts:?}");
    assert!(took < TIMEOUT * 5, "{took:?}");
    serving.abort();
    answering.abort();
}

#[tokio::test]
async fn nobody_there_is_told_with_the_reason() {
    let (port, serving) = listen(Manner::Closes).await;
    serving.abort();
    serving.await.expect_err("it was ended");
    let facts = sample(port, Some(port), None).await;
    assert!(
        matches!(&facts.answer, Answer::Failed(Why::Unreachable(reason)) if reason.contains("refused")),
        "{facts:?}"
    );
    assert!(matches!(facts.admin, Err(Why::Unreachable(_))), "{:?}", facts.admin);
}

#[tokio::test]
async fn an_admin_server_fails_in_its_own_way() {
    let page = "HTTP/1.1 500 Server Error\r\nContent-Length: 6\r\n\r\n<html>";
    let other = "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"detail\": \"no\"}";
    let electing = "HTTP/1.1 200 OK\r\nContent-Length: 105\r\n\r\n{\"command\" : \"server_stats\", \"error\" : \"This ZooKeeper instance is not currently serving requests\"      }";
    let (port, serving) = listen(Manner::Says(SRVR)).await;
    for (manner, is_right) in [
        (
            Manner::Says(page),
            (|why| matches!(why, Why::Unreadable(reason) if reason.contains("HTTP 500"))) as fn(&Why) -> bool,
        ),
        (Manner::Says(other), |why| matches!(why, Why::Unreadable(reason) if reason.contains("another program"))),
        (Manner::Says(electing), |why| *why == Why::NotServing),
        (Manner::Silent, |why| *why == Why::Silent),
        (Manner::Resets, |why| matches!(why, Why::Unreachable(_))),
        (Manner::Floods, |why| matches!(why, Why::Unreachable(_) | Why::Silent)),
    ] {
        let (admin, answering) = listen(manner).await;
        let facts = sample(port, Some(admin), None).await;
        let why = facts.admin.expect_err("no facts");
        assert!(is_right(&why), "{manner:?}: {why:?}");
        assert_eq!(facts.answer, Answer::Serves, "{manner:?}: the words count");
        answering.abort();
    }
    serving.abort();
}

#[tokio::test]
async fn a_port_without_tls_is_told() {
    let (port, serving) = listen(Manner::Says(SRVR)).await;
    let tls = Tls { ca: AUTHORITY.to_owned(), identity: None };
    let facts = sample(port, None, Some(tls)).await;
    assert!(matches!(&facts.answer, Answer::Failed(Why::Unreachable(reason)) if reason.contains("TLS")), "{facts:?}");
    assert_eq!(facts.certificate, Some(Err(Why::NotAsked)));
    serving.abort();
}

/// The certificate of `../fixtures/certificate-2030.der`.
const AUTHORITY: &str = include_str!("../fixtures/certificate-2030.pem");
