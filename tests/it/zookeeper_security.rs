//! Ensembles that ask who is there: digest, SASL and TLS, each with a real server so configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flowkeeper::app::connect;
use flowkeeper::clock::Clock;
use flowkeeper::config::model::{Connection, Sasl, SaslMechanism, TlsIdentity, ZooKeeperAuth, ZooKeeperTls};
use flowkeeper::config::{Environment, SecretRef};
use flowkeeper::zookeeper::{Ensemble, Lifetime, Session, SessionStatus, SettingsSource, Standing, ZooKeeperError};
use tokio_util::sync::CancellationToken;

use crate::support::certificates::{Authority, Certified};
use crate::support::participant::{Participant, join_as};
use crate::support::process::Member;
use crate::support::proxy::Proxy;
use crate::support::world::{PATIENCE, wait_for};
use crate::support::zookeeper::{SESSION_TIMEOUT, ZooKeeperServer, create};

const USER: &str = "flow";
const PASSWORD: &str = "correct-horse-battery";
const WRONG_PASSWORD: &str = "hunter2-and-then-some";

/// A server, and what a member needs to take part.
struct Guarded {
    server: ZooKeeperServer,
    /// Where to connect with the credentials.
    address: String,
    /// Files with secrets and certificates.
    directory: tempfile::TempDir,
    authority: Option<Authority>,
}

impl Guarded {
    /// A server that takes part in nothing special; digest needs no more.
    async fn plain() -> Self {
        let server = ZooKeeperServer::start().await;
        let directory = tempfile::tempdir().expect("a directory for secrets");
        Self { address: server.connect(), server, directory, authority: None }
    }

    /// A server that knows [`USER`] by SASL. `settings` say whether it demands that.
    async fn sasl(settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for secrets");
        let server = ZooKeeperServer::start_with_sasl(USER, PASSWORD, directory.path(), settings).await;
        Self { address: server.connect(), server, directory, authority: None }
    }

    /// A server with TLS; `client_auth` is `need`, `want` or `none`.
    async fn tls(client_auth: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory for secrets");
        let authority = Authority::new();
        let (server, address) = ZooKeeperServer::start_with_tls(&authority, directory.path(), client_auth).await;
        Self { server, address, directory, authority: Some(authority) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a secret, for the first time or anew.
    fn secret(&self, text: &str) -> SecretRef {
        let path = self.file("secret");
        std::fs::write(&path, format!("{text}\n")).expect("write the secret");
        SecretRef::File(path)
    }

    fn without_credentials(&self) -> Connection {
        Connection {
            connect: self.address.clone(),
            session_timeout: SESSION_TIMEOUT,
            auth: None,
            tls: None,
            sasl: None,
        }
    }

    fn with_digest(&self, password: &str) -> Connection {
        let credential = self.secret(&format!("{USER}:{password}"));
        Connection { auth: Some(ZooKeeperAuth { scheme: "digest".into(), credential }), ..self.without_credentials() }
    }

    fn with_sasl(&self, password: &str) -> Connection {
        let password = self.secret(password);
        let sasl = Sasl { mechanism: SaslMechanism::DigestMd5, username: USER.into(), password };
        Connection { sasl: Some(sasl), ..self.without_credentials() }
    }

    /// Trusts the server's authority, with a certificate of its own or without.
    fn with_tls(&self, certificate: Option<&str>) -> Connection {
        let authority = self.authority.as_ref().expect("a server with TLS");
        let identity = certificate.map(|name| {
            let Certified { cert, key } = authority.certify(name);
            TlsIdentity { cert, key }
        });
        Connection { tls: Some(ZooKeeperTls { ca: authority.ca(), identity }), ..self.without_credentials() }
    }
}

fn source(connection: Connection) -> SettingsSource {
    connect::zookeeper(connection, Arc::new(Environment::default()), "zookeeper".to_owned()).expect("secrets are there")
}

/// A watching session, and the token that ends it when it is dropped.
struct Watcher {
    ensemble: Ensemble,
    _over: tokio_util::sync::DropGuard,
}

impl Watcher {
    fn start(connection: Connection) -> Self {
        let over = CancellationToken::new();
        let ensemble = Ensemble::start(None, source(connection), Clock::system(), over.clone());
        Self { ensemble, _over: over.drop_guard() }
    }

    async fn until(&self, what: impl Fn(&SessionStatus) -> bool) -> SessionStatus {
        let mut status = self.ensemble.status();
        let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| what(status))).await;
        reached.unwrap_or_else(|_| panic!("stays {:?}", self.ensemble.status().borrow())).expect("it lives").clone()
    }

