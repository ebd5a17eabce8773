//! The health of a real ensemble of three servers, as `flowkeeper health` sees it: each kind of
//! trouble is seen by the right check, and clears again.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::certificates::Authority;
use crate::support::ensemble::{SERVERS, UNHURRIED, ZooKeeperEnsemble};
use crate::support::zookeeper::{ZooKeeperServer, create};

/// How long something may take to be seen: a busy machine takes its time to elect a leader.
const PATIENCE: Duration = Duration::from_mins(5);

/// A configuration that names an ensemble, and the program that is pointed at it.
struct Probe {
    directory: tempfile::TempDir,
}

/// What came of a run of `flowkeeper health`.
struct Answer {
    code: i32,
    report: Value,
}

impl Probe {
    /// For these servers, with further keys of `[ensemble.main]`.
    fn new(connect: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // Servers that have just started are no trouble here.
        let configuration = format!(
            "[ensemble.main]\nconnect = \"{connect}\"\nsession_timeout = \"4s\"\n{more}\n\
             [ensemble.main.thresholds]\nchurn = {{ warn = 0 }}\n{UNHURRIED}"
        );
        std::fs::write(directory.path().join("flowkeeper.toml"), configuration).expect("a configuration");
        Self { directory }
    }

    /// Adds a threshold.
    fn limit(&self, threshold: &str) {
        let path = self.directory.path().join("flowkeeper.toml");
        let mut configuration = std::fs::read_to_string(&path).expect("a configuration");
        configuration.push_str(threshold);
        std::fs::write(path, configuration).expect("a configuration");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowkeeper"));
        command.env_clear().arg("-c").arg(self.directory.path().join("flowkeeper.toml"));
        command.arg("health").args(arguments).stdin(Stdio::null());
        command
    }

    async fn output(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        let output = output.expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
    }

    /// One look, with samples a short time apart.
    async fn look(&self) -> Answer {
        let arguments = ["-o", "json", "--interval", "300ms", "--timeout", "8s"];
        let (code, stdout, stderr) = self.output(&arguments).await;
        let report = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {stderr}"));
        Answer { code, report }
    }

    /// Looks until all of these are so; the look that found it.
    async fn sees(&self, what: &str, wanted: &[(&str, Option<&str>, &str)]) -> Answer {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.look().await;
            if wanted.iter().all(|(check, server, verdict)| answer.verdict(check, *server) == *verdict) {
                return answer;
            }
            assert!(Instant::now() < end, "{what}: {wanted:?}, and it is\n{}", answer.told());
        }
    }

    /// Looks until a server is found not to serve, for a reason in these words; the look that found it.
    async fn tells(&self, server: Option<&str>, words: &str) -> Answer {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.look().await;
            if answer.verdict("serving", server) == "critical" && answer.meaning("serving", server).contains(words) {
                return answer;
            }
            assert!(Instant::now() < end, "{words}: it is\n{}", answer.told());
        }
    }

    /// Looks until nothing is wrong.
    async fn sees_nothing_wrong(&self, what: &str) -> Answer {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.look().await;
            if answer.code == 0 {
                return answer;
            }
            assert!(Instant::now() < end, "{what}: it is\n{}", answer.told());
        }
    }
}

impl Answer {
    fn finding(&self, check: &str, server: Option<&str>) -> &Value {
        let checks = self.report["checks"].as_array().expect("checks");
        let found = checks.iter().find(|finding| finding["check"] == check && finding["server"].as_str() == server);
        found.unwrap_or_else(|| panic!("no {check} of {server:?}: {:#}", self.report))
    }

    fn verdict(&self, check: &str, server: Option<&str>) -> &str {
        self.finding(check, server)["verdict"].as_str().expect("a verdict")
    }

    fn meaning(&self, check: &str, server: Option<&str>) -> &str {
        self.finding(check, server)["meaning"].as_str().expect("a meaning")
    }

    /// Everything that is not as it should be, for a person.
    fn told(&self) -> String {
        let mut told = format!("exit {}\n", self.code);
        for finding in self.report["checks"].as_array().into_iter().flatten() {
            if finding["verdict"] != "ok" && finding["verdict"] != "not_applicable" {
                let _ = writeln!(
                    told,
                    "{} {} {}: {}",
                    finding["check"], finding["server"], finding["verdict"], finding["meaning"]
                );
            }
        }
        told
    }
}

