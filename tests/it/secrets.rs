//! No secret gets out: members with secrets of every kind, whose log tells everything (`trace`, libraries too),
//! among Airflows that repeat whatever they are told, people who write secrets in wrong places, and strangers.
//! Afterwards no secret is in any log, output, answer, table, znode, file or command line.

mod marks;
mod places;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowkeeper::app::connect;
use flowkeeper::clock::Clock;
use flowkeeper::config::model::{Connection, Sasl, SaslMechanism, ZooKeeperAuth};
use flowkeeper::config::{Environment, SecretRef};
use flowkeeper::zookeeper::{Ensemble, Session};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::marks::Marks;
use self::places::Search;
use crate::reload::save;
use crate::support::certificates::Authority;
use crate::support::fake_airflow::{FakeAirflow, Fault, Version, World};
use crate::support::postgres::{GUARDED, PASSWORD, PostgresServer};
use crate::support::process::Member;
use crate::support::zookeeper::{SESSION_TIMEOUT, ZooKeeperServer, create, set};

/// How long anything may take that a story waits for.
const PATIENCE: Duration = Duration::from_mins(3);

/// Where flowkeeper keeps its own znodes, and what it finds in others.
const ROOT: &str = "/flowkeeper";
const WISHES: &str = "/wishes";

/// Everything that a careless Airflow may answer with what it was sent.
const ECHOES: [Fault; 12] = [
    Fault::Echo(200),
    Fault::Echo(302),
    Fault::Echo(307),
    Fault::Echo(400),
    Fault::Echo(401),
    Fault::Echo(403),
    Fault::Echo(404),
    Fault::Echo(409),
    Fault::Echo(422),
    Fault::Echo(429),
    Fault::Echo(500),
    Fault::Echo(502),
];

/// Prints a token, or fails every other time and says with what it was called.
const PRINT_TOKEN: &str = r#"
if [ -e refuses ]; then rm refuses; echo "denied: $*" >&2; exit 1; fi
touch refuses
printf '{"headers": {"Authorization": "Bearer %s"}}' "$(cat printed-token)"
"#;

/// An Airflow that repeats every other thing that it is told to do, and whom one logs in to with these.
async fn careless(
    version: Version,
    password: &str,
    signature: &str,
    client_secret: &str,
    tokens: &[&str],
) -> FakeAirflow {
    let mut world = World::new(version).with_dags(["load"]);
    world.password = password.to_owned();
    world.signature = signature.to_owned();
    world.client_secret = client_secret.to_owned();
    world.tokens.extend(tokens.iter().map(|token| (*token).to_owned()));
    world.chaos = Some((2, ECHOES.to_vec()));
    FakeAirflow::start(world).await
}

/// A schedule and syncs for each of these Airflows.
fn work_for(airflows: &[&str], template: &str) -> String {
    let one = |airflow: &&str| {
        format!(
            r#"
[[schedule]]
name = "{airflow}"
airflow = "{airflow}"
cron = "* * * * * *"
dag = "load"
overlap = "allow"
retry = {{ initial = "100ms", max = "1s" }}

[[sync]]
name = "{airflow}-variables"
airflow = "{airflow}"
znode = {{ path = "{WISHES}/variables" }}
to = "variables"
interval = "10s"

[[sync]]
name = "{airflow}-made"
airflow = "{airflow}"
znode = {{ path = "{WISHES}/made" }}
to = "variables"
prefix = "made_"
value = "{{{{ value | int }}}} {template}"

[[sync]]
name = "{airflow}-connections"
airflow = "{airflow}"
znode = {{ path = "{WISHES}/connections" }}
to = "connections"
interval = "10s"
"#
        )
    };
    airflows.iter().map(one).collect()
}