    async fn connected(&self) -> Session {
        self.until(|status| matches!(status, SessionStatus::Connected { .. })).await;
        self.ensemble.session().expect("a session")
    }

    /// Waits until the attempts have an outcome that is not a session, and tells it.
    async fn fails(&self) -> String {
        let failed = |status: &SessionStatus| !matches!(status, SessionStatus::Connecting);
        match self.until(failed).await {
            SessionStatus::Refused { reason } | SessionStatus::Disconnected { reason, .. } => reason,
            status => panic!("{status:?}"),
        }
    }
}

fn member(connection: Connection) -> Participant {
    let participant = join_as("one:1", source(connection), "/flowkeeper");
    participant.membership.stand(true);
    participant
}

async fn refused(member: &Participant) -> String {
    match member.until(|standing| matches!(standing, Standing::Refused { .. })).await {
        Standing::Refused { reason } => reason,
        _ => unreachable!("it was waited for"),
    }
}

/// A member takes part, a watching session reads and writes, and no session of `strangers` can touch
/// what they made. A cut of the network costs the member nothing.
async fn is_kept_for_its_own(guarded: &Guarded, ours: Connection, strangers: Vec<Connection>) {
    let proxy = Proxy::start_plain(&ours.connect).await;
    let one = member(Connection { connect: proxy.connect(), ..ours.clone() });
    one.first().await;
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(200)).await;
    one.is_confirmed_first().await;

    let watcher = Watcher::start(ours);
    let session = watcher.connected().await;
    session.make_path("/flowkeeper/locks").await.expect("our own may");
    let (places, _) = session.get_children("/flowkeeper/leader").await.expect("our own may").expect("a queue");
    let place = format!("/flowkeeper/leader/{}", places.first().expect("a place"));
    let card = format!("/flowkeeper/members/{}", one.id);
    assert_eq!(session.set_data("/flowkeeper/locks", b"x", None).await, Ok(Some(1)));

    for stranger in strangers {
        let what = format!("{stranger:?}");
        let watcher = Watcher::start(stranger);
        let session = watcher.connected().await;
        for path in ["/flowkeeper", "/flowkeeper/leader", "/flowkeeper/members"] {
            assert_eq!(session.get_children(path).await, Err(ZooKeeperError::NoPermission), "{path} {what}");
            let made = session.create(&format!("{path}/stranger"), b"", Lifetime::Ephemeral).await;
            assert_eq!(made, Err(ZooKeeperError::NoPermission), "{path} {what}");
        }
        for path in [&place, &card, &"/flowkeeper/locks".to_owned()] {
            assert_eq!(session.get_data(path).await, Err(ZooKeeperError::NoPermission), "{path} {what}");
            assert_eq!(session.set_data(path, b"", None).await, Err(ZooKeeperError::NoPermission), "{path} {what}");
            assert_eq!(session.delete(path, -1).await, Err(ZooKeeperError::NoPermission), "{path} {what}");
        }
    }
    one.first().await;
    one.membership.leave().await;
    let (places, _) = session.get_children("/flowkeeper/leader").await.expect("our own may").expect("a queue");
    assert!(places.is_empty(), "{places:?} on {}", guarded.server.connect());
}

#[tokio::test]
async fn digest_keeps_znodes_for_those_who_know_the_password() {
    let guarded = Guarded::plain().await;
    let ours = guarded.with_digest(PASSWORD);
    let theirs = tempfile::tempdir().expect("a directory");
    std::fs::write(theirs.path().join("secret"), format!("{USER}:{WRONG_PASSWORD}")).expect("write a secret");
    let credential = SecretRef::File(theirs.path().join("secret"));
    let wrong = Connection {
        auth: Some(ZooKeeperAuth { scheme: "digest".into(), credential }),
        ..guarded.without_credentials()
    };
    is_kept_for_its_own(&guarded, ours, vec![guarded.without_credentials(), wrong]).await;
}

#[tokio::test]
async fn sasl_keeps_znodes_for_those_who_know_the_password() {
    let guarded = Guarded::sasl("").await;
    is_kept_for_its_own(&guarded, guarded.with_sasl(PASSWORD), vec![guarded.without_credentials()]).await;
}

#[tokio::test]
async fn a_certificate_keeps_znodes_for_those_who_have_it() {
    let guarded = Guarded::tls("want").await;
    let strangers = vec![guarded.with_tls(None), guarded.with_tls(Some("somebody-else"))];
    is_kept_for_its_own(&guarded, guarded.with_tls(Some("flowkeeper")), strangers).await;
}

