//! What a serving member finds out about a real ensemble of three servers, and how soon: each fault is seen
//! by the right check within two intervals, and clears again when it is mended.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zookeeper_client::{Acls, Client, CreateMode};

use crate::support::ensemble::{SERVERS, UNHURRIED, ZooKeeperEnsemble};
use crate::support::process::Member;
use crate::support::world::wait_for;
use crate::support::zookeeper::{ZooKeeperServer, create};

/// How often members look here. An answer may take a sixth of it, so this bears a server that has just
/// started on a busy machine.
const INTERVAL: Duration = Duration::from_secs(6);

/// What comes on top of two intervals: a look that began before the fault and waits for its time-outs,
/// what servers take to notice, and a machine that does other things as well.
const ALLOWANCE: Duration = Duration::from_secs(8);

/// How long anything may take, also where nobody looks at all.
const LONGEST: Duration = Duration::from_mins(4);

/// How big the tree grows, and how many znodes are made at a time.
const TREE: usize = 100_000;
const TOGETHER: usize = 1_000;

/// A check, a server or the ensemble, and a verdict.
type Wanted<'w> = (&'w str, Option<&'w str>, &'w str);

/// A member that looks at ensembles.
struct Looking {
    member: Member,
    /// What was seen, and how soon.
    seen: Vec<(String, Duration)>,
}

impl Looking {
    /// Serves with these sections, and waits until `wanted` is so.
    fn start(configuration: &str) -> Self {
        let mut member = Member::new(configuration);
        member.start();
        Self { member, seen: Vec::new() }
    }

    /// What it found last; nothing where it does not answer.
    async fn report(&self, ensemble: &str) -> Value {
        let path = format!("ensembles/{ensemble}");
        let asked = tokio::time::timeout(INTERVAL, self.member.get(&path)).await;
        asked.ok().flatten().unwrap_or_default()
    }

