//! A network between flowkeeper and a server that fails on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

/// ZooKeeper's operation to add a watch, which servers before 3.6 do not know.
const ADD_WATCH: i32 = 106;

/// What those servers answer.
const UNIMPLEMENTED: i32 = -6;

/// A TCP proxy on a port of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
}

/// What the two sides speak, as far as the proxy has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Requests are frames, some of which the proxy may answer itself.
    ZooKeeper,
    /// Bytes.
    Any,
}

struct Control {
    target: String,
    protocol: Protocol,
    /// Raised to cut every connection that is open.
    cuts: watch::Sender<u64>,
    frozen: watch::Sender<bool>,
    refusing: AtomicBool,
    /// Answers requests to add a watch as an old server does.
    old_server: AtomicBool,
    accepted: AtomicUsize,
}

impl Proxy {
    /// Listens, and passes on to the ZooKeeper server `target`.
    pub(crate) async fn start(target: &str) -> Self {
        Self::between(target, Protocol::ZooKeeper).await
    }

    /// Listens, and passes on to `target`, which may speak any protocol.
    pub(crate) async fn start_plain(target: &str) -> Self {
        Self::between(target, Protocol::Any).await
    }

    async fn between(target: &str, protocol: Protocol) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port for the proxy");
        let address = listener.local_addr().expect("the proxy's address");
        let control = Arc::new(Control {
            target: target.to_owned(),
            protocol,
            cuts: watch::Sender::new(0),
            frozen: watch::Sender::new(false),
            refusing: AtomicBool::new(false),
            old_server: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&control)));
        Self { address, control }
    }

    /// `127.0.0.1:port`.
    pub(crate) fn connect(&self) -> String {
        self.address.to_string()
    }

    /// Resets every open connection; new ones are taken.
    pub(crate) fn cut(&self) {
        self.control.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Resets new connections too, or takes them again.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.control.refusing.store(refusing, Ordering::SeqCst);
        if refusing {
            self.cut();
        }
    }

    /// Keeps connections open and lets nothing through, or goes on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.control.frozen.send_replace(frozen);
    }

    /// Plays a server before 3.6 to connections from now on.
    pub(crate) fn play_old_server(&self) {
        self.control.old_server.store(true, Ordering::SeqCst);
    }

    /// How many connections were taken.
    pub(crate) fn accepted(&self) -> usize {
        self.control.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    while let Ok((client, _)) = listener.accept().await {
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            if control.refusing.load(Ordering::SeqCst) {
                reset(&client);
                return;
            }
            control.accepted.fetch_add(1, Ordering::SeqCst);
            let mut cuts = control.cuts.subscribe();
            let Ok(server) = TcpStream::connect(&control.target).await else {
                reset(&client);
                return;
            };
            client.set_nodelay(true).ok();
            server.set_nodelay(true).ok();
            reset(&client);
            reset(&server);
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let to_client = Arc::new(Mutex::new(to_client));
            let upwards = async {
                match control.protocol {
                    Protocol::ZooKeeper => upwards(from_client, to_server, Arc::clone(&to_client), &control).await,
                    Protocol::Any => pass_on(from_client, &Mutex::new(to_server), &control).await,
                }
            };
            tokio::select! {
                _ = cuts.changed() => {}
                () = upwards => {}
                () = pass_on(from_server, &to_client, &control) => {}
            }
        });
    }
}

/// Makes the socket reset its connection when it is dropped, instead of ending it in order.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

async fn thawed(control: &Control) {
    control.frozen.subscribe().wait_for(|frozen| !frozen).await.ok();
}

async fn pass_on(mut from: OwnedReadHalf, to: &Mutex<OwnedWriteHalf>, control: &Control) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        thawed(control).await;
        if to.lock().await.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Passes requests to ZooKeeper on, frame by frame.
async fn upwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    answers: Arc<Mutex<OwnedWriteHalf>>,
    control: &Control,
) {
    let mut first = true;
    loop {
        let Ok(length) = from.read_i32().await else { return };
        let mut frame = vec![0; usize::try_from(length).unwrap_or_default()];
        if from.read_exact(&mut frame).await.is_err() {
            return;
        }
        thawed(control).await;
        let field = |at: usize| frame.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
        // The first frame opens the session and has another form.
        if !first && control.old_server.load(Ordering::SeqCst) && field(4) == Some(ADD_WATCH) {
            let mut answer = Vec::new();
            answer.extend_from_slice(&16_i32.to_be_bytes());
            answer.extend_from_slice(&field(0).unwrap_or_default().to_be_bytes());
            answer.extend_from_slice(&0_i64.to_be_bytes());
            answer.extend_from_slice(&UNIMPLEMENTED.to_be_bytes());
            if answers.lock().await.write_all(&answer).await.is_err() {
                return;
            }
            continue;
        }
        first = false;
        let mut message = length.to_be_bytes().to_vec();
        message.append(&mut frame);
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}
