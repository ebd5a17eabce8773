//! Everything that a member leaves behind or shows: files, tables, znodes, answers, output, command lines.

use std::path::Path;

use flowkeeper::zookeeper::Session;
use sqlx::{AnyConnection, Connection as _, Row as _};

use super::marks::Marks;
use crate::support::process::Member;

/// What can be asked of a member.
const PATHS: [&str; 27] = [
    "",
    "healthz",
    "readyz",
    "metrics",
    "openapi.json",
    "nowhere",
    "api/v1/schedules",
    "api/v1/schedules/main",
    "api/v1/schedules/main/next",
    "api/v1/runs?limit=1000",
    "api/v1/runs/1",
    "api/v1/dag-runs",
    "api/v1/stats",
    "api/v1/audit",
    "api/v1/members",
    "api/v1/airflow",
    "api/v1/locks",
    "api/v1/sync",
    "api/v1/adopt",
    "api/v1/config",
    "api/v1/config/history",
    "api/v1/config/history/1",
    "api/v1/config/definitions",
    "api/v1/ensembles",
    "api/v1/ensembles/home/checks",
    "api/v1/ensembles/other/checks",
    "api/v1/ensembles/home/ephemerals",
];

/// What was seen, and the secrets in it.
pub(super) struct Search {
    marks: Marks,
    leaks: Vec<String>,
    /// How much was looked at, in bytes.
    pub(super) seen: usize,
}

impl Search {
    pub(super) fn new(marks: Marks) -> Self {
        Self { marks, leaks: Vec::new(), seen: 0 }
    }

    /// Looks for secrets in a text.
    pub(super) fn text(&mut self, place: &str, text: &str) {
        self.seen += text.len();
        self.leaks.extend(self.marks.found_in(place, text));
    }

    /// Runs a command of the binary; its output is looked at, whatever became of it.
    pub(super) async fn command(&mut self, member: &Member, arguments: &[&str]) {
        let output = member.run(arguments).await;
        for part in [output.stdout, output.stderr] {
            self.text(&arguments.join(" "), &String::from_utf8_lossy(&part));
        }
    }

    /// Asks for everything with a token, whether or not it is the right one.
    pub(super) async fn answers(&mut self, member: &Member, token: &str) {
        let http = reqwest::Client::new();
        for path in PATHS {
            let request = http.get(format!("{}/{path}", member.url())).bearer_auth(token);
            let answer = request.send().await.expect("an answer");
            let heads = format!("{:?}", answer.headers());
            self.text(path, &(heads + &answer.text().await.expect("text")));
        }
    }

    /// Reads the stream of events up to the first `count` that tell of runs.
    pub(super) async fn events(&mut self, member: &Member, token: &str, count: usize) {
        let request = reqwest::Client::new().get(format!("{}/api/v1/events", member.url())).bearer_auth(token);
        let mut stream = request.send().await.expect("an answer");
        let mut heard = String::new();
        while heard.matches("event: run").count() < count {
            let part = stream.chunk().await.expect("it is read").expect("the stream goes on");
            heard.push_str(&String::from_utf8_lossy(&part));
        }
        self.text("the stream of events", &heard);
    }

    /// Posts or puts something; the answer is looked at, whatever it is.
    pub(super) async fn send(&mut self, member: &Member, method: &str, path: &str, token: &str, body: String) -> u16 {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = reqwest::Client::new().request(method, format!("{}/api/v1/{path}", member.url()));
        let request = request.bearer_auth(token).header("Content-Type", "application/json").body(body);
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        self.text(path, &answer.text().await.expect("text"));
        status
    }

    /// The command lines of all processes, but for that of the command which is configured with this argument.
    pub(super) fn processes(&mut self, argument: &str) {
        for process in std::fs::read_dir("/proc").expect("a list of processes").flatten() {
            // A process may end meanwhile, and most entries are none.
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if !line.contains(argument) {
                self.text("a command line", &line);
            }
        }
    }

    /// Every file of a directory but these; a ledger of SQLite byte by byte.
    pub(super) fn files(&mut self, directory: &Path, except: &[&str]) {
        for entry in std::fs::read_dir(directory).expect("the directory is read").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                self.files(&entry.path(), except);
            } else if !except.contains(&name.as_str()) {
                let bytes = std::fs::read(entry.path()).expect("the file is read");
                self.text(&name, &String::from_utf8_lossy(&bytes));
            }
        }
    }

    /// Every column of every table, as text; how many rows there were.
    pub(super) async fn tables(&mut self, url: &str) -> usize {
        sqlx::any::install_default_drivers();
        let is_sqlite = url.starts_with("sqlite");
        let mut connection = AnyConnection::connect(url).await.expect("the ledger");
        let tables = if is_sqlite {
            "SELECT name FROM sqlite_master WHERE type = 'table'"
        } else {
            "SELECT tablename::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        };
        let tables = sqlx::query(tables).fetch_all(&mut connection).await.expect("a list of tables");
        let mut count = 0;
        for table in tables {
            let table: String = table.get(0);
            let row = if is_sqlite {
                let columns = format!("SELECT name FROM pragma_table_info('{table}')");
                let columns = sqlx::query(sqlx::AssertSqlSafe(columns)).fetch_all(&mut connection).await;
                let quoted = |column: &sqlx::any::AnyRow| {
                    let name = column.get::<String, _>(0);
                    // Bytes become hexadecimal digits.
                    format!("quote(\"{name}\")")
                };
                columns.expect("a list of columns").iter().map(quoted).collect::<Vec<_>>().join(" || ' ' || ")
            } else {
                "row_to_json(t)::text".to_owned()
            };
            let rows = format!("SELECT {row} FROM \"{table}\" t");
            for row in sqlx::query(sqlx::AssertSqlSafe(rows)).fetch_all(&mut connection).await.expect("the rows") {
                self.text(&format!("the table {table}"), &row.get::<String, _>(0));
                count += 1;
            }
        }
        count
    }

    /// A znode and everything below it, but for what people put into `config`; how many there were.
    pub(super) async fn znodes(&mut self, session: &Session, root: &str) -> usize {
        let (mut paths, mut count) = (vec![root.to_owned()], 0);
        while let Some(path) = paths.pop() {
            let Some((data, _)) = session.get_data(&path).await.expect("an answer") else { continue };
            count += 1;
            if !path.starts_with(&format!("{root}/config")) {
                self.text(&path, &format!("{path} {}", String::from_utf8_lossy(&data)));
            }
            let children = session.get_children(&path).await.expect("an answer").map(|(children, _)| children);
            paths.extend(children.into_iter().flatten().map(|child| format!("{path}/{child}")));
        }
        count
    }

    /// Nothing was found.
    pub(super) fn found_nothing(self) {
        assert!(self.leaks.is_empty(), "{} leaks:\n{}", self.leaks.len(), self.leaks.join("\n\n"));
    }
}