#[tokio::test]
async fn a_corrected_digest_is_taken_up() {
    let guarded = Guarded::plain().await;
    let founder = member(guarded.with_digest(PASSWORD));
    founder.first().await;
    founder.membership.leave().await;

    let (one, watcher) = {
        let wrong = guarded.with_digest(WRONG_PASSWORD);
        (member(wrong.clone()), Watcher::start(wrong))
    };
    // ZooKeeper takes any digest; that it is the wrong one shows at the znodes.
    let reason = refused(&one).await;
    // Members and queue are read together, and either answer may come first.
    assert!(reason.contains("/flowkeeper/") && reason.contains("no permission"), "{reason}");
    let session = watcher.connected().await;
    assert_eq!(session.get_children("/flowkeeper").await, Err(ZooKeeperError::NoPermission));

    guarded.secret(&format!("{USER}:{PASSWORD}"));
    one.first().await;
    watcher.until(|status| *status == SessionStatus::Connected { session: 2 }).await;
    let session = watcher.ensemble.session().expect("a session");
    assert!(session.get_children("/flowkeeper").await.expect("our own may").is_some());
}

#[tokio::test]
async fn a_wrong_sasl_password_is_refused_by_name_until_it_is_corrected() {
    for demand in ["", "sessionRequireClientSASLAuth=true\n", "enforce.auth.enabled=true\nenforce.auth.schemes=sasl\n"]
    {
        let guarded = Guarded::sasl(demand).await;
        let wrong = guarded.with_sasl(WRONG_PASSWORD);
        let (one, watcher) = (member(wrong.clone()), Watcher::start(wrong));
        for reason in [refused(&one).await, watcher.fails().await] {
            assert_eq!(reason, format!("the servers refused the user `{USER}` (SASL DIGEST-MD5)"), "{demand}");
        }
        guarded.secret(PASSWORD);
        one.first().await;
        watcher.connected().await;
        one.membership.leave().await;
    }
}

#[tokio::test]
async fn a_server_that_demands_credentials_says_so_to_who_has_none() {
    let guarded = Guarded::sasl("sessionRequireClientSASLAuth=true\n").await;
    let one = member(guarded.without_credentials());
    assert_eq!(refused(&one).await, "the servers demand credentials, and none are configured");
    // Any digest is taken, but it is not what this server demands.
    let watcher = Watcher::start(guarded.with_digest(PASSWORD));
    assert_eq!(watcher.fails().await, "the servers refused the credential of the scheme `digest`");
}

#[tokio::test]
async fn credentials_that_a_server_does_not_recognise_are_an_error_and_not_an_open_door() {
    let plain = Guarded::plain().await;
    let one = member(plain.with_sasl(PASSWORD));
    let reason = refused(&one).await;
    assert!(reason.contains("do not recognise the credentials"), "{reason}");
    let blind = Guarded::tls("none").await;
    let one = member(blind.with_tls(Some("flowkeeper")));
    let reason = refused(&one).await;
    assert!(reason.contains("do not recognise the credentials"), "{reason}");
}

