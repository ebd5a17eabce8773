//! A real PostgreSQL of the tests' own, from Debian's package: with an empty database for each test
//! of its own, and one to be stopped, restarted and killed.
//!
//! The tests of `src/store` use this file too, with `ports.rs` beside it. A server ends with the test process, however that
//! ends: a shell waits for the other end of its standard input to close, and clears up.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AnyConnection, Connection as _};
use tokio::sync::OnceCell;

use super::ports::free_port;

/// Where Debian keeps the programs of each major version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(3);

/// The user `nobody` and its group on Debian: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

/// The superuser of the servers here. It needs no password.
const SUPERUSER: &str = "flowkeeper";

/// A role that may log in over TCP with its password alone.
pub(crate) const GUARDED: &str = "guarded";

/// The password of [`GUARDED`].
pub(crate) const PASSWORD: &str = "p@ss:w/rd%";

/// What the shell does: its standard input ends when the tests' process does, and only then is the
/// directory of no more use.
const SHELL: &str = r#"
exec 3<&0
"$1" -D "$2" </dev/null 3<&- &
server=$!
(cat <&3 >/dev/null; touch "$3/abandoned"; kill -s CONT $server; kill -s QUIT $server) &
keeper=$!
wait $server
if [ -e "$3/abandoned" ]; then rm -rf "$3"; fi
kill $keeper
"#;

/// How a server ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// As an operator ends it: connections are ended, everything is written out.
    Fast,
    /// As on a failed power supply: nothing is written out, the next start recovers from the log.
    Immediate,
    /// All its processes are killed.
    Kill,
}

/// One server with a data directory of its own, on a port of 127.0.0.1.
pub(crate) struct PostgresServer {
    directory: PathBuf,
    port: u16,
    shell: Mutex<Option<Child>>,
    databases: AtomicU32,
}

static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();

impl PostgresServer {
    /// A server of the test's own, to be stopped and killed.
    pub(crate) async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("flowkeeper-postgres-").tempdir();
        let directory = directory.expect("a directory for PostgreSQL").keep();
        if is_root() {
            std::os::unix::fs::chown(&directory, Some(NOBODY), Some(NOBODY)).expect("the directory is given away");
        }
        let server = Self { directory, port: free_port(), shell: Mutex::new(None), databases: AtomicU32::new(0) };
        server.initialize();
        server.start_again().await;
        let create = format!("CREATE ROLE {GUARDED} LOGIN CREATEDB PASSWORD '{PASSWORD}'");
        server.execute("postgres", &create).await;
        server
    }

    /// The server that all tests use which leave it running; each with databases of its own.
    pub(crate) async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::start).await
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub(crate) fn connect(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of a new, empty database, as a role that may do anything.
    pub(crate) async fn create_database(&self) -> String {
        let name = format!("flowkeeper_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// The URL of a database, as a role that may do anything.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs one statement in a database, as a role that may do anything.
    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&self.url(database)).await.expect("PostgreSQL takes a connection");
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().await.expect("the connection ends");
    }

    /// Ends it and starts it on the data that it has.
    pub(crate) async fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again().await;
    }

    /// Ends it. Its data stays.
    pub(crate) fn stop(&self, how: Stop) {
        let Some(mut shell) = self.shell.lock().expect("not poisoned").take() else { return };
        if let Some(postmaster) = self.postmaster() {
            match how {
                Stop::Fast => signal("INT", &[postmaster]),
                Stop::Immediate => signal("QUIT", &[postmaster]),
                Stop::Kill => {
                    // Without its parent no process of the server is started anew.
                    let children = children(&postmaster);
                    signal("KILL", &[postmaster]);
                    signal("KILL", &children);
                }
            }
        }
        // Waiting closes the standard input, by which the shell would take this process for gone.
        let input = shell.stdin.take();
        shell.wait().expect("the server ends");
        drop(input);
    }

    /// Stops all its processes without ending them, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let postmaster = self.postmaster().expect("the server runs");
        let name = if frozen { "STOP" } else { "CONT" };
        signal(name, std::slice::from_ref(&postmaster));
        signal(name, &children(&postmaster));
    }

    /// Starts it on the data that it has.
    pub(crate) async fn start_again(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shell = self.spawn();
            *self.shell.lock().expect("not poisoned") = Some(shell);
            while self.runs() {
                if self.answers().await {
                    return;
                }
                assert!(Instant::now() < deadline, "PostgreSQL does not answer; its log:\n{}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // After a kill, the last processes of its former life may not have ended yet.
            assert!(Instant::now() < deadline, "PostgreSQL does not start; its log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn initialize(&self) {
        let mut command = as_nobody(&program("initdb"));
        command.args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"]);
        let output = command.arg("--pgdata").arg(self.data()).output().expect("initdb runs");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        let rules = format!(
            "local all all trust\nhost all {GUARDED} 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        );
        std::fs::write(self.data().join("pg_hba.conf"), rules).expect("write who may log in");
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 200\n\
             shared_buffers = 32MB\nfsync = on\nlog_min_messages = warning\n",
            self.port,
            self.directory.display()
        );
        std::fs::write(self.data().join("postgresql.auto.conf"), settings).expect("write the settings");
    }

    /// The shell ends when the server does, and ends the server when this process is gone.
    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.directory.join("log")).expect("open the log");
        let mut command = as_nobody(Path::new("sh"));
        command.args(["-c", SHELL, "sh"]).arg(program("postgres")).arg(self.data()).arg(&self.directory);
        let log_of_errors = log.try_clone().expect("the log's second handle");
        command.stdin(Stdio::piped()).stdout(log).stderr(log_of_errors).spawn().expect("a shell starts")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Whether the shell has not ended.
    fn runs(&self) -> bool {
        let mut shell = self.shell.lock().expect("not poisoned");
        shell.as_mut().is_some_and(|shell| shell.try_wait().expect("look at the server").is_none())
    }

    async fn answers(&self) -> bool {
        sqlx::any::install_default_drivers();
        let Ok(connection) = AnyConnection::connect(&self.url("postgres")).await else { return false };
        connection.close().await.is_ok()
    }

    /// The process that all others of the server are children of.
    fn postmaster(&self) -> Option<String> {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next().map(ToOwned::to_owned)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// A program of the newest PostgreSQL that is installed.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let major = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest =
        versions.map(|entry| entry.path()).filter(|path| path.join("bin").join(name).exists()).max_by_key(major);
    let newest =
        newest.expect("PostgreSQL is not installed: `apt-get install postgresql`, or run the tests with `make test`");
    newest.join("bin").join(name)
}

/// A command of a user that PostgreSQL accepts.
fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program).current_dir("/");
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn children(parent: &str) -> Vec<String> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().map(ToOwned::to_owned).collect()
}

/// A process that has just ended cannot be told anything, which is fine.
fn signal(name: &str, processes: &[String]) {
    if !processes.is_empty() {
        let told = Command::new("kill").args(["-s", name]).args(processes).stderr(Stdio::null()).status();
        told.expect("kill runs");
    }
}
