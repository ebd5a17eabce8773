//! Real ZooKeeper servers, from Debian's package, and a client to play the user with.
//!
//! A server dies with the test process, however that ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use zookeeper_client::{Acls, Client, CreateMode};

use super::certificates::Authority;
use super::children;
use super::ports::free_port;

/// Where Debian keeps the classes.
const CLASSPATH: &str = "/etc/zookeeper/conf:/usr/share/java/*";

/// How long a server may take to answer; it takes about a second on an idle machine.
const START_TIMEOUT: Duration = Duration::from_mins(3);

/// The session timeout of tests that wait for the end of a session, and of those that do not care.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// How much memory a server that serves all tests may take, and one of an ensemble.
const HEAP: &str = "-Xmx512m";
const SMALL_HEAP: &str = "-Xmx128m";

/// Where servers listen.
const LOOPBACK: &str = "127.0.0.1";

/// One server with a data directory of its own.
pub(crate) struct ZooKeeperServer {
    directory: tempfile::TempDir,
    host: String,
    port: u16,
    heap: &'static str,
    /// Further arguments for the JVM.
    options: Vec<String>,
    child: Mutex<Option<Child>>,
}

static SHARED: OnceCell<ZooKeeperServer> = OnceCell::const_new();

impl ZooKeeperServer {
    /// A server of the test's own, to be killed and wiped.
    pub(crate) async fn start() -> Self {
        Self::start_with("", Vec::new()).await
    }

    /// One that speaks TLS as well, certified by `authority`, and where it does; `client_auth` is `need`,
    /// `want` or `none`. What it needs is written into `directory`.
    pub(crate) async fn start_with_tls(authority: &Authority, directory: &Path, client_auth: &str) -> (Self, String) {
        let certified = authority.certify("server");
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file just made");
        let store = directory.join("server-with-key.pem");
        std::fs::write(&store, read(&certified.key) + &read(&certified.cert)).expect("write the server's certificate");
        let port = free_port();
        let settings = format!(
            "secureClientPort={port}\nserverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={}\nssl.keyStore.type=PEM\nssl.trustStore.location={}\nssl.trustStore.type=PEM\n\
             ssl.clientAuth={client_auth}\n",
            store.display(),
            authority.ca().display(),
        );
        (Self::start_with(&settings, Vec::new()).await, format!("127.0.0.1:{port}"))
    }

    /// One that knows `user` by SASL; `settings` say whether it demands that. What it needs is written into
    /// `directory`.
    pub(crate) async fn start_with_sasl(user: &str, password: &str, directory: &Path, settings: &str) -> Self {
        let jaas = directory.join("jaas.conf");
        let login = "org.apache.zookeeper.server.auth.DigestLoginModule required";
        std::fs::write(&jaas, format!("Server {{ {login} user_{user}=\"{password}\"; }};"))
            .expect("write the JAAS file");
        let provider = "authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n";
        let options = vec![format!("-Djava.security.auth.login.config={}", jaas.display())];
        Self::start_with(&format!("{provider}{settings}"), options).await
    }

    /// One with further settings, and further arguments for its JVM.
    pub(crate) async fn start_with(settings: &str, options: Vec<String>) -> Self {
        let mut server = Self::prepare(LOOPBACK, free_port(), HEAP, &format!("tickTime=500\n{settings}"));
        server.options = options;
        server.restart().await;
        server
    }

    /// One server of an ensemble, not yet started. `settings` say how long a tick is and who the
    /// others are; `number` is its own among them; `options` are for the JVM.
    pub(super) fn of_ensemble((host, port): (&str, u16), number: usize, settings: &str, options: Vec<String>) -> Self {
        let mut server = Self::prepare(host, port, SMALL_HEAP, settings);
        server.options = options;
        let data = server.directory.path().join("data");
        std::fs::create_dir(&data).expect("a directory for data");
        std::fs::write(data.join("myid"), number.to_string()).expect("the server's number is written");
        server
    }