#[tokio::test]
async fn servers_that_are_killed_or_frozen_are_seen_and_clear_again() {
    let (ensemble, admin) = ZooKeeperEnsemble::with_admin("", &[]).await;
    let probe = Probe::new(&ensemble.connect(), &admin);
    let answer = probe.sees_nothing_wrong("a whole ensemble").await;
    assert_eq!(answer.report["verdict"], "ok", "{}", answer.told());
    assert_eq!(answer.report["ensemble"], "main");

    let servers = ensemble.servers().to_vec();
    let leader = ensemble.leader().expect("a leader");
    let follower = (leader + 1) % SERVERS;
    let down = Some(servers[follower].as_str());

    ensemble.kill(follower);
    let wanted = [("serving", down, "critical"), ("quorum", None, "critical"), ("synced_followers", None, "warning")];
    let answer = probe.sees("a follower is killed", &wanted).await;
    assert_eq!(answer.code, 2);
    assert!(answer.meaning("quorum", None).starts_with("2 of 3 voting servers work"), "{}", answer.told());
    assert_eq!((answer.verdict("leader", None), answer.verdict("canary", down)), ("ok", "unknown"));
    ensemble.restart(follower).await;
    probe.sees_nothing_wrong("the follower is back").await;

    ensemble.kill(leader);
    let gone = Some(servers[leader].as_str());
    let wanted = [("serving", gone, "critical"), ("leader", None, "ok"), ("quorum", None, "critical")];
    probe.sees("the leader is killed, and another leads", &wanted).await;
    ensemble.restart(leader).await;
    probe.sees_nothing_wrong("the old leader follows").await;

    ensemble.freeze(follower, true);
    let answer = probe.sees("a server is frozen", &[("serving", down, "critical")]).await;
    assert!(answer.meaning("serving", down).contains("stays silent"), "{}", answer.told());
    ensemble.freeze(follower, false);
    probe.sees_nothing_wrong("the frozen server goes on").await;

    let last = ensemble.leader().expect("a leader");
    for other in (0..SERVERS).filter(|other| *other != last) {
        ensemble.kill(other);
    }
    let alone = Some(servers[last].as_str());
    let wanted = [("serving", alone, "critical"), ("leader", None, "critical"), ("quorum", None, "critical")];
    let answer = probe.sees("two are killed", &wanted).await;
    assert!(answer.meaning("serving", alone).contains("does not serve"), "{}", answer.told());
    assert_eq!(answer.code, 2);
    ensemble.restart_all().await;
    probe.sees_nothing_wrong("all are back").await;

    // Nothing of the canary's is left.
    let (children, _) = ensemble.client().await.get_children("/").await.expect("the root");
    assert_eq!(children, ["zookeeper"]);
}

#[tokio::test]
async fn a_restricted_whitelist_is_one_finding_and_the_admin_server_stands_in() {
    let (ensemble, admin) = ZooKeeperEnsemble::with_admin("4lw.commands.whitelist=srvr\n", &[]).await;
    let with_admin = Probe::new(&ensemble.connect(), &admin);
    let answer = with_admin.sees_nothing_wrong("AdminServers stand in").await;
    let first = Some(ensemble.servers()[0].as_str());
    for check in ["znode_count", "file_descriptors", "connections", "directory_size"] {
        assert!(answer.finding(check, first)["value"].is_number(), "{check}: {}", answer.finding(check, first));
    }

    let without = Probe::new(&ensemble.connect(), "admin = \"off\"");
    let wanted = [
        ("commands", None, "unknown"),
        ("watches", first, "unknown"),
        ("latency", first, "unknown"),
        ("serving", first, "ok"),
        ("canary", first, "ok"),
        ("znode_count", first, "ok"),
        ("quorum", None, "ok"),
        ("epoch", None, "ok"),
        // From /zookeeper/config.
        ("membership", None, "ok"),
    ];
    let answer = without.sees("four-letter words are refused", &wanted).await;
    assert_eq!(answer.code, 3, "{}", answer.told());
    let remedies =
        answer.report["checks"].as_array().expect("checks").iter().filter(|finding| !finding["remedy"].is_null());
    assert_eq!(remedies.count(), 1, "{}", answer.told());
    assert_eq!(answer.finding("watches", first)["value"], Value::Null);

    // As a probe it is limited to what may be asked.
    let (code, stdout, _) = without.output(&["--brief", "--check", "serving,quorum,canary", "--interval", "0s"]).await;
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.starts_with("OK main: ") && stdout.lines().count() == 1, "{stdout}");
}

