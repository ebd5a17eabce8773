//! Real ZooKeeper servers, from Debian's package, and a client to play the user with.
//!
//! A server dies with the test process, however that ends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use zookeeper_client::{Acls, Client, CreateMode};

/// Where Debian keeps the classes.
const CLASSPATH: &str = "/etc/zookeeper/conf:/usr/share/java/*";

/// How long a server may take to answer; it takes about a second on an idle machine.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// The shortest session timeout that the servers here grant.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// One standalone server with a data directory of its own.
pub(crate) struct ZooKeeperServer {
    directory: tempfile::TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
}

static SHARED: OnceCell<ZooKeeperServer> = OnceCell::const_new();

impl ZooKeeperServer {
    /// A server of the test's own, to be killed and wiped.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for ZooKeeper");
        let port = free_port();
        let data = directory.path().join("data");
        let configuration = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=500\nminSessionTimeout=1000\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            data.display()
        );
        std::fs::write(directory.path().join("zoo.cfg"), configuration).expect("zoo.cfg is written");
        let server = Self { directory, port, child: Mutex::new(None) };
        server.restart().await;
        server
    }

    /// The server that all tests use which leave it as it is; each under a path of its own.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// `127.0.0.1:port`.
    pub(crate) fn connect(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("not poisoned").take() {
            child.kill().expect("the server is killed");
            child.wait().expect("the server is gone");
        }
    }

    /// Starts it on the data that it has.
    pub(crate) async fn restart(&self) {
        self.kill();
        let child = spawn(self.directory.path());
        *self.child.lock().expect("not poisoned") = Some(child);
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.serves() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "ZooKeeper does not answer; its log:\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Loses all data, as a rebuilt ensemble has.
    pub(crate) async fn wipe(&self) {
        self.kill();
        std::fs::remove_dir_all(self.directory.path().join("data")).expect("the data is removed");
        self.restart().await;
    }

    /// Stops the process without ending it, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let child = self.child.lock().expect("not poisoned");
        let pid = child.as_ref().expect("the server runs").id().to_string();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    /// A client that acts as the user would.
    pub(crate) async fn client(&self) -> Client {
        Client::connector()
            .with_session_timeout(Duration::from_secs(30))
            .connect(&self.connect())
            .await
            .expect("the server takes a client")
    }

    fn serves(&self) -> bool {
        let answer = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"srvr")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        answer().is_ok_and(|answer| answer.contains("Mode:"))
    }
}

impl Drop for ZooKeeperServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the JVM from a thread that outlives every test: the kernel kills it when that thread is
/// gone, which is when the process is.
fn spawn(directory: &Path) -> Child {
    assert!(
        Path::new("/usr/share/java/zookeeper.jar").exists(),
        "ZooKeeper is not installed: `apt-get install zookeeper`, or run the tests with `make test`"
    );
    let log = std::fs::File::create(directory.join("log")).expect("a log for ZooKeeper");
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["-Dzookeeper.forceSync=no", "-Dzookeeper.root.logger=WARN,CONSOLE", "-cp", CLASSPATH])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(directory.join("zoo.cfg"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log's second handle"))
        .stderr(log)
        .process_group(0);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        sender.send(command.spawn()).ok();
        loop {
            std::thread::park();
        }
    });
    receiver
        .recv()
        .expect("the thread answers")
        .expect("setpriv and java start: `apt-get install zookeeper`, or run the tests with `make test`")
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Creates a znode that anybody may use.
pub(crate) async fn create(client: &Client, path: &str, data: &[u8]) -> i64 {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(path, data, &options).await.unwrap_or_else(|error| panic!("create {path}: {error}")).0.czxid
}

/// Sets the data of a znode.
pub(crate) async fn set(client: &Client, path: &str, data: &[u8]) -> i64 {
    client.set_data(path, data, None).await.unwrap_or_else(|error| panic!("set {path}: {error}")).mzxid
}

/// Deletes a znode without children.
pub(crate) async fn delete(client: &Client, path: &str) {
    client.delete(path, None).await.unwrap_or_else(|error| panic!("delete {path}: {error}"));
}