    fn prepare(host: &str, port: u16, heap: &'static str, settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for ZooKeeper");
        let data = directory.path().join("data");
        let configuration = format!(
            "dataDir={}\nclientPort={port}\nclientPortAddress={host}\nminSessionTimeout=1000\nmaxSessionTimeout=60000\n\
             maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n{settings}",
            data.display()
        );
        std::fs::write(directory.path().join("zoo.cfg"), configuration).expect("zoo.cfg is written");
        Self { directory, host: host.to_owned(), port, heap, options: Vec::new(), child: Mutex::new(None) }
    }

    /// The server that all tests use which leave it as it is; each under a path of its own.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// `127.0.0.1:port`.
    pub(crate) fn connect(&self) -> String {
        format!("{}:{}", self.host, self.port)
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
        self.launch();
        self.answers().await;
    }

    /// Adds a line to its settings, which counts in place of one of the same key from the next start on.
    pub(super) fn set(&self, setting: &str) {
        let file = self.directory.path().join("zoo.cfg");
        let mut settings = std::fs::read_to_string(&file).expect("zoo.cfg is read");
        for part in ["\n", setting, "\n"] {
            settings.push_str(part);
        }
        std::fs::write(file, settings).expect("zoo.cfg is written");
    }

    /// Starts it without waiting for it: alone, a server of an ensemble does not serve.
    pub(super) fn launch(&self) {
        self.kill();
        *self.child.lock().expect("not poisoned") = Some(spawn(self.directory.path(), self.heap, &self.options));
    }

    /// Waits until it serves.
    pub(super) async fn answers(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.mode().is_none() {
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

    /// Copies all data, as a backup does, and goes on.
    pub(crate) async fn copy(&self) -> tempfile::TempDir {
        self.kill();
        let copy = tempfile::tempdir().expect("a directory for the copy");
        copy_all(&self.directory.path().join("data"), copy.path());
        self.restart().await;
        copy
    }

    /// Puts a copy of all data back.
    pub(crate) async fn put_back(&self, copy: &tempfile::TempDir) {
        self.kill();
        let data = self.directory.path().join("data");
        std::fs::remove_dir_all(&data).expect("the data is removed");
        copy_all(copy.path(), &data);
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

    /// What it answers to a four-letter word.
    pub(crate) fn word(&self, word: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// What it is while it serves: `standalone`, `leader` or `follower`.
    pub(super) fn mode(&self) -> Option<String> {
        let answer = self.word("srvr").ok()?;
        answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(ToOwned::to_owned)
    }
}

impl Drop for ZooKeeperServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(directory: &Path, heap: &str, options: &[String]) -> Child {
    assert!(
        Path::new("/usr/share/java/zookeeper.jar").exists(),
        "ZooKeeper is not installed: `apt-get install zookeeper`, or run the tests with `make test`"
    );
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log"));
    let log = log.expect("a log for ZooKeeper");
    let mut command = children::mortal("java");
    command
        .args([heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        // Servers that lose each other while they elect ask again soon, not after up to a minute.
        .arg("-Dzookeeper.fastleader.maxNotificationInterval=1000")
        .args(["-Dzookeeper.forceSync=no", "-Dzookeeper.root.logger=WARN,CONSOLE", "-cp", CLASSPATH])
        .args(options)
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(directory.join("zoo.cfg"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log's second handle"))
        .stderr(log)
        .process_group(0);
    children::spawn(command)
        .expect("setpriv and java start: `apt-get install zookeeper`, or run the tests with `make test`")
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory for the copy");
    for entry in std::fs::read_dir(from).expect("the directory is read") {
        let entry = entry.expect("an entry");
        let copy = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_all(&entry.path(), &copy);
        } else {
            std::fs::copy(entry.path(), copy).expect("the file is copied");
        }
    }
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