#[tokio::test]
async fn a_tree_that_grows_and_connections_that_are_used_up_are_seen() {
    let (ensemble, admin) = ZooKeeperEnsemble::with_admin("maxClientCnxns=12\n", &[]).await;
    let probe = Probe::new(&ensemble.connect(), &admin);
    let first = Some(ensemble.servers()[0].as_str());
    let answer = probe.sees_nothing_wrong("an empty tree").await;
    let znodes = answer.finding("znode_count", first)["value"].as_u64().expect("a number");

    let small = Probe::new(&ensemble.connect(), &admin);
    small.limit(&format!("znode_count = {{ warn = {}, critical = {} }}", znodes + 10, znodes + 50));
    small.sees("a small tree", &[("znode_count", first, "ok")]).await;
    let client = ensemble.client().await;
    create(&client, "/tree", b"").await;
    for number in 0..20 {
        create(&client, &format!("/tree/{number}"), b"").await;
    }
    let answer = small.sees("a tree over its limit", &[("znode_count", first, "warning")]).await;
    assert_eq!(answer.code, 1, "{}", answer.told());
    for number in 20..60 {
        create(&client, &format!("/tree/{number}"), b"").await;
    }
    small.sees("a tree far over its limit", &[("znode_count", first, "critical")]).await;
    for number in 0..60 {
        client.delete(&format!("/tree/{number}"), None).await.expect("it goes");
    }
    small.sees_nothing_wrong("the tree is small again").await;
    drop(client);

    // What is asked on one connection after the other still finds one free.
    let idle = |_| tokio::net::TcpStream::connect(ensemble.servers()[0].clone());
    let mut held = futures_util::future::try_join_all((0..11).map(idle)).await.expect("connections");
    let answer = probe.sees("few connections are left", &[("connections", first, "critical")]).await;
    assert!(answer.meaning("connections", first).contains("of the 12 connections"), "{}", answer.told());
    // The server closes those that are too many.
    for _ in 0..5 {
        held.extend(idle(0).await.ok());
    }
    let answer = probe.sees("no connection is left", &[("connections", first, "critical")]).await;
    assert!(answer.meaning("connections", first).contains("turns this host away"), "{}", answer.told());
    assert_eq!(answer.code, 2);
    drop(held);
    probe.sees_nothing_wrong("connections are free again").await;
}

#[tokio::test]
async fn a_read_only_server_and_one_that_is_not_named_are_seen() {
    let (ensemble, admin) = ZooKeeperEnsemble::with_admin("", &["-Dreadonlymode.enabled=true"]).await;
    let two = ensemble.servers()[..2].join(",");
    let answer = Probe::new(&two, &admin).sees("a server is left out", &[("membership", None, "warning")]).await;
    assert!(answer.meaning("membership", None).starts_with("server 3 "), "{}", answer.told());
    assert_eq!(answer.code, 1, "{}", answer.told());

    let probe = Probe::new(&ensemble.connect(), &admin);
    probe.sees_nothing_wrong("all servers are named").await;
    ensemble.kill(1);
    ensemble.kill(2);
    let alone = Some(ensemble.servers()[0].as_str());
    let wanted = [("read_only", alone, "critical"), ("quorum", None, "critical"), ("leader", None, "critical")];
    let answer = probe.sees("a server serves reads only", &wanted).await;
    assert_eq!((answer.verdict("serving", alone), answer.verdict("canary", alone)), ("ok", "unknown"));
    ensemble.restart_all().await;
    probe.sees_nothing_wrong("all take writes again").await;
}

#[tokio::test]
async fn a_server_with_tls_is_asked_over_it_and_its_certificate_ends() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().expect("a directory");
    let (_server, address) = ZooKeeperServer::start_with_tls(&authority, directory.path(), "none").await;
    let server = Some(address.as_str());

    let tls = |authority: &Authority| format!("admin = \"off\"\ntls = {{ ca = \"{}\" }}", authority.ca().display());
    // A first handshake takes its time, so not the first look need be right.
    let wanted = [("certificate", server, "critical"), ("serving", server, "ok"), ("canary", server, "ok")];
    let answer = Probe::new(&address, &tls(&authority)).sees("a certificate of two days", &wanted).await;
    assert!(answer.finding("certificate", server)["value"].as_f64().is_some_and(|days| (1.0..2.0).contains(&days)));
    assert!(answer.finding("watches", server)["value"].is_number(), "{}", answer.told());
    assert_eq!(answer.verdict("quorum", None), "not_applicable");

    let answer = Probe::new(&address, &tls(&stranger)).tells(server, "the TLS handshake failed").await;
    assert!(answer.finding("certificate", server)["value"].is_number(), "it was seen all the same: {}", answer.told());
    Probe::new(&address, "admin = \"off\"").tells(server, "").await;
}

#[tokio::test]
async fn what_keeps_the_probe_from_looking_is_unknown_and_told() {
    let probe = Probe::new("127.0.0.1:1", "admin = \"off\"");
    let (code, _, stderr) = probe.output(&["solr"]).await;
    assert_eq!(code, 3);
    assert!(
        stderr.contains("failed to find the ensemble `solr`") && stderr.contains("hint: there are: main"),
        "{stderr}"
    );
    probe.limit("outstanding_request = { warn = 3 }");
    let (code, _, stderr) = probe.output(&[]).await;
    assert_eq!(code, 3);
    assert!(stderr.contains("did you mean `outstanding_requests`?"), "{stderr}");

    let nobody = Probe::new("127.0.0.1:1", "admin = \"off\"");
    let (code, stdout, _) = nobody.output(&["--interval", "0s"]).await;
    assert_eq!(code, 2, "{stdout}");
    assert!(stdout.contains("critical serving") && stdout.contains("cannot be reached"), "{stdout}");
}