    /// Waits until all of these are so, no longer than two intervals from now; what was found then.
    async fn sees(&mut self, what: &str, ensemble: &str, wanted: &[Wanted<'_>]) -> Value {
        let (report, took) = self.waits(what, ensemble, wanted, INTERVAL * 2 + ALLOWANCE).await;
        self.seen.push((what.to_owned(), took));
        report
    }

    async fn waits(&mut self, what: &str, ensemble: &str, wanted: &[Wanted<'_>], limit: Duration) -> (Value, Duration) {
        let started = Instant::now();
        let mut looks = BTreeSet::new();
        loop {
            let report = self.report(ensemble).await;
            looks.extend(report["checked_at"].as_str().map(ToOwned::to_owned));
            let is_so =
                |(check, server, verdict): &Wanted<'_>| finding(&report, check, *server)["verdict"] == **verdict;
            if wanted.iter().all(is_so) {
                return (report, started.elapsed());
            }
            assert!(self.member.ended().is_none(), "{what}: the member has ended\n{}", self.member.logged());
            // On a machine that is so busy that looks are late, it is two looks: beside the last one before
            // and one that was under way.
            assert!(
                started.elapsed() < limit || (looks.len() < 8 && started.elapsed() < LONGEST),
                "{what}: not {wanted:?} within {limit:?}, and it is {:#?}\n{}",
                told(&report),
                self.member.logged()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends with a table of how soon everything was seen.
    fn end(self) {
        for (what, took) in &self.seen {
            println!("{:>6.1} s  {what}", took.as_secs_f64());
        }
    }
}

fn finding(report: &Value, check: &str, server: Option<&str>) -> Value {
    let checks = report["checks"].as_array().into_iter().flatten();
    let mut found = checks.filter(|finding| finding["check"] == check && finding["server"].as_str() == server);
    found.next().cloned().unwrap_or_default()
}

/// Everything that is not well, for a person.
fn told(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().into_iter().flatten();
    let bad = checks.filter(|finding| !["ok", "not_applicable"].iter().any(|well| finding["verdict"] == *well));
    bad.map(|finding| {
        format!("{} {} {}: {}", finding["check"], finding["server"], finding["verdict"], finding["meaning"])
    })
    .collect()
}

/// `[ensemble.NAME]` for servers that have just started, which are no trouble here.
fn section(name: &str, keys: &str) -> String {
    format!(
        "[ensemble.{name}]\ninterval = \"{}s\"\n{keys}\n[ensemble.{name}.thresholds]\nchurn = {{ warn = 0 }}\n{UNHURRIED}",
        INTERVAL.as_secs()
    )
}

#[tokio::test]
async fn servers_that_die_or_hang_are_seen_and_told_even_without_a_home() {
    let (ensemble, admin) = ZooKeeperEnsemble::with_admin("", &[]).await;
    let connect = ensemble.connect();
    let home = format!("[zookeeper]\nconnect = \"{connect}\"\nsession_timeout = \"4s\"\n");
    let mut looking = Looking::start(&format!("{home}{}", section("main", &admin)));
    let well = [("serving", None), ("quorum", None), ("leader", None), ("synced_followers", None)];
    let servers = ensemble.servers().to_vec();
    let all_serve: Vec<Wanted<'_>> = servers.iter().map(|server| ("serving", Some(server.as_str()), "ok")).collect();
    let rest = well[1..].iter().map(|(check, server)| (*check, *server, "ok"));
    let well: Vec<Wanted<'_>> = all_serve.into_iter().chain(rest).collect();
    looking.waits("a whole ensemble", "main", &well, LONGEST).await;

    let leader = ensemble.leader().expect("a leader");
    let follower = (leader + 1) % SERVERS;
    let (led, down) = (Some(servers[leader].as_str()), Some(servers[follower].as_str()));

    ensemble.kill(follower);
    let wanted = [("serving", down, "critical"), ("quorum", None, "critical"), ("synced_followers", None, "warning")];
    let report = looking.sees("a follower is killed", "main", &wanted).await;
    assert_eq!((&report["verdict"], &report["leader"]), (&json!("critical"), &json!(led)), "{:?}", told(&report));
    everybody_is_told(&looking, &ensemble.client().await, down.expect("a server")).await;
    ensemble.restart(follower).await;
    ensemble.is_whole().await;
    looking.sees("… and is back", "main", &well).await;

    ensemble.kill(leader);
    let wanted = [("serving", led, "critical"), ("leader", None, "ok"), ("quorum", None, "critical")];
    let report = looking.sees("the leader is killed, and another leads", "main", &wanted).await;
    assert_ne!(report["leader"], json!(led), "{:?}", told(&report));
    ensemble.restart(leader).await;
    ensemble.is_whole().await;
    looking.sees("… and follows", "main", &well).await;

    let frozen = (ensemble.leader().expect("a leader") + 1) % SERVERS;
    let silent = Some(servers[frozen].as_str());
    ensemble.freeze(frozen, true);
    let report = looking.sees("a follower is frozen", "main", &[("serving", silent, "critical")]).await;
    let meaning = finding(&report, "serving", silent)["meaning"].clone();
    assert!(meaning.as_str().is_some_and(|meaning| meaning.contains("stays silent")), "{meaning}");
    ensemble.freeze(frozen, false);
    ensemble.is_whole().await;
    looking.sees("… and goes on", "main", &well).await;

    // The home ensemble is lost as well, and everything but its znode goes on.
    let last = ensemble.leader().expect("a leader");
    for other in (0..SERVERS).filter(|other| *other != last) {
        ensemble.kill(other);
    }
    let alone = Some(servers[last].as_str());
    let wanted = [("serving", alone, "critical"), ("leader", None, "critical"), ("quorum", None, "critical")];
    let report = looking.sees("two are killed", "main", &wanted).await;
    assert_eq!((&report["leader"], &report["quorum"]), (&Value::Null, &json!("lost")));
    let metrics = looking.member.text("metrics").await.expect("metrics");
    assert!(metrics.contains("flowkeeper_ensemble_verdict{ensemble=\"main\"} 2"), "{metrics}");
    ensemble.restart_all().await;
    ensemble.is_whole().await;
    looking.sees("… and are back", "main", &well).await;
    let client = ensemble.client().await;
    let checked = report["checked_at"].as_str().expect("a time").to_owned();
    let read = || async {
        let node = health_node(&client).await?;
        (node["checked_at"].as_str()? > checked.as_str() && node["quorum"] == "held").then_some(())
    };
    wait_for(read, || "the znode does not tell of now".to_owned()).await;
    looking.end();
}

/// The znode of the ensemble `main`.
async fn health_node(client: &Client) -> Option<Value> {
    let (data, _) = client.get_data("/flowkeeper/health/main").await.ok()?;
    serde_json::from_slice(&data).ok()
}

/// While a follower is down: the znode, metrics, a check that runs now, and the commands tell.
async fn everybody_is_told(looking: &Looking, client: &Client, down: &str) {
    let read = || async { health_node(client).await.filter(|node| node["verdict"] == "critical") };
    let node = wait_for(read, || "the znode does not tell".to_owned()).await;
    assert_eq!(finding(&node, "serving", Some(down))["verdict"], "critical", "{node}");
    assert!(told(&node).len() == node["checks"].as_array().map_or(0, Vec::len), "what is well is left out: {node}");
    assert!(node["member"].as_str().is_some_and(|member| !member.is_empty()), "{node}");

    let metrics = looking.member.text("metrics").await.expect("metrics");
    let of = |name: &str| format!("flowkeeper_ensemble_{name},server=\"{down}\"}}");
    assert!(metrics.contains(&(of("check_verdict{ensemble=\"main\",check=\"serving\"") + " 2")), "{metrics}");
    assert!(metrics.contains(&(of("server_serves{ensemble=\"main\"") + " 0")), "{metrics}");
    assert!(metrics.contains(&(of("check_verdict{ensemble=\"main\",check=\"watches\"") + " 3")), "{metrics}");
    assert!(!metrics.contains(&of("watches{ensemble=\"main\"")), "what is unknown is no number: {metrics}");
    assert!(metrics.contains("flowkeeper_ensemble_znode_count{ensemble=\"main\",server="), "{metrics}");
    assert!(
        metrics.contains("flowkeeper_ensemble_canary_seconds_count{ensemble=\"main\",step=\"create\"}"),
        "{metrics}"
    );

    let run = looking.member.post("ensembles/main/checks/serving/run", &json!({})).await;
    assert_eq!((&run["verdict"], run["checks"].as_array().map(Vec::len)), (&json!("critical"), Some(SERVERS)));
    assert_eq!(looking.member.run(&["health", "main", "--last", "--brief"]).await.status.code(), Some(2));
    let history = looking.member.json(&["health", "--history", "--check", "serving"]).await;
    assert_eq!((&history[0]["server"], &history[0]["after"]), (&json!(down), &json!("critical")), "{history}");
}

#[tokio::test]
async fn servers_that_are_set_up_differently_or_full_are_seen() {
    let (ensemble, admin) =
        ZooKeeperEnsemble::with_admin("maxClientCnxns=12\n", &["-Dreadonlymode.enabled=true"]).await;
    let home = ZooKeeperServer::shared().await.connect();
    let (connect, two) = (ensemble.connect(), ensemble.servers()[..2].join(","));
    let main = section("main", &format!("connect = \"{connect}\"\n{admin}"));
    let limits = format!("znode_count = {{ warn = {}, critical = {TREE} }}\n", TREE / 2);
    let left_out = section("partly", &format!("connect = \"{two}\"\n{admin}"));
    let configuration =
        format!("[zookeeper]\nconnect = \"{home}\"\nroot = \"/health-faults\"\n{main}{limits}{left_out}");
    let mut looking = Looking::start(&configuration);
    let first = Some(ensemble.servers()[0].as_str());
    let well = [
        ("commands", None, "ok"),
        ("quorum", None, "ok"),
        ("connections", first, "ok"),
        ("znode_count", first, "ok"),
        ("watches", first, "ok"),
        ("read_only", first, "ok"),
        ("membership", None, "ok"),
    ];
    looking.waits("a whole ensemble", "main", &well, LONGEST).await;

    // Words and AdminServer stand in for each other; without both, one finding says what is not known.
    let (hidden, known) = ([("commands", None, "unknown"), ("watches", first, "unknown")], &well[..5]);
    let steps: [(&str, &str, &[Wanted<'_>]); 5] = [
        ("an AdminServer is off, and four-letter words tell the same", "admin.enableServer=false", known),
        ("… and the whitelist becomes the default one", "4lw.commands.whitelist=srvr", &hidden),
        ("… and the AdminServer stands in", "admin.enableServer=true", known),
        ("an AdminServer is off where the whitelist is the default one", "admin.enableServer=false", &hidden),
        ("… and everything is allowed again", "4lw.commands.whitelist=*", known),
    ];
    for (what, setting, wanted) in steps {
        ensemble.reconfigure(0, setting).await;
        ensemble.is_whole().await;
        if setting == "admin.enableServer=true" {
            admin_answers(&admin).await;
        }
        looking.sees(what, "main", wanted).await;
    }
    ensemble.reconfigure(0, "admin.enableServer=true").await;
    ensemble.is_whole().await;

    let idle = |_| tokio::net::TcpStream::connect(ensemble.servers()[0].clone());
    let held = futures_util::future::join_all((0..20).map(idle)).await;
    looking.sees("connections are used up", "main", &[("connections", first, "critical")]).await;
    drop(held);
    looking.sees("… and are free again", "main", &[("connections", first, "ok"), ("serving", first, "ok")]).await;

    let client = ensemble.client().await;
    let started = Instant::now();
    grow(&client).await;
    println!("{:>6.1} s  to make {TREE} znodes", started.elapsed().as_secs_f64());
    let report = looking.sees("a tree is over its limit", "main", &[("znode_count", first, "critical")]).await;
    let znodes = finding(&report, "znode_count", first)["value"].as_u64();
    assert!(znodes.is_some_and(|znodes| znodes >= TREE as u64), "{znodes:?}");
    shrink(&client).await;
    drop(client);
    looking.sees("… and is small again", "main", &[("znode_count", first, "ok")]).await;

    ensemble.kill(1);
    ensemble.kill(2);
    let wanted = [("read_only", first, "critical"), ("quorum", None, "critical"), ("leader", None, "critical")];
    let report = looking.sees("a server serves reads only", "main", &wanted).await;
    assert_eq!(finding(&report, "serving", first)["verdict"], "ok", "{:?}", told(&report));
    ensemble.restart_all().await;
    ensemble.is_whole().await;
    looking.sees("… and takes writes again", "main", &well).await;

    let report = looking.sees("a server is left out", "partly", &[("membership", None, "warning")]).await;
    let meaning = finding(&report, "membership", None)["meaning"].clone();
    assert!(meaning.as_str().is_some_and(|meaning| meaning.starts_with("server 3 ")), "{meaning}");
    let file = looking.member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    assert_eq!(looking.member.stop().await, Some(0));
    let named = text.replace(&format!("connect = \"{two}\""), &format!("connect = \"{connect}\""));
    std::fs::write(&file, named).expect("the configuration is written");
    looking.member.start();
    let limit = LONGEST;
    looking.waits("… and is named", "partly", &[("membership", None, "ok")], limit).await;
    looking.end();
}

/// Waits until the AdminServer of the first server has woken up: its first answer takes its time.
async fn admin_answers(admin: &str) {
    let url = admin.trim_start_matches("admin = ").trim_matches('"').replace("{host}", "127.0.0.1");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client");
    let ask = || async {
        for command in ["monitor", "configuration", "connections", "dirs", "server_stats"] {
            client.get(format!("{url}/{command}")).send().await.ok()?.error_for_status().ok()?;
        }
        Some(())
    };
    wait_for(ask, || format!("{url} does not answer")).await;
}

/// Makes a tree that is over its limit.
async fn grow(client: &Client) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    create(client, "/tree", b"").await;
    for block in 0..TREE / TOGETHER {
        let mut transaction = client.new_multi_writer();
        for number in 0..TOGETHER {
            transaction.add_create(&format!("/tree/{block}-{number}"), b"", &options).expect("a legal create");
        }
        transaction.commit().await.expect("a block is made");
    }
}

/// Deletes it again.
async fn shrink(client: &Client) {
    for block in 0..TREE / TOGETHER {
        let mut transaction = client.new_multi_writer();
        for number in 0..TOGETHER {
            transaction.add_delete(&format!("/tree/{block}-{number}"), None).expect("a legal deletion");
        }
        transaction.commit().await.expect("a block is deleted");
    }
}