/// What znodes want of Airflow, good and bad, each with a secret.
async fn make_wishes(server: &ZooKeeperServer, marks: &mut Marks) -> String {
    let client = server.client().await;
    for path in ["", "/variables", "/made", "/connections"] {
        create(&client, &format!("{WISHES}{path}"), b"").await;
    }
    let (plain, json) = (marks.secret("a variable"), marks.secret("a JSON variable"));
    let password = marks.secret("a connection's password");
    let (extra, uri) = (marks.secret("a connection's extra"), marks.secret("a connection's URI"));
    let wrong = marks.secret("a wrong connection");
    for (path, data) in [
        ("variables/api_key", plain.clone()),
        ("variables/limits", format!(r#"{{"token": "{json}"}}"#)),
        ("made/key", plain.clone()),
        ("connections/dwh", format!("postgres://etl:{uri}@db:5432/dwh?sslmode={extra}")),
        (
            "connections/api",
            json!({"conn_type": "http", "password": password, "extra": {"key": extra, "a\"b": extra}}).to_string(),
        ),
        ("connections/port", format!("http://me:{wrong}@host:{wrong}/")),
        ("connections/key", json!({"conn_type": "http", wrong.as_str(): wrong}).to_string()),
        ("connections/type", json!({"conn_type": [wrong], "port": wrong}).to_string()),
        ("connections/text", wrong.clone()),
        ("connections/broken", format!(r#"{{"conn_type": "{wrong}"#)),
    ] {
        create(&client, &format!("{WISHES}/{path}"), data.as_bytes()).await;
    }
    password
}

async fn get(member: &Member, token: &str, path: &str) -> Option<Value> {
    let request = reqwest::Client::new().get(format!("{}/api/v1/{path}", member.url())).bearer_auth(token);
    request.send().await.ok()?.error_for_status().ok()?.json().await.ok()
}

/// Waits until the API answers as `good` says.
async fn until(member: &mut Member, token: &str, path: &str, what: &str, good: impl Fn(&Value) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = get(member, token, path).await.unwrap_or_default();
        if good(&answer) {
            return;
        }
        let ended = member.ended();
        assert!(ended.is_none(), "flowkeeper ended: {ended:?}\n{}", member.logged());
        assert!(Instant::now() < end, "{what}: {answer:#}\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until each Airflow has a run that it took, whatever it said before, and each sync was compared.
async fn everything_was_tried(member: &mut Member, token: &str, airflows: &[&str]) {
    for airflow in airflows {
        until(member, token, &format!("runs?schedule={airflow}&limit=100"), "a run is taken", |runs| {
            let items = runs["items"].as_array().cloned().unwrap_or_default();
            items.iter().any(|run| !run["accepted_at"].is_null())
        })
        .await;
    }
    until(member, token, "sync", "all are compared", |syncs| {
        let items = syncs["items"].as_array().cloned().unwrap_or_default();
        items.len() >= 3 * airflows.len()
            && items.iter().all(|sync| sync["state"].is_string() && sync["state"] != "unknown")
    })
    .await;
}

/// A session that may read what a member keeps in its home ensemble.
async fn insider(connection: Connection) -> (Session, DropGuard) {
    let over = CancellationToken::new();
    let source = connect::zookeeper(connection, Arc::new(Environment::default()), "zookeeper".to_owned());
    let ensemble = Ensemble::start(None, source.expect("secrets are there"), Clock::system(), over.clone());
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(session) = ensemble.session() {
            return (session, over.drop_guard());
        }
        assert!(Instant::now() < end, "no session: {:?}", ensemble.status().borrow());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What people type at a member, whether it serves or not.
async fn everything_is_asked(search: &mut Search, member: &Member) {
    for arguments in [
        &["check"][..],
        &["-o", "json", "check"],
        &["-o", "github", "check"],
        &["-o", "json", "check", "--online"],
        &["schedules"],
        &["runs", "--limit", "1000"],
        &["-o", "json", "runs", "--limit", "1000"],
        &["-o", "csv", "runs"],
        &["why", "main"],
        &["stats"],
        &["audit"],
        &["members"],
        &["airflow"],
        &["-o", "json", "airflow"],
        &["locks"],
        &["health", "home"],
        &["sync", "diff"],
        &["-o", "json", "sync", "diff"],
        &["sync", "apply", "--dry-run"],
        &["-o", "json", "sync", "apply", "--repair"],
        &["config", "history"],
        &["-o", "json", "config", "history", "1"],
    ] {
        search.command(member, arguments).await;
    }
    search.command(member, &["backup", &member.path().join("copy.db").display().to_string()]).await;
}

/// How the Airflows of both stories are logged in to, and what takes its place by mistake.
const LOGIN: &str = "auth = { username = \"admin\", password = { env = \"AIRFLOW_PASSWORD\" } }";

/// Secrets where their places are wanted, and where nothing is.
fn misplaced(secret: &str) -> [String; 5] {
    [
        format!("auth = {{ username = \"admin\", pasword = \"{secret}\" }}"),
        format!("auth = {{ username = \"admin\", password = \"{secret} }}"),
        format!("auth = {{ token = \"{secret}\" }}"),
        format!("auth = {{ command = [\"\", \"{secret}\"] }}"),
        format!("headers = {{ \"X-Api-Key\" = [\"{secret}\"] }}"),
    ]
}

/// One member with files, SQLite, TLS and a digest, and every way to log in to an Airflow.
struct Alone {
    server: ZooKeeperServer,
    main: FakeAirflow,
    /// Airflows that repeat what they hear, and files that must stay.
    _careless: [FakeAirflow; 3],
    _kept: (tempfile::TempDir, Authority),
    member: Member,
    admin: String,
    /// An argument of a command, which that command's own command line shows.
    argument: String,
    /// The password that a znode holds.
    wished: String,
}

impl Alone {
    /// Those that can be logged in to, and those that cannot.
    const AIRFLOWS: [&str; 6] = ["main", "careless", "old", "token", "oauth", "command"];
    const CLOSED: [&str; 2] = ["locked", "shut"];

    /// The files that hold secrets.
    const FILES: [&str; 6] = ["header", "token", "client", "sasl", "digest", "flowkeeper.toml"];

    async fn prepare(marks: &mut Marks) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new();
        let (server, encrypted) = ZooKeeperServer::start_with_tls(&authority, directory.path(), "want").await;
        let wished = make_wishes(&server, marks).await;
        let certified = authority.certify("flowkeeper");
        let key = std::fs::read_to_string(&certified.key).expect("a key");
        marks.known("a TLS key", key.lines().nth(1).expect("a line of the key"));

        let (password, signature) = (marks.secret("Airflow's password"), marks.secret("a session's token"));
        let (token, client_secret) = (marks.secret("a token"), marks.secret("a client's secret"));
        let printed = marks.secret("a printed token");
        let mut world = World::default().with_dags(["load"]);
        (world.password, world.signature) = (password.clone(), signature.clone());
        let main = FakeAirflow::start(world).await;
        let three = careless(Version::Three, &password, &signature, &client_secret, &[&token, &printed]).await;
        let two = careless(Version::Two, &password, &signature, &client_secret, &[]).await;
        let locked = FakeAirflow::start(World::default()).await;
        locked.world().faults_at = [("token", Fault::Echo(401))].into();
        save(&directory.path().join("print-token.sh"), PRINT_TOKEN);
        save(&directory.path().join("printed-token"), &printed);

        let (plain, argument) = (marks.secret("a header"), marks.secret("an argument"));
        let zookeeper = format!(
            "[zookeeper]\nconnect = \"{encrypted}\"\nroot = \"{ROOT}\"\nsession_timeout = \"4s\"\n\
             auth = {{ credential = {{ file = \"digest\" }} }}\n\
             tls = {{ ca = \"{}\", cert = \"{}\", key = \"{}\" }}\n\
             [ensemble.other]\nconnect = \"{}\"\nsasl = {{ username = \"flow\", password = {{ file = \"sasl\" }} }}\n",
            authority.ca().display(),
            certified.cert.display(),
            certified.key.display(),
            server.connect(),
        );
        let command = format!(
            "[\"sh\", \"-c\", \"cd '{}' && . ./print-token.sh\", \"print-token\", \"--key={argument}\"]",
            directory.path().display()
        );
        let logins = [
            ("main", main.url(), LOGIN.to_owned()),
            ("careless", three.url(), LOGIN.to_owned()),
            ("old", two.url(), LOGIN.to_owned()),
            ("token", three.url(), "auth = { token = { file = \"token\" } }".to_owned()),
            ("oauth", three.url(), oauth(&three)),
            ("locked", locked.url(), LOGIN.to_owned()),
            ("shut", locked.url(), oauth(&locked)),
            ("command", three.url(), format!("auth = {{ command = {command} }}")),
        ];
        let airflow = |(name, url, login): &(&str, String, String)| {
            format!(
                "[airflow.{name}]\nurl = \"{url}\"\n{login}\ntimeout = \"2s\"\n\
                 headers = {{ \"X-Plain\" = \"{plain}\", \"X-Kept\" = {{ file = \"header\" }} }}\n"
            )
        };
        let airflows: String = logins.iter().map(airflow).collect();
        let airflows_with_work = [&Self::AIRFLOWS[..], &Self::CLOSED].concat();
        let work = work_for(&airflows_with_work, &marks.secret("a template"));
        let token_of_api = "[[server.token]]\nname = \"root\"\nvalue = { env = \"STORY_ADMIN\" }\nrole = \"admin\"\n";
        let mut member = Member::new(&format!("{token_of_api}{zookeeper}{airflows}{work}"));
        trace_everything(&member);
        for (name, secret) in [
            ("header", marks.secret("a header in a file")),
            ("token", token),
            ("client", client_secret),
            ("sasl", marks.secret("a password of SASL")),
            ("digest", format!("flow:{}", marks.secret("ZooKeeper's digest"))),
        ] {
            save(&member.path().join(name), &secret);
        }
        let admin = marks.secret("a token of the API");
        member.set_variable("AIRFLOW_PASSWORD", &password);
        member.set_variable("STORY_ADMIN", &admin);
        Self {
            server,
            main,
            _careless: [three, two, locked],
            _kept: (directory, authority),
            member,
            admin,
            argument,
            wished,
        }
    }

    /// Airflow refuses what is synced, and repeats it.
    async fn airflow_refuses(&mut self, search: &mut Search) {
        let client = self.server.client().await;
        for (number, status) in [422, 400, 500, 302].into_iter().enumerate() {
            let faults = ["PATCH connections", "PATCH variables"].map(|place| (place, Fault::Echo(status)));
            self.main.world().faults_at = faults.into();
            let wish = json!({"conn_type": "http", "password": self.wished, "login": number.to_string()}).to_string();
            set(&client, &format!("{WISHES}/connections/api"), wish.as_bytes()).await;
            set(&client, &format!("{WISHES}/variables/api_key"), wish.as_bytes()).await;
            for sync in ["main-connections", "main-variables"] {
                let path = format!("sync/{sync}/apply");
                search.send(&self.member, "POST", &path, &self.admin, "{}".to_owned()).await;
            }
        }
        let told = |syncs: &Value| syncs.to_string().contains("redirected");
        until(&mut self.member, &self.admin, "sync", "the refusal is told", told).await;
    }

    /// The file is saved with a secret in a wrong place.
    async fn the_file_is_wrong(&mut self, search: &mut Search, secret: &str) {
        let file = self.member.path().join("flowkeeper.toml");
        let good = std::fs::read_to_string(&file).expect("the configuration");
        for wrong in misplaced(secret) {
            save(&file, &good.replacen(LOGIN, &wrong, 1));
            let refused = |config: &Value| !config["refused"].is_null();
            until(&mut self.member, &self.admin, "config", "it is refused", refused).await;
            search.answers(&self.member, &self.admin).await;
            for output in ["table", "json", "github"] {
                search.command(&self.member, &["-o", output, "check"]).await;
            }
            search.send(&self.member, "POST", "config/reload", &self.admin, "{}".to_owned()).await;
            save(&file, &good);
            until(&mut self.member, &self.admin, "config", "it is good again", |config| !refused(config)).await;
        }
    }

    /// What is left behind.
    async fn end(mut self, search: &mut Search) {
        assert_eq!(self.member.stop().await, Some(0), "{}", self.member.logged());
        everything_is_asked(search, &self.member).await;
        let ledger = format!("sqlite://{}", self.member.path().join("ledger.db").display());
        assert!(search.tables(&ledger).await > 20);
        let credential = SecretRef::File(self.member.path().join("digest"));
        let connection = Connection {
            connect: self.server.connect(),
            session_timeout: SESSION_TIMEOUT,
            auth: Some(ZooKeeperAuth { scheme: "digest".into(), credential }),
            tls: None,
            sasl: None,
        };
        let (session, _over) = insider(connection).await;
        assert!(search.znodes(&session, ROOT).await > 5);
        search.files(self.member.path(), &Self::FILES);
    }
}

fn oauth(airflow: &FakeAirflow) -> String {
    format!(
        "auth = {{ oauth2 = {{ token_url = \"{}/oauth/token\", client_id = \"client\", client_secret = {{ file = \"client\" }} }} }}",
        airflow.url()
    )
}

/// Has a member log everything, what libraries say too.
fn trace_everything(member: &Member) {
    let file = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    assert!(text.contains("\"debug\""), "{text}");
    save(&file, &text.replace("\"debug\"", "\"trace\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_gets_out_of_a_member_with_files_and_sqlite() {
    let began = Instant::now();
    let mut marks = Marks::default();
    let mut alone = Alone::prepare(&mut marks).await;
    let (written, stranger) = (marks.secret("a misplaced secret"), marks.secret("a stranger's token"));
    let mut search = Search::new(marks);
    alone.member.start();
    everything_was_tried(&mut alone.member, &alone.admin, &Alone::AIRFLOWS).await;
    for refusal in ["/auth/token answered 401", "/oauth/token answered 401"] {
        let end = Instant::now() + PATIENCE;
        while !alone.member.logged().contains(refusal) {
            assert!(Instant::now() < end, "no {refusal}\n{}", alone.member.logged());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    search.events(&alone.member, &alone.admin, 3).await;
    alone.airflow_refuses(&mut search).await;
    alone.the_file_is_wrong(&mut search, &written).await;

    // Strangers, and people who put the token somewhere else.
    search.answers(&alone.member, &stranger).await;
    search.answers(&alone.member, &alone.admin).await;
    for path in ["runs?token=", "runs?schedule=", "sync?access_token="] {
        let request = reqwest::get(format!("{}/api/v1/{path}{stranger}", alone.member.url()));
        assert_eq!(request.await.expect("an answer").status(), 401);
    }
    everything_is_asked(&mut search, &alone.member).await;
    search.processes(&alone.argument);
    alone.end(&mut search).await;
    println!("{} bytes looked at in {:?}", search.seen, began.elapsed());
    search.found_nothing();
}

/// Two members with definitions in ZooKeeper, PostgreSQL, SASL and tokens of the API.
struct Together {
    postgres: &'static PostgresServer,
    database: String,
    three: FakeAirflow,
    /// What must stay.
    _kept: (ZooKeeperServer, FakeAirflow, tempfile::TempDir),
    members: Vec<Member>,
    admin: String,
    reader: String,
    /// A set without a fault, and the file that is pushed.
    good: String,
    file: std::path::PathBuf,
    session: Session,
    _over: DropGuard,
}

impl Together {
    /// The files that hold secrets.
    const FILES: [&str; 4] = ["admin", "sasl", "token", "flowkeeper.toml"];

    async fn start(marks: &mut Marks) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let sasl = marks.secret("a password of SASL");
        let server = ZooKeeperServer::start_with_sasl("flow", &sasl, directory.path(), "").await;
        make_wishes(&server, marks).await;
        let postgres = PostgresServer::shared().await;
        let database = postgres.create_database().await.rsplit('/').next().expect("a name").to_owned();
        postgres.execute("postgres", &format!("ALTER DATABASE {database} OWNER TO {GUARDED}")).await;
        marks.known("the store's password", PASSWORD);

        let (password, signature) = (marks.secret("Airflow's password"), marks.secret("a session's token"));
        let token = marks.secret("a token");
        let mut world = World::default().with_dags(["load"]);
        (world.password, world.signature) = (password.clone(), signature.clone());
        let main = FakeAirflow::start(world).await;
        let three = careless(Version::Three, &password, &signature, "none", &[&token]).await;
        let (admin, reader) = (marks.secret("an administrator's token"), marks.secret("a reader's token"));

        // One has the password of the store in a variable, the other in the URL.
        let place = format!("127.0.0.1:{}/{database}", postgres.port());
        let in_url = PASSWORD.replace('%', "%25").replace('@', "%40").replace(':', "%3A").replace('/', "%2F");
        let mut members = Vec::new();
        for (store, more) in [
            (format!("postgres://{GUARDED}@{place}"), "password = { env = \"STORY_STORE\" }\n"),
            (format!("postgres://{GUARDED}:{in_url}@{place}"), ""),
        ] {
            let mut member = Self::member(&store, more, &server);
            for (name, secret) in [("admin", &admin), ("sasl", &sasl), ("token", &token)] {
                save(&member.path().join(name), secret);
            }
            for (name, value) in [("STORY_STORE", PASSWORD), ("STORY_READER", &reader), ("AIRFLOW_PASSWORD", &password)]
            {
                member.set_variable(name, value);
            }
            member.start();
            until(&mut member, &admin, "members", "it serves", |members| members["items"].is_array()).await;
            members.push(member);
        }
        until(&mut members[1], &admin, "members", "there are two", |members| {
            let items = members["items"].as_array().cloned().unwrap_or_default();
            items.len() == 2 && items.iter().any(|member| member["role"] == "leader")
        })
        .await;
        let good = format!(
            "[airflow.main]\nurl = \"{}\"\n{LOGIN}\n[airflow.careless]\nurl = \"{}\"\n\
             auth = {{ token = {{ file = \"token\" }} }}\ntimeout = \"2s\"\n{}",
            main.url(),
            three.url(),
            work_for(&["main", "careless"], "plain"),
        );
        let password = SecretRef::File(members[0].path().join("sasl"));
        let (session, over) = insider(Connection {
            connect: server.connect(),
            session_timeout: SESSION_TIMEOUT,
            auth: None,
            tls: None,
            sasl: Some(Sasl { mechanism: SaslMechanism::DigestMd5, username: "flow".into(), password }),
        })
        .await;
        let file = directory.path().join("d.toml");
        Self {
            postgres,
            database,
            three,
            _kept: (server, main, directory),
            members,
            admin,
            reader,
            good,
            file,
            session,
            _over: over,
        }
    }

    fn member(store: &str, more: &str, server: &ZooKeeperServer) -> Member {
        let member = Member::sharing(
            store,
            &format!(
                "{more}[[server.token]]\nname = \"root\"\nvalue = {{ file = \"admin\" }}\nrole = \"admin\"\n\
                 [[server.token]]\nname = \"reader\"\nvalue = {{ env = \"STORY_READER\" }}\n\
                 [zookeeper]\nconnect = \"{}\"\nroot = \"{ROOT}\"\nsession_timeout = \"4s\"\n\
                 sasl = {{ username = \"flow\", password = {{ file = \"sasl\" }} }}\n",
                server.connect()
            ),
        );
        trace_everything(&member);
        let file = member.path().join("flowkeeper.toml");
        let text = std::fs::read_to_string(&file).expect("the configuration");
        save(&file, &text.replacen("[server]\n", "[server]\ndefinitions = \"zookeeper\"\n", 1));
        member
    }

    /// Waits until no member refuses the newest set, or all do.
    async fn all_refuse(&mut self, refuse: bool) {
        for member in &mut self.members {
            let as_wanted = |config: &Value| config["in_force"].is_object() && config["refused"].is_null() != refuse;
            until(member, &self.admin, "config", "all refuse, or none", as_wanted).await;
        }
    }

    /// The one that started last stands by, and passes on what it is told.
    async fn a_standby_is_told(&mut self, search: &mut Search) {
        save(&self.file, &self.good);
        let path = self.file.display().to_string();
        search.command(&self.members[1], &["config", "push", &path, "-m", "the first"]).await;
        everything_was_tried(&mut self.members[0], &self.admin, &["main", "careless"]).await;
        for (method, place, body) in [
            ("POST", "schedules/main/pause", r#"{"reason": "to see"}"#),
            ("POST", "schedules/main/resume", "{}"),
            ("POST", "schedules/careless/trigger", r#"{"key": "by-hand", "conf": {"a": 1}}"#),
            ("POST", "sync/careless-connections/apply", r#"{"dry_run": true}"#),
            ("POST", "config/reload", "{}"),
        ] {
            let status = search.send(&self.members[1], method, place, &self.admin, body.to_owned()).await;
            assert!((200..300).contains(&status), "{place}: {status}\n{}", self.members[1].logged());
        }
    }

    /// Sets with a secret in a wrong place: pushed with the command, past it, and written into the znode.
    async fn wrong_sets_come(&mut self, search: &mut Search, secret: &str) {
        let path = self.file.display().to_string();
        for wrong in misplaced(secret) {
            let wrong = self.good.replacen(LOGIN, &wrong, 1);
            save(&self.file, &wrong);
            search.command(&self.members[1], &["config", "push", &path, "--force"]).await;
            let body = json!({"documents": [{"name": "d.toml", "text": wrong}], "force": true}).to_string();
            for member in &self.members {
                let status = search.send(member, "PUT", "config/definitions", &self.admin, body.clone()).await;
                assert!((400..500).contains(&status), "{status}: {}", member.logged());
            }
            let znode = format!("{ROOT}/config");
            self.session.set_data(&znode, wrong.as_bytes(), None).await.expect("it is written");
            self.all_refuse(true).await;
            for member in &self.members {
                search.answers(member, &self.reader).await;
            }
            search.znodes(&self.session, ROOT).await;
        }
    }

    /// What was in force before comes back.
    async fn it_is_good_again(&mut self, search: &mut Search) {
        save(&self.file, &self.good);
        let path = self.file.display().to_string();
        let pulled = self.file.with_extension("pulled").display().to_string();
        search.command(&self.members[1], &["config", "push", &path, "--force"]).await;
        search.command(&self.members[0], &["config", "rollback", "1", "--force"]).await;
        search.command(&self.members[0], &["config", "pull", &pulled, "--force"]).await;
        self.all_refuse(false).await;
    }

    /// Another leads, and what its predecessor had begun goes on.
    async fn the_leader_dies(&mut self, search: &mut Search) {
        let before = self.three.world().count("trigger");
        self.members[0].kill();
        let end = Instant::now() + PATIENCE;
        while self.three.world().count("trigger") < before + 3 {
            assert!(Instant::now() < end, "nobody submits\n{}", self.members[1].logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        search.answers(&self.members[1], &self.admin).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_gets_out_of_members_with_pushed_definitions_and_postgresql() {
    let began = Instant::now();
    let mut marks = Marks::default();
    let mut together = Together::start(&mut marks).await;
    let (written, stranger) = (marks.secret("a misplaced secret"), marks.secret("a stranger's token"));
    let mut search = Search::new(marks);
    together.a_standby_is_told(&mut search).await;
    together.wrong_sets_come(&mut search, &written).await;
    together.it_is_good_again(&mut search).await;
    for member in &together.members {
        everything_is_asked(&mut search, member).await;
        search.answers(member, &stranger).await;
        search.answers(member, &together.admin).await;
    }
    search.processes(&stranger);
    together.the_leader_dies(&mut search).await;
    assert!(search.znodes(&together.session, ROOT).await > 5);
    assert_eq!(together.members[1].stop().await, Some(0), "{}", together.members[1].logged());
    assert!(search.tables(&together.postgres.url(&together.database)).await > 20);
    for member in &together.members {
        search.files(member.path(), &Together::FILES);
    }
    println!("{} bytes looked at in {:?}", search.seen, began.elapsed());
    search.found_nothing();
}
