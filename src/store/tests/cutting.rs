//! A network between the ledger and PostgreSQL that fails at the worst moment: when a transaction is
//! being committed.
//!
//! It reads the messages of PostgreSQL's protocol (version 3) that clients send: the first is a length
//! and a body, later ones have a letter before them. `Q` is a statement by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The server never gets it.
    Request,
    /// The server commits, and its answer is lost.
    Answer,
    /// The client is cut off at once, and the server gets it a while later.
    Late,
}

pub(super) const CUTS: [Cut; 3] = [Cut::Request, Cut::Answer, Cut::Late];

/// How late a late commit is: the client has asked again by then.
const LATE: Duration = Duration::from_millis(700);

/// What the network does.
struct Plan {
    cut: std::sync::Mutex<Option<Cut>>,
    /// How many commits pass before one is cut; then it begins anew.
    every: usize,
    commits: AtomicUsize,
    frozen: watch::Sender<bool>,
}

/// A proxy on a port of its own.
pub(super) struct Cutter {
    port: u16,
    plan: Arc<Plan>,
}

impl Cutter {
    /// Cuts each `every`th commit once told how.
    pub(super) async fn start(target: String, every: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan = Arc::new(Plan {
            cut: std::sync::Mutex::new(None),
            every,
            commits: AtomicUsize::new(0),
            frozen: watch::Sender::new(false),
        });
        let shared = Arc::clone(&plan);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, plan }
    }

    /// The URL with this proxy in the place of the server.
    pub(super) fn instead(&self, url: &str) -> String {
        let (before, rest) = url.split_once('@').unwrap();
        let (_, database) = rest.split_once('/').unwrap();
        // Without TLS, so that the messages can be read.
        format!("{before}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// From now on commits are cut so, or not any more.
    pub(super) fn cut(&self, cut: Option<Cut>) {
        *self.plan.cut.lock().unwrap() = cut;
    }

    /// Keeps connections open and lets nothing through, or goes on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.plan.frozen.send_replace(frozen);
    }

    /// How many commits have come by.
    pub(super) fn commits(&self) -> usize {
        self.plan.commits.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, server: TcpStream, plan: Arc<Plan>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    client.set_zero_linger().unwrap();
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let mut frozen = plan.frozen.subscribe();
    let downwards = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            frozen.wait_for(|frozen| !frozen).await.unwrap();
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let cut = tokio::select! {
        () = downwards => None,
        cut = upwards(from_client, to_server, &plan) => cut,
    };
    let Some((cut, mut to_server, commit)) = cut else { return };
    match cut {
        Cut::Request => {}
        Cut::Answer => {
            to_server.write_all(&commit).await.unwrap();
            // Something comes back once it is done.
            from_server.read_u8().await.unwrap();
        }
        Cut::Late => {
            drop(to_client);
            tokio::time::sleep(LATE).await;
            to_server.write_all(&commit).await.unwrap();
            from_server.read_u8().await.ok();
        }
    }
}

/// Passes messages on until the client has gone or a commit is to be cut.
async fn upwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    plan: &Plan,
) -> Option<(Cut, OwnedWriteHalf, Vec<u8>)> {
    let mut frozen = plan.frozen.subscribe();
    let mut first = true;
    loop {
        let mut message = Vec::new();
        if !first {
            message.push(from.read_u8().await.ok()?);
        }
        first = false;
        let length = from.read_u32().await.ok()?;
        message.extend_from_slice(&length.to_be_bytes());
        let body = message.len();
        message.resize(body + usize::try_from(length).unwrap() - 4, 0);
        from.read_exact(&mut message[body..]).await.ok()?;
        frozen.wait_for(|frozen| !frozen).await.unwrap();
        if message[0] == b'Q' && message[body..].starts_with(b"COMMIT") {
            let number = plan.commits.fetch_add(1, Ordering::SeqCst) + 1;
            let cut = *plan.cut.lock().unwrap();
            if let Some(cut) = cut.filter(|_| number.is_multiple_of(plan.every)) {
                return Some((cut, to, message));
            }
        }
        to.write_all(&message).await.ok()?;
    }
}
