//! A network between flowkeeper and a server that fails on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

/// ZooKeeper's operation to add a watch, which servers before 3.6 do not know.
const ADD_WATCH: i32 = 106;

/// What those servers answer.
const UNIMPLEMENTED: i32 = -6;

/// ZooKeeper's operation to make a znode and tell its stat, `create2`.
pub(crate) const CREATE: i32 = 15;

/// ZooKeeper's operation to set the data of a znode.
pub(crate) const SET_DATA: i32 = 5;

/// ZooKeeper's operation to catch up with the leader.
pub(crate) const SYNC: i32 = 9;

/// Stands where answers have the number of their request, for events.
const EVENT: i32 = -1;

/// No request has this number.
const NO_REQUEST: i32 = 0;

/// A TCP proxy on a port of its own.
pub(crate) struct Proxy {
    address: SocketAddr,
    control: Arc<Control>,
}

/// What the two sides speak, as far as the proxy has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Requests are frames, some of which the proxy may answer itself; or the connection is for a
    /// four-letter word.
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
    connect_requests: AtomicUsize,
    /// Lets no event of a watch through.
    mute: AtomicBool,
    /// The operation whose next answer is to be lost; 0 for none.
    answer_to_lose: AtomicI32,
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
            connect_requests: AtomicUsize::new(0),
            mute: AtomicBool::new(false),
            answer_to_lose: AtomicI32::new(0),
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

    /// Passes no event of a watch on, or does again.
    pub(crate) fn mute_watches(&self, mute: bool) {
        self.control.mute.store(mute, Ordering::SeqCst);
    }

    /// Lets the next request for this operation take effect, and resets the connection instead of
    /// passing the answer on.
    pub(crate) fn lose_answer_to(&self, operation: i32) {
        self.control.answer_to_lose.store(operation, Ordering::SeqCst);
    }

    /// Whether the answer that was to be lost has been.
    pub(crate) fn has_lost_answer(&self) -> bool {
        self.control.answer_to_lose.load(Ordering::SeqCst) == 0
    }

    /// How many connections were taken.
    pub(crate) fn accepted(&self) -> usize {
        self.control.accepted.load(Ordering::SeqCst)
    }

    /// On how many of them a session was asked for, a new one or one that is to go on.
    pub(crate) fn connect_requests(&self) -> usize {
        self.control.connect_requests.load(Ordering::SeqCst)
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
            let speaks = if is_for_a_word(&client).await { Protocol::Any } else { control.protocol };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let to_client = Arc::new(Mutex::new(to_client));
            // The request of this connection whose answer is to be lost.
            let marked = AtomicI32::new(NO_REQUEST);
            let both_ways = async {
                match speaks {
                    Protocol::ZooKeeper => tokio::select! {
                        () = upwards(from_client, to_server, Arc::clone(&to_client), &control, &marked) => {}
                        () = downwards(from_server, &to_client, &control, &marked) => {}
                    },
                    Protocol::Any => {
                        let to_server = Mutex::new(to_server);
                        tokio::select! {
                            () = pass_on(from_client, &to_server, &control) => {}
                            () = pass_on(from_server, &to_client, &control) => {}
                        }
                    }
                }
            };
            tokio::select! {
                _ = cuts.changed() => {}
                () = both_ways => {}
            }
        });
    }
}

/// Whether a connection begins with letters: no frame is so long.
async fn is_for_a_word(client: &TcpStream) -> bool {
    let mut first = [0];
    matches!(client.peek(&mut first).await, Ok(1)) && first[0].is_ascii_lowercase()
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

/// The next frame without its length; `None` at the end of the connection.
async fn frame(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Vec<u8>> {
    let length = from.read_i32().await.ok()?;
    let mut frame = vec![0; usize::try_from(length).unwrap_or_default()];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

/// The number at this place of a frame.
fn field(frame: &[u8], at: usize) -> Option<i32> {
    frame.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes)
}

/// A frame with its length.
fn message(frame: Vec<u8>) -> Vec<u8> {
    let length = i32::try_from(frame.len()).expect("a frame that was read");
    let mut message = length.to_be_bytes().to_vec();
    message.extend(frame);
    message
}

/// Passes answers and events on, frame by frame.
async fn downwards(from: OwnedReadHalf, to: &Mutex<OwnedWriteHalf>, control: &Control, marked: &AtomicI32) {
    let mut from = BufReader::with_capacity(64 * 1024, from);
    // The first frame opens the session and has another form.
    let mut first = true;
    while let Some(frame) = frame(&mut from).await {
        thawed(control).await;
        let number = field(&frame, 0).filter(|_| !first);
        first = false;
        if number == Some(EVENT) && control.mute.load(Ordering::SeqCst) {
            continue;
        }
        if number.is_some_and(|number| number != NO_REQUEST && number == marked.load(Ordering::SeqCst)) {
            control.answer_to_lose.store(0, Ordering::SeqCst);
            return;
        }
        if to.lock().await.write_all(&message(frame)).await.is_err() {
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
    marked: &AtomicI32,
) {
    let mut first = true;
    loop {
        let Some(frame) = frame(&mut from).await else { return };
        thawed(control).await;
        let operation = field(&frame, 4).filter(|_| !first);
        // The first frame opens the session and has another form.
        if operation == Some(ADD_WATCH) && control.old_server.load(Ordering::SeqCst) {
            let mut answer = Vec::new();
            answer.extend_from_slice(&16_i32.to_be_bytes());
            answer.extend_from_slice(&field(&frame, 0).unwrap_or_default().to_be_bytes());
            answer.extend_from_slice(&0_i64.to_be_bytes());
            answer.extend_from_slice(&UNIMPLEMENTED.to_be_bytes());
            if answers.lock().await.write_all(&answer).await.is_err() {
                return;
            }
            continue;
        }
        if first {
            control.connect_requests.fetch_add(1, Ordering::SeqCst);
        }
        first = false;
        if operation
            .is_some_and(|operation| operation != 0 && operation == control.answer_to_lose.load(Ordering::SeqCst))
        {
            marked.store(field(&frame, 0).unwrap_or(NO_REQUEST), Ordering::SeqCst);
        }
        if to.write_all(&message(frame)).await.is_err() {
            return;
        }
    }
}