#[tokio::test]
async fn a_certificate_that_is_demanded_or_not_trusted_is_named_until_it_is_corrected() {
    let guarded = Guarded::tls("need").await;
    let address = guarded.address.clone();
    let right = guarded.with_tls(Some("flowkeeper"));
    let plain = |connect: &str| Connection { connect: connect.to_owned(), ..guarded.without_credentials() };
    let other = Authority::new();
    let foreign = other.certify("flowkeeper");
    let identity = Some(TlsIdentity { cert: foreign.cert, key: foreign.key });
    let foreign = Connection {
        tls: Some(ZooKeeperTls { ca: right.tls.clone().expect("TLS").ca, identity }),
        ..guarded.without_credentials()
    };
    let cases = [
        ("no certificate", guarded.with_tls(None), format!("{address}: it demands a certificate of the client")),
        (
            "a foreign certificate",
            foreign,
            format!("{address}: it refused the client's certificate (CertificateUnknown)"),
        ),
        (
            "a plain connection",
            plain(&address),
            format!("{address}: it closed the connection, as one does that speaks TLS only"),
        ),
        (
            "TLS to the plain port",
            Connection { connect: guarded.server.connect(), ..right.clone() },
            format!("{}: it closed the connection instead of speaking TLS", guarded.server.connect()),
        ),
        (
            "another name than the certificate's",
            Connection { connect: address.replace("127.0.0.1", "127.0.0.2"), ..right.clone() },
            format!("{}: its certificate is for other names than 127.0.0.2", address.replace("127.0.0.1", "127.0.0.2")),
        ),
    ];
    for (case, connection, expected) in cases {
        let watcher = Watcher::start(connection);
        // A busy server may have told nothing in time at first.
        let ask = || async {
            let reason = watcher.fails().await;
            (reason == expected).then_some(())
        };
        wait_for(ask, || format!("{case}: {expected}, and not {:?}", watcher.ensemble.status().borrow())).await;
    }

    // The file of authorities is corrected while attempts go on.
    let ca = guarded.file("trusted.pem");
    std::fs::copy(other.ca(), &ca).expect("copy the wrong authority");
    let tls = right.tls.clone().expect("TLS");
    let wrong = Connection { tls: Some(ZooKeeperTls { ca: ca.clone(), ..tls.clone() }), ..right };
    let (one, watcher) = (member(wrong.clone()), Watcher::start(wrong));
    for reason in [refused(&one).await, watcher.fails().await] {
        assert_eq!(reason, format!("{address}: its certificate is signed by nobody that `tls.ca` names"));
    }
    std::fs::copy(tls.ca, &ca).expect("copy the right authority");
    one.first().await;
    watcher.connected().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_costs_nobody_its_place() {
    let guarded = Guarded::tls("need").await;
    let proxy = Proxy::start_plain(&guarded.address).await;
    let ours = Connection { connect: proxy.connect(), ..guarded.with_tls(Some("flowkeeper")) };
    let (one, watcher) = (member(ours.clone()), Watcher::start(ours));
    one.first().await;
    let session = watcher.connected().await;
    let place = session.get_children("/flowkeeper/leader").await.expect("our own may").expect("a queue").0;
    let connections = proxy.accepted();
    // The same name, the same files, another key.
    guarded.with_tls(Some("flowkeeper"));
    watcher.until(|status| *status == SessionStatus::Connected { session: 2 }).await;
    wait_for(
        || async { (proxy.accepted() >= connections + 2).then_some(()) },
        || "the member keeps its connection".to_owned(),
    )
    .await;
    one.first().await;
    let session = watcher.connected().await;
    assert_eq!(session.get_children("/flowkeeper/leader").await.expect("our own may").expect("a queue").0, place);
}

#[tokio::test]
async fn a_root_that_belongs_to_somebody_else_is_named() {
    let guarded = Guarded::plain().await;
    let founder = member(guarded.with_digest(PASSWORD));
    founder.first().await;
    founder.membership.leave().await;
    let one = member(guarded.without_credentials());
    let reason = refused(&one).await;
    assert!(reason.contains("the znode /flowkeeper/members") && reason.contains("no permission"), "{reason}");
    // Somebody gives it away.
    let client = guarded.server.client().await;
    client.auth("digest", format!("{USER}:{PASSWORD}").as_bytes()).await.expect("a digest");
    for path in ["/flowkeeper/members", "/flowkeeper/leader", "/flowkeeper"] {
        client.set_acl(path, zookeeper_client::Acls::anyone_all().as_ref(), None).await.expect("set the list");
    }
    one.first().await;
}

#[tokio::test]
async fn check_online_tells_what_is_wrong_with_the_credentials() {
    let guarded = Guarded::plain().await;
    let founder = member(guarded.with_digest(PASSWORD));
    founder.first().await;
    founder.membership.leave().await;
    create(&guarded.server.client().await, "/chroot", b"").await;
    let secret = guarded.file("secret");
    let digest = format!("auth = {{ scheme = \"digest\", credential = {{ file = \"{}\" }} }}\n", secret.display());
    let sasl = format!(
        "sasl = {{ mechanism = \"DIGEST-MD5\", username = \"{USER}\", password = {{ file = \"{}\" }} }}\n",
        secret.display()
    );
    let address = &guarded.address;
    let cases = [
        (format!("connect = \"{address}\"\n{digest}"), PASSWORD, None),
        (format!("connect = \"{address}/chroot\"\n{digest}"), PASSWORD, None),
        (format!("connect = \"{address}/nowhere\"\n{digest}"), PASSWORD, Some(("find the chroot", "does the chroot"))),
        (format!("connect = \"{address}\"\n{digest}"), WRONG_PASSWORD, Some(("list the znode /flowkeeper", "`root`"))),
        (format!("connect = \"{address}\"\n"), PASSWORD, Some(("list the znode /flowkeeper", "`root`"))),
        (format!("connect = \"{address}\"\n{sasl}"), PASSWORD, Some(("do not recognise the credentials", "JAAS"))),
        ("connect = \"127.0.0.1:1\"\n".to_owned(), PASSWORD, Some(("127.0.0.1:1: nothing listens there", "running"))),
    ];
    for (settings, password, expected) in cases {
        guarded.secret(&format!("{USER}:{password}"));
        let member = Member::new(&format!("[zookeeper]\n{settings}"));
        let output = member.run(&["-o", "json", "check", "--online"]).await;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        let text = answer.to_string();
        assert!(!text.contains(password), "{text}");
        match expected {
            None => assert_eq!(answer["faults"], serde_json::json!([]), "{settings}"),
            Some((message, hint)) => {
                let fault = &answer["faults"][0];
                assert!(fault["key"].as_str().expect("a key").starts_with("zookeeper"), "{text}");
                assert!(fault["message"].as_str().expect("a message").contains(message), "{settings} {text}");
                assert!(fault["hint"].as_str().expect("a hint").contains(hint), "{settings} {text}");
            }
        }
    }
}

#[tokio::test]
async fn znodes_from_before_there_were_credentials_are_told_until_they_are_closed() {
    let guarded = Guarded::plain().await;
    let client = guarded.server.client().await;
    for path in ["/flowkeeper", "/flowkeeper/config"] {
        create(&client, path, b"").await;
    }
    guarded.secret(&format!("{USER}:{PASSWORD}"));
    let config = format!(
        "[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\nauth = {{ credential = {{ file = \"{}\" }} }}\n",
        guarded.address,
        guarded.file("secret").display()
    );
    let mut member = Member::new(&config);
    let told = "may change /flowkeeper, /flowkeeper/config";
    let warnings = |answer: &serde_json::Value| {
        let faults = answer["faults"].as_array().cloned().unwrap_or_default();
        faults.into_iter().filter(|fault| fault["key"] == "zookeeper.root").collect::<Vec<_>>()
    };
    let found = warnings(&member.json(&["check", "--online"]).await);
    assert_eq!((found.len(), &found[0]["severity"]), (1, &serde_json::json!("warning")), "{found:?}");
    assert!(found[0]["message"].as_str().is_some_and(|message| message.ends_with(told)), "{found:?}");
    assert!(found[0]["hint"].as_str().is_some_and(|hint| hint.contains("setAcl -R /flowkeeper")), "{found:?}");
    member.start();
    crate::support::world::wait_for(
        || async { member.logged().contains(told).then_some(()) },
        || format!("no warning: {}", member.logged()),
    )
    .await;
    member.kill();

    // As the hint says; what the member made meanwhile is its own.
    client.auth("digest", format!("{USER}:{PASSWORD}").as_bytes()).await.expect("a digest");
    for path in ["/flowkeeper/config", "/flowkeeper"] {
        client.set_acl(path, zookeeper_client::Acls::creator_all().as_ref(), None).await.expect("set the list");
    }
    assert_eq!(warnings(&member.json(&["check", "--online"]).await), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn no_log_shows_a_secret_at_any_level() {
    let guarded = Guarded::sasl("").await;
    let secret = guarded.file("secret");
    for password in [WRONG_PASSWORD, PASSWORD] {
        guarded.secret(password);
        let mut member = Member::new(&format!(
            "[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\nsasl = {{ mechanism = \"DIGEST-MD5\", username = \
             \"{USER}\", password = {{ file = \"{file}\" }} }}\nauth = {{ scheme = \"digest\", credential = {{ file = \
             \"{file}\" }} }}\n[[schedule]]\nname = \"a\"\nznode = {{ path = \"/a\" }}\ndag = \"a\"\n[airflow.main]\nurl = \
             \"http://127.0.0.1:9\"\nauth = {{ username = \"u\", password = {{ file = \"{file}\" }} }}\n",
            guarded.address,
            file = secret.display(),
        ));
        let configuration = std::fs::read_to_string(member.path().join("flowkeeper.toml")).expect("the configuration");
        let traced = configuration.replace("level = \"debug\"", "level = \"trace\"");
        assert_ne!(configuration, traced);
        std::fs::write(member.path().join("flowkeeper.toml"), traced).expect("write the configuration");
        member.start();
        let said = if password == PASSWORD { "opened a session" } else { "refused the user" };
        wait_for(
            || async { member.logged().contains(said).then_some(()) },
            || format!("not {said}: {}", member.logged()),
        )
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let log = member.logged();
        assert!(!log.contains(password), "{}", log.lines().find(|line| line.contains(password)).unwrap_or_default());
        member.kill();
    }
}
