//! No secret gets out: members with secrets of every kind, whose log tells everything (`trace`, libraries too),
//! among Airflows that repeat whatever they are told, people who write secrets in wrong places, and strangers.
//! Afterwards no secret is in any log, output, answer, table, znode, file or command line.

mod marks;
mod places;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::reload::save;
use crate::support::certificates::Authority;
use crate::support::fake_airflow::{FakeAirflow, Fault, Version, World};
use crate::support::postgres::{GUARDED, PASSWORD, PostgresServer};
use crate::support::process::Member;
use crate::support::zookeeper::{SESSION_TIMEOUT, ZooKeeperServer, create, set};
use flowkeeper::app::connect;
use flowkeeper::clock::Clock;
use flowkeeper::config::model::{Connection, Sasl, SaslMechanism, ZooKeeperAuth};
use flowkeeper::config::{Environment, SecretRef};
use flowkeeper::zookeeper::{Ensemble, Session};
use marks::Marks;
use places::Search;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How long anything may take that a story waits for.
const PATIENCE: Duration = Duration::from_mins(2);

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

/// An Airflow that repeats half of what it is told, and whoever logs in with these.
async fn careless(version: Version, password: &str, signature: &str, client_secret: &str, tokens: &[&str]) -> FakeAirflow {
    let mut world = World::new(version).with_dags(["load"]);
    world.password = password.to_owned();
    world.signature = signature.to_owned();
    world.client_secret = client_secret.to_owned();
    world.tokens.extend(tokens.iter().map(|token| (*token).to_owned()));
    world.chaos = Some((2, ECHOES.to_vec()));
    world.faults_everywhere = true;
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
        items.len() == 3 * airflows.len() && items.iter().all(|sync| !sync["state"].is_null() && sync["state"] != "waiting")
    })
    .await;
}

