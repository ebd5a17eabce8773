//! The way to an Airflow, which may be closed, swallow answers, and keep requests for later.
//!
//! It takes requests apart far enough to tell one from another, so that a story chooses what goes wrong, and
//! counts what was sent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It takes effect, and the connection is reset instead of passing the answer on.
    AnswerLost,
    /// It is kept until [`AirflowWay::release`], and takes effect then, whoever has stopped to wait for it.
    Late,
}

/// A proxy before an Airflow, on a port of its own.
pub(crate) struct AirflowWay {
    address: SocketAddr,
    control: Arc<Control>,
}

struct Control {
    target: String,
    state: Mutex<State>,
    closed: watch::Sender<bool>,
    /// How often what is kept was released.
    releases: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Method and path of each request that was passed on or kept, in order.
    requests: Vec<String>,
    /// How many answers said that Airflow failed, as one on SQLite does when it is busy, or were not waited for.
    failures: u64,
    /// What becomes of the next request of this method and beginning of a path.
    next: Vec<(String, Mishap)>,
    /// How many requests met a mishap.
    met: u64,
}

/// The answers on one connection.
struct Answers {
    /// They are passed on.
    pass: AtomicBool,
    /// One is still to come.
    is_awaited: AtomicBool,
}

impl AirflowWay {
    /// Listens, and passes on to the Airflow at `url`.
    pub(crate) async fn start(url: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port for the way");
        let address = listener.local_addr().expect("its address");
        let target = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let (closed, releases) = (watch::Sender::new(false), watch::Sender::new(0));
        let control = Arc::new(Control { target, state: Mutex::default(), closed, releases });
        tokio::spawn(accept(listener, Arc::clone(&control)));
        Self { address, control }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Resets every connection from now on, or lets all through again.
    pub(crate) fn close(&self, closed: bool) {
        self.control.closed.send_replace(closed);
    }

    /// Has the next request of this method and beginning of a path (`PATCH /api/v2/variables`) go wrong.
    pub(crate) fn next(&self, request: &str, mishap: Mishap) {
        self.control.state().next.push((request.to_owned(), mishap));
    }

    /// How many requests went wrong like that.
    pub(crate) fn met(&self) -> u64 {
        self.control.state().met
    }

    /// Passes on what was kept.
    pub(crate) fn release(&self) {
        self.control.releases.send_modify(|releases| *releases += 1);
    }

    /// Method and path of each request so far, without those that met a closed way.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.control.state().requests.clone()
    }

    /// How many answers said that Airflow failed (5xx), as one on SQLite does when it is busy, or came too late.
    pub(crate) fn failures(&self) -> u64 {
        self.control.state().failures
    }

    /// The requests so far that change something.
    pub(crate) fn writes(&self) -> Vec<String> {
        let is_write = |request: &String| !request.starts_with("GET ") && !request.ends_with("/auth/token");
        self.requests().into_iter().filter(is_write).collect()
    }
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request, and tells what becomes of it.
    fn enter(&self, request: String) -> Option<Mishap> {
        let mut state = self.state();
        let at = state.next.iter().position(|(beginning, _)| request.starts_with(beginning.as_str()));
        state.requests.push(request);
        let (_, mishap) = state.next.remove(at?);
        state.met += 1;
        Some(mishap)
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    while let Ok((client, _)) = listener.accept().await {
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let mut closed = control.closed.subscribe();
            let Ok(server) = TcpStream::connect(&control.target).await else { return };
            client.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            let ((from_client, mut to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
            let answers = Answers { pass: AtomicBool::new(true), is_awaited: AtomicBool::new(false) };
            let is_orderly = tokio::select! {
                _ = closed.wait_for(|closed| *closed) => false,
                () = upwards(from_client, to_server, &control, &answers) => true,
                is_orderly = downwards(from_server, &mut to_client, &control, &answers) => is_orderly,
            };
            // What Airflow itself ends is not cut: a reset could overtake its last answer.
            if is_orderly {
                to_client.shutdown().await.ok();
            } else {
                to_client.as_ref().set_zero_linger().ok();
            }
        });
    }
}

/// Passes requests on, one by one.
async fn upwards(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, control: &Control, answers: &Answers) {
    let mut buffer = Vec::new();
    while let Some((request, length)) = request(&mut from, &mut buffer).await {
        let mut releases = control.releases.subscribe();
        releases.mark_unchanged();
        match control.enter(request) {
            None => {}
            Some(Mishap::AnswerLost) => answers.pass.store(false, Ordering::SeqCst),
            Some(Mishap::Late) => drop(releases.changed().await),
        }
        answers.is_awaited.store(true, Ordering::SeqCst);
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        buffer.drain(..length);
    }
    control.state().failures += u64::from(answers.is_awaited.load(Ordering::SeqCst));
    // Whoever asked has gone; Airflow may still be at work for them.
    std::future::pending::<()>().await;
}

/// Passes answers on; whether that ended in order, and not with an answer that was to be lost.
async fn downwards(mut from: OwnedReadHalf, to: &mut OwnedWriteHalf, control: &Control, answers: &Answers) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        control.state().failures += u64::from(buffer[..count].starts_with(b"HTTP/1.1 5"));
        answers.is_awaited.store(false, Ordering::SeqCst);
        if !answers.pass.load(Ordering::SeqCst) {
            return false;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return true;
        }
    }
    true
}

/// The method and path of the next request, and how many bytes of `buffer` it has.
async fn request(from: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> Option<(String, usize)> {
    const END: &[u8] = b"\r\n\r\n";
    let head = loop {
        if let Some(end) = buffer.windows(END.len()).position(|window| window == END) {
            break end + END.len();
        }
        if from.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let line = text.lines().next()?;
    let request = line.split(['?']).next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let length = text.lines().filter_map(|line| line.split_once(':'));
    let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map(|(_, value)| value.trim()).next().map_or(Some(0), |value| value.parse().ok())?;
    while buffer.len() < head + length {
        if from.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some((request, head + length))
}
