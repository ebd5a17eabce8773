//! Definitions in `ZooKeeper` while that is away, and the main file of members that have them there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::definitions::{Cluster, put, yearly};
use crate::reload::{airflow, cron, of, save, until, version, without_a_gap};
use crate::support::process::Member;
use crate::support::proxy::Proxy;
use crate::support::team::{PATIENCE, is_leading, is_ready, leads};

/// Which of two members leads.
async fn leader_of(members: &[Member]) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        for (index, member) in members.iter().enumerate() {
            if is_leading(member).await {
                return index;
            }
        }
        assert!(Instant::now() < end, "nobody leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn disconnected(member: &Member) {
    let end = Instant::now() + PATIENCE;
    while member.get("members").await.is_none_or(|list| list["zookeeper"]["state"] != "disconnected") {
        assert!(Instant::now() < end, "still connected\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn documents(text: &str) -> Value {
    json!([{ "name": "d.toml", "text": text }])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_is_pushed_as_zookeeper_goes_away_is_in_force_everywhere_when_it_is_back() {
    let mut cluster = Cluster::start(0).await;
    let mut proxies = Vec::new();
    for _ in 0..2 {
        let proxy = Proxy::start(&cluster.zookeeper.connect()).await;
        let mut member = cluster.member_by_way_of(&proxy.connect(), "");
        save(&member.path().join("password"), "admin");
        member.start();
        is_ready(&member).await;
        cluster.members.push(member);
        proxies.push(proxy);
    }
    // Larger than a znode, so that reading it takes several steps.
    let filling = format!("# {}\n", "x".repeat(98)).repeat(12_000);
    let beside = cron("beside", "* * * * * *", "");
    let set = |name: &str| airflow(&cluster.airflow) + &beside + &yearly(name) + &filling;
    let push = |text: &str| json!({ "documents": documents(text), "force": true });
    let (status, pushed) = put(&cluster.members[0], &push(&set("first"))).await;
    assert_eq!(status, 200, "{pushed}");
    cluster.agree(&["beside", "first"]).await;
    let leader = leader_of(&cluster.members).await;
    cluster.members[leader].wait_for_runs("runs", |runs| runs.len() >= 2).await;

    // How long after the push ZooKeeper ends: before anybody hears of it, while it is read, and after that.
    for (round, pause) in [0, 30, 300].map(Duration::from_millis).into_iter().enumerate() {
        let name = format!("round-{round}");
        proxies[1 - leader].freeze(true);
        let end = Instant::now() + PATIENCE;
        let pushed = loop {
            match put(&cluster.members[leader], &push(&set(&name))).await {
                (200, pushed) => break pushed,
                // ZooKeeper is back, and this member may not have found it yet.
                (status, problem) => assert!(status == 503 && Instant::now() < end, "{problem}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(pushed["changed"], true, "{pushed}");
        tokio::time::sleep(pause).await;
        cluster.zookeeper.kill();
        proxies[1 - leader].freeze(false);
        disconnected(&cluster.members[leader]).await;
        for member in &cluster.members {
            let config = member.get("config").await.expect("an answer");
            assert!(config["refused"].is_null(), "a set that cannot be read is no wrong one: {config}");
        }
        assert!(is_leading(&cluster.members[leader]).await, "it leads on");
        cluster.zookeeper.restart().await;
        let back = Instant::now();
        for member in &cluster.members {
            until(member, "what was pushed", |config| config["in_force"]["version"] == pushed["version"]).await;
        }
        println!("{pause:?} after the push: in force everywhere {:?} after ZooKeeper was back", back.elapsed());
        cluster.agree(&["beside", &name]).await;
    }
    assert_eq!(leader_of(&cluster.members).await, leader, "and nobody else did");
    let runs = cluster.members[leader].runs().await;
    without_a_gap(&of(&runs, "beside"), 1);
    let history = cluster.members[leader].json(&["config", "history"]).await;
    assert_eq!(history.as_array().map(Vec::len), Some(4), "each was in force once: {history}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_pushed_while_zookeeper_is_away() {
    let cluster = Cluster::start(2).await;
    let file = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &file]).await;
    cluster.agree(&["a"]).await;
    let leader = leader_of(&cluster.members).await;
    let before = version(cluster.first()).await;
    let held = cluster.znode().await;

    cluster.zookeeper.kill();
    for member in &cluster.members {
        disconnected(member).await;
    }
    let other = json!({ "documents": documents(&(cluster.airflow_section() + &yearly("b"))), "force": true });
    for member in [&cluster.members[leader], &cluster.members[1 - leader]] {
        let (status, problem) = put(member, &other).await;
        assert_eq!(status, 503, "{problem}");
        assert_eq!(problem["detail"], "failed to push the definitions: ZooKeeper cannot be reached; nothing was done");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("push again later")), "{problem}");
        let rollback = reqwest::Client::new().post(format!("{}/api/v1/config/rollback", member.url()));
        let answer = rollback.json(&json!({ "version": "1" })).send().await.expect("an answer");
        assert_eq!(answer.status(), 503, "{}", answer.text().await.expect("a body"));
    }
    for member in &cluster.members {
        assert_eq!(version(member).await, before);
        assert!(member.get("config").await.expect("an answer")["refused"].is_null());
    }

    cluster.zookeeper.restart().await;
    assert_eq!(cluster.znode().await, held);
    let audit = cluster.first().json(&["audit"]).await;
    assert_eq!(audit.as_array().map(Vec::len), Some(1), "the first push alone was done: {audit}");
    let end = Instant::now() + PATIENCE;
    while put(cluster.first(), &other).await.0 != 200 {
        assert!(Instant::now() < end, "{}", cluster.first().logged());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.agree(&["b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_main_file_is_told_without_a_new_set_and_without_zookeeper() {
    let cluster = Cluster::start(1).await;
    let member = cluster.first();
    leads(member, true).await;
    let push = async |name: &str| {
        let text = cluster.airflow_section() + &yearly(name);
        put(member, &json!({ "documents": documents(&text), "force": true })).await
    };
    assert_eq!(push("a").await.0, 200);
    cluster.agree(&["a"]).await;
    let main = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&main).expect("the main file");
    let restart = |sections: Value| move |config: &Value| config["restart"] == sections;

    let louder = text.replace("level = \"debug\"", "level = \"trace\"");
    save(&main, &louder);
    let took = until(member, "a section that needs a restart", restart(json!(["log"]))).await;
    println!("a changed main file is told after {took:?}");
    assert!(member.logged().contains("sections of the main file were changed"), "{}", member.logged());

    cluster.zookeeper.kill();
    save(&main, &louder.replace("[store]\n", "[store]\nretention = \"7d\"\n"));
    until(member, "another one, while ZooKeeper is away", restart(json!(["log", "store"]))).await;
    save(&main, &text);
    until(member, "as it was", restart(json!([]))).await;
    cluster.zookeeper.restart().await;

    // A wrong one is told as well. It disturbs nothing by itself, but no set can be judged with it.
    let before = version(member).await;
    save(&main, &text.replace("level = ", "levle = "));
    let end = Instant::now() + PATIENCE;
    while !member.logged().contains("the main file has become wrong") {
        assert!(Instant::now() < end, "{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let config = member.get("config").await.expect("an answer");
    assert_eq!((&config["refused"], &config["in_force"]["version"]), (&Value::Null, &json!(before)), "{config}");
    cluster.set_znode((cluster.airflow_section() + &yearly("b")).as_bytes()).await;
    until(member, "the set is refused with it", |config| !config["refused"].is_null()).await;
    cluster.agree(&["a"]).await;
    save(&main, &text);
    cluster.agree(&["b"]).await;
    assert!(member.get("config").await.expect("an answer")["refused"].is_null());
}