/// A session that may read what a member keeps in its home ensemble.
async fn insider(connection: Connection) -> (Session, tokio_util::sync::DropGuard) {
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
        &["check", "--online"],
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
        &["health"],
        &["-o", "json", "health"],
        &["sync", "diff"],
        &["-o", "json", "sync", "diff"],
        &["sync", "apply", "--dry-run"],
        &["-o", "json", "sync", "apply", "--repair"],
        &["config", "history"],
        &["-o", "json", "config", "history", "1"],
        &["backup", "copy.db"],
    ] {
        search.command(member, arguments).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_gets_out_of_a_member_with_files_and_sqlite() {
    let began = Instant::now();
    let mut marks = Marks::default();
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let (server, encrypted) = ZooKeeperServer::start_with_tls(&authority, directory.path(), "want").await;
    let wished = make_wishes(&server, &mut marks).await;
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

    let argument = marks.secret("an argument");
    let (plain, kept) = (marks.secret("a header"), marks.secret("a header in a file"));
    let template = marks.secret("a template");
    let headers = format!("headers = {{ \"X-Plain\" = \"{plain}\", \"X-Kept\" = {{ file = \"header\" }} }}\ntimeout = \"2s\"");
    let login = "auth = { username = \"admin\", password = { env = \"STORY_PASSWORD\" } }";
    let airflows = ["main", "careless", "old", "token", "oauth", "command"];
    let rest = format!(
        r#"
[[server.token]]
name = "root"
value = {{ env = "STORY_ADMIN" }}
role = "admin"

[zookeeper]
connect = "{encrypted}"
root = "{ROOT}"
session_timeout = "4s"
auth = {{ credential = {{ file = "digest" }} }}
tls = {{ ca = "{ca}", cert = "{cert}", key = "{key}" }}

[airflow.main]
url = "{main}"
{login}
{headers}

[airflow.careless]
url = "{three}"
{login}
{headers}

[airflow.old]
url = "{two}"
{login}
{headers}

[airflow.token]
url = "{three}"
auth = {{ token = {{ file = "token" }} }}
{headers}

[airflow.oauth]
url = "{three}"
auth = {{ oauth2 = {{ token_url = "{three}/oauth/token", client_id = "client", client_secret = {{ file = "client" }} }} }}
{headers}

[airflow.command]
url = "{three}"
auth = {{ command = ["sh", "-c", "cd '{scripts}' && . ./print-token.sh", "print-token", "--key={argument}"] }}
{headers}

[ensemble.other]
connect = "{server}"
sasl = {{ username = "flow", password = {{ file = "sasl" }} }}
{work}"#,
        ca = authority.ca().display(),
        cert = certified.cert.display(),
        key = certified.key.display(),
        main = main.url(),
        three = three.url(),
        two = two.url(),
        scripts = directory.path().display(),
        server = server.connect(),
        work = work_for(&airflows, &template),
    );
    save(&directory.path().join("print-token.sh"), PRINT_TOKEN);
    save(&directory.path().join("printed-token"), &printed);
    let mut member = Member::new(&rest);
    let file = member.path().join("flowkeeper.toml");
    let good = std::fs::read_to_string(&file).expect("the configuration").replace("\"debug\"", "\"trace\"");
    save(&file, &good);
    let digest = marks.secret("ZooKeeper's digest");
    let secrets = [
        ("header", kept),
        ("token", token),
        ("client", client_secret),
        ("sasl", marks.secret("a password of SASL")),
        ("digest", format!("flow:{digest}")),
    ];
    for (name, secret) in &secrets {
        save(&member.path().join(name), secret);
    }
    let admin = marks.secret("a token of the API");
    member.set_variable("STORY_PASSWORD", &password);
    member.set_variable("STORY_ADMIN", &admin);

    // Where people write them by mistake.
    let misplaced = marks.secret("a misplaced secret");
    let stranger = marks.secret("a stranger's token");
    let mut search = Search::new(marks);
    member.start();
    everything_was_tried(&mut member, &admin, &airflows).await;
    search.events(&member, &admin, 3).await;

    // Airflow refuses what was synced, and repeats it.
    for (number, status) in [422, 400, 500, 302].into_iter().enumerate() {
        main.world().faults_at = ["PATCH connections", "PATCH variables"].map(|place| (place, Fault::Echo(status))).into();
        let connection = json!({"conn_type": "http", "password": wished, "login": number.to_string()}).to_string();
        let client = server.client().await;
        set(&client, &format!("{WISHES}/connections/api"), connection.as_bytes()).await;
        let body = json!({"dry_run": false}).to_string();
        for sync in ["main-connections", "main-variables"] {
            search.send(&member, "POST", &format!("sync/{sync}/apply"), &admin, body.clone()).await;
        }
    }
    until(&mut member, &admin, "sync", "the refusal is told", |syncs| syncs.to_string().contains("302")).await;

    // The file is saved with a secret in a wrong place.
    for wrong in [
        format!("auth = {{ username = \"admin\", pasword = \"{misplaced}\" }}"),
        format!("auth = {{ username = \"admin\", password = \"{misplaced} }}"),
        format!("auth = {{ token = \"{misplaced}\" }}"),
        format!("auth = {{ command = [\"\", \"{misplaced}\"] }}"),
    ] {
        save(&file, &good.replacen(login, &wrong, 1));
        until(&mut member, &admin, "config", "it is refused", |config| !config["refused"].is_null()).await;
        search.answers(&member, &admin).await;
        for output in ["table", "json", "github"] {
            search.command(&member, &["-o", output, "check"]).await;
        }
        search.send(&member, "POST", "config/reload", &admin, "{}".to_owned()).await;
        save(&file, &good);
        until(&mut member, &admin, "config", "it is good again", |config| config["refused"].is_null()).await;
    }

    // Strangers, and people who put the token somewhere else.
    search.answers(&member, &stranger).await;
    search.answers(&member, &admin).await;
    for path in ["runs?token=", "runs?schedule=", "schedules/", "sync?access_token="] {
        let request = reqwest::get(format!("{}/api/v1/{path}{stranger}", member.url()));
        assert_eq!(request.await.expect("an answer").status(), 401);
    }
    everything_is_asked(&mut search, &member).await;
    search.processes(&argument);

    assert_eq!(member.stop().await, Some(0), "{}", member.logged());
    everything_is_asked(&mut search, &member).await;
    let ledger = format!("sqlite://{}", member.path().join("ledger.db").display());
    assert!(search.tables(&ledger).await > 20);
    let connection = Connection {
        connect: server.connect(),
        session_timeout: SESSION_TIMEOUT,
        auth: Some(ZooKeeperAuth { scheme: "digest".into(), credential: SecretRef::File(member.path().join("digest")) }),
        tls: None,
        sasl: None,
    };
    let (session, _over) = insider(connection).await;
    assert!(search.znodes(&session, ROOT).await > 5);
    let given: Vec<&str> = secrets.iter().map(|(name, _)| *name).chain(["flowkeeper.toml"]).collect();
    let logged = member.logged();
    for library in ["hyper", "sqlx", "rustls", "zookeeper"] {
        println!("{library}: {}", logged.matches(library).count());
    }
    search.files(member.path(), &given);
    println!("{} bytes looked at in {:?}", search.seen, began.elapsed());
    search.is_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_gets_out_of_members_with_pushed_definitions_and_postgresql() {
    let began = Instant::now();
    let mut marks = Marks::default();
    let directory = tempfile::tempdir().expect("a directory");
    let sasl = marks.secret("a password of SASL");
    let server = ZooKeeperServer::start_with_sasl("flow", &sasl, directory.path(), "").await;
    make_wishes(&server, &mut marks).await;
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
    let misplaced = marks.secret("a misplaced secret");
    let stranger = marks.secret("a stranger's token");

    // One has the password of the store in a variable, the other in the URL.
    let place = format!("127.0.0.1:{}/{database}", postgres.port());
    let in_url = PASSWORD.replace('%', "%25").replace('@', "%40").replace(':', "%3A").replace('/', "%2F");
    let mut members = Vec::new();
    for (store, password_of_store) in [
        (format!("postgres://{GUARDED}@{place}"), "password = { env = \"STORY_STORE\" }\n"),
        (format!("postgres://{GUARDED}:{in_url}@{place}"), ""),
    ] {
        let rest = format!(
            r#"{password_of_store}
[[server.token]]
name = "root"
value = {{ file = "admin" }}
role = "admin"

[[server.token]]
name = "reader"
value = {{ env = "STORY_READER" }}

[zookeeper]
connect = "{}"
root = "{ROOT}"
session_timeout = "4s"
sasl = {{ username = "flow", password = {{ file = "sasl" }} }}
"#,
            server.connect()
        );
        let mut member = Member::sharing(&store, &rest);
        let file = member.path().join("flowkeeper.toml");
        let text = std::fs::read_to_string(&file).expect("the configuration").replace("\"debug\"", "\"trace\"");
        save(&file, &text.replacen("[server]\n", "[server]\ndefinitions = \"zookeeper\"\n", 1));
        for (name, secret) in [("admin", &admin), ("sasl", &sasl), ("token", &token)] {
            save(&member.path().join(name), secret);
        }
        for (name, value) in [("STORY_STORE", PASSWORD), ("STORY_READER", &reader), ("AIRFLOW_PASSWORD", &password)] {
            member.set_variable(name, value);
        }
        member.start();
        until(&mut member, &admin, "members", "it serves", |members| members["items"].is_array()).await;
        members.push(member);
    }
    let mut search = Search::new(marks);
    until(&mut members[1], &admin, "members", "there are two", |members| {
        let items = members["items"].as_array().cloned().unwrap_or_default();
        items.len() == 2 && items.iter().any(|member| member["role"] == "leader")
    })
    .await;

    let login = "auth = { username = \"admin\", password = { env = \"AIRFLOW_PASSWORD\" } }";
    let good = format!(
        "[airflow.main]\nurl = \"{}\"\n{login}\n[airflow.careless]\nurl = \"{}\"\nauth = {{ token = {{ file = \"token\" }} }}\n\
         timeout = \"2s\"\n{}",
        main.url(),
        three.url(),
        work_for(&["main", "careless"], "plain"),
    );
    let (file, pulled) = (directory.path().join("d.toml"), directory.path().join("pulled.toml"));
    let (path, pulled) = (file.display().to_string(), pulled.display().to_string());
    save(&file, &good);
    // The one that started last stands by, and passes on what it is told.
    search.command(&members[1], &["config", "push", &path, "-m", "the first"]).await;
    everything_was_tried(&mut members[0], &admin, &["main", "careless"]).await;
    for (method, place, body) in [
        ("POST", "schedules/main/pause", r#"{"reason": "to see"}"#),
        ("POST", "schedules/main/resume", "{}"),
        ("POST", "schedules/careless/trigger", r#"{"conf": {"a": 1}}"#),
        ("POST", "sync/careless-connections/apply", r#"{"dry_run": true}"#),
        ("POST", "config/reload", "{}"),
    ] {
        let status = search.send(&members[1], method, place, &admin, body.to_owned()).await;
        assert_eq!(status, 200, "{place}\n{}", members[1].logged());
    }

    // Sets with a secret in a wrong place: pushed with the command, past it, and written into the znode.
    let connection = Connection {
        connect: server.connect(),
        session_timeout: SESSION_TIMEOUT,
        auth: None,
        tls: None,
        sasl: Some(Sasl {
            mechanism: SaslMechanism::DigestMd5,
            username: "flow".into(),
            password: SecretRef::File(members[0].path().join("sasl")),
        }),
    };
    let (session, _over) = insider(connection).await;
    for wrong in [
        format!("auth = {{ username = \"admin\", pasword = \"{misplaced}\" }}"),
        format!("auth = {{ token = \"{misplaced} }}"),
        format!("headers = {{ \"X-Api-Key\" = \"{misplaced}\" }}"),
        format!("auth = {{ command = [\"sh\", \"{misplaced}\"] }}"),
    ] {
        let wrong = good.replacen(login, &wrong, 1);
        save(&file, &wrong);
        for arguments in [&["config", "push", &path, "--force"][..], &["-o", "json", "config", "diff", &path]] {
            search.command(&members[1], arguments).await;
        }
        let body = json!({"documents": [{"name": "d.toml", "text": wrong}], "force": true}).to_string();
        for member in &members {
            let status = search.send(member, "PUT", "config/definitions", &admin, body.clone()).await;
            assert!((400..500).contains(&status), "{status}: {}", member.logged());
        }
        session.set_data(&format!("{ROOT}/config"), wrong.as_bytes(), None).await.expect("it is written");
        for member in &mut members {
            until(member, &admin, "config", "it is refused", |config| !config["refused"].is_null()).await;
        }
        for member in &members {
            search.answers(member, &reader).await;
        }
        search.znodes(&session, ROOT).await;
    }
    save(&file, &good.replace("@hourly", "@daily"));
    search.command(&members[1], &["config", "push", &path, "--force"]).await;
    search.command(&members[0], &["config", "rollback", "1", "--force"]).await;
    search.command(&members[0], &["config", "pull", &pulled, "--force"]).await;
    for member in &mut members {
        until(member, &admin, "config", "it is good again", |config| config["refused"].is_null()).await;
    }
    for member in &members {
        everything_is_asked(&mut search, member).await;
        search.answers(member, &stranger).await;
        search.answers(member, &admin).await;
    }
    search.processes(&stranger);

    // Another leads, and what its predecessor had begun goes on.
    let logins = three.world().count("trigger");
    members[0].kill();
    let end = Instant::now() + PATIENCE;
    while three.world().count("trigger") < logins + 3 {
        assert!(Instant::now() < end, "nobody submits\n{}", members[1].logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    search.answers(&members[1], &admin).await;
    assert!(search.znodes(&session, ROOT).await > 5);
    assert_eq!(members[1].stop().await, Some(0), "{}", members[1].logged());
    assert!(search.tables(&postgres.url(&database)).await > 20);
    for member in &members {
        search.files(member.path(), &["admin", "sasl", "token", "flowkeeper.toml"]);
    }
    println!("{} bytes looked at in {:?}", search.seen, began.elapsed());
    search.is_clean();
}
