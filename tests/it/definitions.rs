//! Definitions that are kept in ZooKeeper: pushed, pulled, compared, rolled back, and taken up by members.

mod limits;
mod moved;
mod refused;
mod renamed;

use std::process::Output;
use std::time::{Duration, Instant};

use flowkeeper::config::{Document, version_of};
use serde_json::{Value, json};

use crate::support::fake_airflow::{FakeAirflow, World};
use crate::support::process::Member;
use crate::support::team::{PATIENCE, all_know_the_leader, is_ready};
use crate::support::zookeeper::ZooKeeperServer;

/// Members that share a store, an Airflow and a ZooKeeper which holds their definitions.
pub(crate) struct Cluster {
    pub(crate) zookeeper: ZooKeeperServer,
    pub(crate) airflow: FakeAirflow,
    pub(crate) members: Vec<Member>,
    pub(crate) directory: tempfile::TempDir,
}

const ZNODE: &str = "/flowkeeper/config";

/// A schedule that is not due while a test runs.
pub(crate) fn yearly(name: &str) -> String {
    format!("[[schedule]]\nname = \"{name}\"\ncron = \"0 0 1 1 *\"\ndag = \"tick\"\n")
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        let mut cluster = Self {
            zookeeper: ZooKeeperServer::start().await,
            airflow: FakeAirflow::start(World::default().with_dags(["tick", "load"])).await,
            members: Vec::new(),
            directory: tempfile::tempdir().expect("a directory"),
        };
        for _ in 0..count {
            let mut member = cluster.member();
            member.start();
            is_ready(&member).await;
            cluster.members.push(member);
        }
        all_know_the_leader(&cluster.members).await;
        cluster
    }

    /// A member, not started.
    pub(crate) fn member(&self) -> Member {
        self.member_by_way_of(&self.zookeeper.connect(), "")
    }

    /// One with its own way to ZooKeeper, and more in its main file.
    pub(crate) fn member_by_way_of(&self, zookeeper: &str, more: &str) -> Member {
        let store = format!("sqlite://{}", self.directory.path().join("ledger.db").display());
        let zookeeper = format!("[zookeeper]\nconnect = \"{zookeeper}\"\nsession_timeout = \"4s\"\n{more}");
        let member = Member::sharing(&store, &zookeeper);
        let file = member.path().join("flowkeeper.toml");
        let text = std::fs::read_to_string(&file).expect("the configuration");
        std::fs::write(&file, text.replacen("[server]\n", "[server]\ndefinitions = \"zookeeper\"\n", 1))
            .expect("written");
        member
    }

    pub(crate) fn airflow_section(&self) -> String {
        format!("[airflow.main]\nurl = \"{}\"\n", self.airflow.url())
    }

    /// Writes definitions with these schedules to a file of this name; its path.
    pub(crate) fn write(&self, file: &str, schedules: &str) -> String {
        let path = self.directory.path().join(file);
        std::fs::write(&path, self.airflow_section() + schedules).expect("written");
        path.display().to_string()
    }

    pub(crate) fn first(&self) -> &Member {
        &self.members[0]
    }

    /// Waits until every member has exactly these schedules; how long that took.
    pub(crate) async fn agree(&self, names: &[&str]) -> Duration {
        let began = Instant::now();
        for member in &self.members {
            loop {
                let found = schedules(member).await;
                if found.as_deref().is_some_and(|found| found == names) {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{names:?} expected, {found:?} found\n{}", member.logged());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        began.elapsed()
    }

    /// How many runs the ledger has.
    async fn runs(&self) -> usize {
        self.first().runs().await.len()
    }

    /// What the znode holds.
    pub(crate) async fn znode(&self) -> Option<Vec<u8>> {
        let client = self.zookeeper.client().await;
        client.get_data(ZNODE).await.ok().map(|(data, _)| data)
    }

    pub(crate) async fn set_znode(&self, data: &[u8]) {
        self.zookeeper.client().await.set_data(ZNODE, data, None).await.expect("the znode is set");
    }
}

/// The names of a member's schedules, in order.
async fn schedules(member: &Member) -> Option<Vec<String>> {
    let list = member.get("schedules?limit=1000").await?;
    let mut names: Vec<_> =
        list["items"].as_array()?.iter().filter_map(|item| item["name"].as_str().map(ToOwned::to_owned)).collect();
    names.sort_unstable();
    Some(names)
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The version that a set of one file has.
pub(crate) fn version(text: &str) -> String {
    version_of(&[Document { name: String::new(), text: text.to_owned() }])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_are_pushed_compared_pulled_and_rolled_back() {
    let cluster = Cluster::start(2).await;
    assert!(cluster.first().logged().contains("config push FILE"), "{}", cluster.first().logged());
    let file = cluster.write("d.toml", &(yearly("a") + &yearly("b")));
    let pushed = cluster.first().json(&["config", "push", &file, "-m", "the first"]).await;
    assert_eq!(
        (&pushed["changed"], &pushed["previous_version"], &pushed["schedules"]),
        (&json!(true), &json!(null), &json!(2))
    );
    // The command ends when all have it.
    assert_eq!(pushed["members"]["in_force"].as_array().map(Vec::len), Some(2), "{pushed}");
    assert_eq!((&pushed["members"]["refusing"], &pushed["members"]["waiting"]), (&json!([]), &json!([])));
    cluster.agree(&["a", "b"]).await;
    let first = pushed["version"].as_str().expect("a version").to_owned();

    // The same again is no news. Another one says what it takes the place of, whoever pushed that.
    let again = cluster.first().json(&["config", "push", &file]).await;
    assert_eq!((&again["changed"], &again["version"]), (&json!(false), &json!(first)));
    let changed = yearly("a").replace("tick", "tock") + &yearly("c");
    let file = cluster.write("d.toml", &changed);
    let diff = cluster.first().json(&["config", "diff", &file]).await;
    let told: Vec<_> =
        diff.as_array().expect("a list").iter().map(|change| (&change["change"], &change["name"])).collect();
    let (added, removed, changed) = (json!("added"), json!("removed"), json!("changed"));
    assert_eq!(told, [(&added, &json!("c")), (&removed, &json!("b")), (&changed, &json!("a"))]);
    assert!(diff[0]["hint"].as_str().is_some_and(|hint| hint.contains("was = \"b\"")), "{diff}");
    assert_eq!(diff[2]["keys"], json!([{ "key": "dag", "old": "\"tick\"", "new": "\"tock\"" }]));
    let unseen = cluster.first().run(&["config", "push", &file]).await;
    assert_eq!(unseen.status.code(), Some(1), "{}", said(&unseen));
    assert!(said(&unseen).contains(&format!("--base {first}")), "{}", said(&unseen));
    let pushed = cluster.first().json(&["config", "push", &file, "--base", &first]).await;
    assert_eq!(pushed["previous_version"], json!(first));
    let second = pushed["version"].as_str().expect("a version").to_owned();
    cluster.agree(&["a", "c"]).await;

    let history = cluster.first().json(&["config", "history"]).await;
    let told: Vec<_> =
        history.as_array().expect("a list").iter().map(|entry| (&entry["number"], &entry["message"])).collect();
    assert_eq!(told, [(&json!(2), &json!(null)), (&json!(1), &json!("the first"))]);
    let text = cluster.first().run(&["config", "history", "1"]).await;
    assert_eq!(String::from_utf8_lossy(&text.stdout), cluster.airflow_section() + &yearly("a") + &yearly("b"));

    // Who has looked at another version is told, and so is who asks the API and says nothing.
    let stale = cluster.first().run(&["config", "rollback", "1", "--base", &first]).await;
    assert_eq!(stale.status.code(), Some(1), "{}", said(&stale));
    assert!(said(&stale).contains(&second) && said(&stale).contains("you began with"), "{}", said(&stale));
    let url = format!("{}/api/v1/config/rollback", cluster.first().url());
    let blind = reqwest::Client::new().post(url).json(&json!({ "version": "1" })).send().await.expect("an answer");
    assert_eq!(blind.status().as_u16(), 409);
    cluster.agree(&["a", "c"]).await;
    let back = cluster.first().json(&["config", "rollback", "1"]).await;
    assert_eq!((&back["version"], &back["changed"]), (&json!(first), &json!(true)));
    cluster.agree(&["a", "b"]).await;
    let audit = cluster.first().json(&["audit"]).await;
    let actions: Vec<_> = audit.as_array().expect("a list").iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, [json!("config rollback"), json!("config push"), json!("config push")]);

    // What is pulled says what it is, and is pushed as it was.
    let pulled = cluster.directory.path().join("mine.toml").display().to_string();
    assert!(cluster.first().run(&["config", "pull", &pulled]).await.status.success());
    let text = std::fs::read_to_string(&pulled).expect("a file");
    assert!(text.starts_with(&format!("# flowkeeper version {first}")), "{text}");
    let same = cluster.first().json(&["config", "push", &pulled]).await;
    assert_eq!(same["changed"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_push_at_once_one_is_told() {
    let cluster = Cluster::start(1).await;
    let file = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &file]).await;
    cluster.agree(&["a"]).await;
    for name in ["alice", "bob"] {
        let mine = cluster.directory.path().join(format!("{name}.toml"));
        assert!(cluster.first().run(&["config", "pull", &mine.display().to_string()]).await.status.success());
        let text = std::fs::read_to_string(&mine).expect("a file");
        std::fs::write(&mine, text + &yearly(name)).expect("written");
    }
    let path = |name: &str| cluster.directory.path().join(format!("{name}.toml")).display().to_string();
    let (alices, bobs) = (path("alice"), path("bob"));
    let (hers, his) = (["config", "push", &alices], ["config", "push", &bobs]);
    let (one, other) = tokio::join!(cluster.first().run(&hers), cluster.first().run(&his));
    let (won, lost, losers) = if one.status.success() { ("alice", other, bobs) } else { ("bob", one, alices) };
    assert_eq!(lost.status.code(), Some(1), "{}", said(&lost));
    assert!(
        said(&lost).contains("failed to push the definitions") && said(&lost).contains("hint: "),
        "{}",
        said(&lost)
    );
    cluster.agree(&["a", won]).await;

    // The file of the winner says its new version; that of the loser still the one before.
    let once_more = cluster.first().run(&["config", "push", &losers]).await;
    let told = said(&once_more);
    assert!(told.contains("you began with") && told.contains("config diff --from"), "{told}");
    let base = told.split("--from ").nth(1).and_then(|rest| rest.split('`').next()).expect("a version").to_owned();
    let since = cluster.first().json(&["config", "diff", "--from", &base]).await;
    assert_eq!((&since[0]["change"], &since[0]["name"]), (&json!("added"), &json!(won)));
    let forced = cluster.first().json(&["config", "push", &losers, "--force"]).await;
    assert_eq!(forced["changed"], true);
    let expected = if won == "alice" { "bob" } else { "alice" };
    cluster.agree(&["a", expected]).await;

    // Another author without a base is told what to look at.
    let body = json!({ "documents": [{ "name": "d.toml", "text": cluster.airflow_section() }], "author": "eve@cafe" });
    let (status, problem) = put(cluster.first(), &body).await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("--base")), "{problem}");
}

pub(crate) async fn put(member: &Member, body: &Value) -> (u16, Value) {
    let request = reqwest::Client::new().put(format!("{}/api/v1/config/definitions", member.url())).json(body);
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_repeated_is_done_once() {
    let cluster = Cluster::start(1).await;
    let set = |schedules: &str| json!([{ "name": "d.toml", "text": cluster.airflow_section() + schedules }]);
    let push = |push: &str, schedules: &str| json!({ "documents": set(schedules), "push": push, "author": "a@b" });
    let (_, first) = put(cluster.first(), &push("one", &yearly("a"))).await;
    let (_, again) = put(cluster.first(), &push("one", &yearly("a"))).await;
    assert_eq!((&first["changed"], &again["changed"]), (&json!(true), &json!(false)));
    assert_eq!(first["zookeeper_version"], again["zookeeper_version"]);
    cluster.agree(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_set_is_refused_before_it_is_written_and_after() {
    let cluster = Cluster::start(2).await;
    let file = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &file]).await;
    cluster.agree(&["a"]).await;
    let before = cluster.znode().await.expect("definitions");

    let wrong = yearly("b").replace("0 0 1 1 *", "61 * * * *");
    let file = cluster.write("wrong.toml", &wrong);
    let refused = cluster.first().run(&["config", "push", &file]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains(&format!("{file}:5:")) && said(&refused).contains("61"), "{}", said(&refused));
    // The member says the same to who does not ask the command.
    let body = json!({ "documents": [{ "name": "x.toml", "text": wrong }], "force": true });
    let (status, problem) = put(cluster.first(), &body).await;
    assert_eq!((status, &problem["faults"][0]["file"]), (422, &json!("x.toml")), "{problem}");
    // Nothing at all is more likely a file that could not be written.
    for documents in [json!([]), json!([{ "name": "x.toml", "text": " \n" }])] {
        let (status, problem) = put(cluster.first(), &json!({ "documents": documents, "force": true })).await;
        assert!(status == 422 && problem["detail"].as_str().is_some_and(|said| said.contains("nothing in them")));
    }
    assert_eq!(cluster.znode().await.as_ref(), Some(&before));

    // Past the command and the member: whatever the znode holds, what was in force stays.
    for rubbish in [&b"\xff\xfe"[..], b"{ \"schedule\": [] }", b"[[schedule]]\nname = 7\n", b""] {
        let logged = cluster.first().logged().len();
        cluster.set_znode(rubbish).await;
        let end = Instant::now() + PATIENCE;
        while !cluster.first().logged()[logged..].contains("refused") {
            assert!(Instant::now() < end, "{rubbish:?} is not refused\n{}", cluster.first().logged());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.agree(&["a"]).await;
        cluster.set_znode(&before).await;
        cluster.agree(&["a"]).await;
    }
    cluster.zookeeper.client().await.delete(ZNODE, None).await.expect("the znode is deleted");
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.agree(&["a"]).await;
    cluster.first().json(&["config", "rollback", &version(&(cluster.airflow_section() + &yearly("a")))]).await;
    assert!(cluster.znode().await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_text_in_the_znode_is_a_set() {
    let cluster = Cluster::start(1).await;
    let file = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &file]).await;
    cluster.agree(&["a"]).await;
    // Within a second, but for a machine that is busy with other tests.
    let mut took = Vec::new();
    while took.last().is_none_or(|took| *took >= Duration::from_secs(1)) {
        assert!(took.len() < 16, "in force within a second: {took:?}");
        let name = format!("by-hand-{}", took.len());
        cluster.set_znode((cluster.airflow_section() + &yearly(&name)).as_bytes()).await;
        took.push(cluster.agree(&[&name]).await);
    }
    println!("in force after {took:?}");
    let pulled = cluster.first().run(&["config", "pull", "-"]).await;
    assert!(String::from_utf8_lossy(&pulled.stdout).contains("by-hand"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_larger_than_a_znode_is_taken_up_and_leaves_nothing_behind() {
    let cluster = Cluster::start(1).await;
    let many = |dag: &str| -> String {
        (0..10_000)
            .map(|n| {
                format!(
                    "[[schedule]]\nname = \"s{n}\"\ncron = \"0 0 1 1 *\"\ndag = \"{dag}\"\nconf = {{ text = \"{}\" }}\n\n",
                    "x".repeat(150)
                )
            })
            .collect::<Vec<_>>()
            .concat()
    };
    let count = async || {
        let history = cluster.first().json(&["config", "history"]).await;
        history[0]["schedules"].as_i64().unwrap_or_default()
    };
    let file = cluster.write("d.toml", &many("tick"));
    assert!(std::fs::metadata(&file).expect("a file").len() > 2_000_000);
    let began = Instant::now();
    cluster.first().json(&["config", "push", &file]).await;
    let pushed = began.elapsed();
    let end = Instant::now() + PATIENCE;
    while count().await != 10_000 {
        assert!(Instant::now() < end, "{}", cluster.first().logged());
    }
    eprintln!("10,000 schedules: pushed in {pushed:?}, in force {:?} after the command began", began.elapsed());
    let parts = async || {
        let client = cluster.zookeeper.client().await;
        let mut parts = client.list_children("/flowkeeper/config/parts").await.expect("parts");
        parts.sort_unstable();
        parts
    };
    assert!(parts().await.len() >= 3);
    let pulled = cluster.first().run(&["config", "pull", "-"]).await;
    assert!(String::from_utf8_lossy(&pulled.stdout).contains("name = \"s9999\""));
    // A small one after it stands in the znode itself.
    let small = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &small, "--force"]).await;
    cluster.agree(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_starts_while_zookeeper_is_away_goes_by_the_last_set_in_force() {
    let mut cluster = Cluster::start(1).await;
    let file = cluster.write("d.toml", &yearly("a"));
    cluster.first().json(&["config", "push", &file]).await;
    cluster.agree(&["a"]).await;
    let end = Instant::now() + PATIENCE;
    while cluster.first().json(&["config", "history"]).await == json!([]) {
        assert!(Instant::now() < end, "it is not in the history");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.members[0].kill();
    cluster.zookeeper.kill();
    cluster.members[0].start();
    cluster.agree(&["a"]).await;
    // What was in force is what commands go by as well.
    let next = cluster.first().json(&["next", "a", "-n", "1"]).await;
    assert_eq!(next.as_array().map(Vec::len), Some(1));
    let refused = cluster.first().run(&["config", "push", &file]).await;
    assert_ne!(refused.status.code(), Some(0), "{}", said(&refused));
    cluster.zookeeper.restart().await;
    let file = cluster.write("d.toml", &(yearly("a") + &yearly("b")));
    let end = Instant::now() + PATIENCE;
    while !cluster.first().run(&["config", "push", &file, "--force"]).await.status.success() {
        assert!(Instant::now() < end, "{}", cluster.first().logged());
    }
    cluster.agree(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_in_files_are_not_pushed() {
    let member = Member::new("[airflow.main]\nurl = \"http://127.0.0.1:9\"\n");
    let file = member.path().join("d.toml");
    std::fs::write(&file, "").expect("written");
    for arguments in
        [&["config", "push", file.to_str().expect("a path")][..], &["config", "rollback", "1"], &["config", "pull"]]
    {
        let refused = member.run(arguments).await;
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(
            said(&refused).contains("definitions = \"file\"") && said(&refused).contains("hint: "),
            "{}",
            said(&refused)
        );
    }
}
