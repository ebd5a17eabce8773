//! Locks that runs own, with the real binary and a real ZooKeeper: what holds one is alone in Airflow,
//! through kills, restarts and pauses.

use std::sync::Arc;
use std::time::Duration;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use serde_json::json;
use zookeeper_client::{Client, CreateMode};

use crate::support::fake_airflow::{FakeAirflow, State, World};
use crate::support::process::Member;
use crate::support::world::wait_for;
use crate::support::zookeeper::{ZooKeeperServer, create, delete};

/// The lock of the schedules under test.
const LOCK: &str = "/flowkeeper/locks/warehouse";

struct Story {
    zookeeper: ZooKeeperServer,
    fake: Arc<FakeAirflow>,
    client: Client,
    member: Member,
}

impl Story {
    /// Serves `load` and `vacuum`, which share a lock, and `free`, which has none.
    async fn begin() -> Self {
        let zookeeper = ZooKeeperServer::start().await;
        let fake = Arc::new(FakeAirflow::start(World::default().with_dags(["load", "vacuum", "free"])).await);
        let client = zookeeper.client().await;
        let mut config = format!(
            "[zookeeper]\nconnect = \"{}\"\nsession_timeout = \"4s\"\n[airflow.main]\nurl = \"{}\"\n\
             auth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\nin_flight = 2\n",
            zookeeper.connect(),
            fake.url()
        );
        for (name, lock) in [("load", "lock = \"warehouse\""), ("vacuum", "lock = \"warehouse\""), ("free", "")] {
            let parts = ["[[schedule]]\nname = \"", name, "\"\ncron = \"0 0 1 1 *\"\ndag = \"", name, "\"\n", lock];
            config += &[&parts.concat(), "\noverlap = \"allow\"\n"].concat();
        }
        let mut member = Member::new(&config);
        std::fs::write(member.path().join("password"), "admin").expect("a password");
        member.start();
        member.armed().await;
        Self { zookeeper, fake, client, member }
    }

    async fn trigger(&self, schedule: &str, key: &str) -> i64 {
        let run = self.member.post(&format!("schedules/{schedule}/trigger"), &json!({ "key": key })).await;
        run["id"].as_i64().expect("a number")
    }

    /// The names of those that queue for the lock, first come first.
    async fn queue(&self) -> Vec<String> {
        let mut names = self.client.list_children(LOCK).await.unwrap_or_default();
        names.sort_by_key(|name| name[name.len() - 10..].to_owned());
        names
    }

    /// The runs that queue, by their numbers; 0 for others.
    async fn queue_of_runs(&self) -> Vec<i64> {
        let mut runs = Vec::new();
        for name in self.queue().await {
            let Ok((data, _)) = self.client.get_data(&format!("{LOCK}/{name}")).await else { continue };
            let data: serde_json::Value = serde_json::from_slice(&data).unwrap_or_default();
            runs.push(data["run"].as_i64().unwrap_or_default());
        }
        runs
    }

    async fn queue_is(&self, expected: &[i64]) {
        let seen = std::sync::Mutex::new(Vec::new());
        let ask = || async {
            let runs = self.queue_of_runs().await;
            let good = runs == expected;
            *seen.lock().expect("not poisoned") = runs;
            good.then_some(())
        };
        wait_for(ask, || format!("the queue is {seen:?} and not {expected:?}\n{}", self.member.logged())).await;
    }

    async fn states(&self, what: &str, expected: &[RunState]) -> Vec<Run> {
        self.member.wait_for_runs(what, |runs| runs.iter().map(|run| run.state).collect::<Vec<_>>() == expected).await
    }

    fn end(&self, run: &Run) {
        self.fake.world().set_state(&run.dag_id, &run.dag_run_id, State::Success);
    }

    /// Somebody else queues for the lock.
    async fn foreign(&self, prefix: &str) -> String {
        let anybody = zookeeper_client::Acls::anyone_all();
        for (end, _) in LOCK.match_indices('/').skip(1).chain([(LOCK.len(), "")]) {
            // It may be there already.
            let _ = self.client.create(&LOCK[..end], b"", &CreateMode::Persistent.with_acls(anybody)).await;
        }
        let options = CreateMode::PersistentSequential.with_acls(anybody);
        let (_, number) = self.client.create(&format!("{LOCK}/{prefix}"), b"", &options).await.expect("it queues");
        format!("{LOCK}/{prefix}{number}")
    }

    /// No two DAG runs of those with the lock were in Airflow at the same time.
    fn nobody_overlapped(&self) {
        let world = self.fake.world();
        let mut spans: Vec<_> = world
            .runs()
            .iter()
            .filter(|run| run.dag_id != "free")
            .map(|run| (run.queued_at, run.ended_at.expect("it has ended"), run.dag_run_id.clone()))
            .collect();
        spans.sort();
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{} and {} overlap: {spans:#?}", pair[0].2, pair[1].2);
        }
    }
}

use RunState::{Pending, Queued, Skipped, Success};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedules_with_one_lock_never_overlap_whatever_fails_meanwhile() {
    let mut story = Story::begin().await;
    for key in 0..5 {
        story.trigger("load", &format!("l{key}")).await;
        story.trigger("vacuum", &format!("v{key}")).await;
    }
    story.queue_is(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).await;
    // More wait for the lock than Airflow takes requests, and others go all the same.
    let free = story.trigger("free", "f").await;
    story
        .member
        .wait_for_runs("a run without a lock goes", |runs| runs.last().is_some_and(|run| run.state == Queued))
        .await;
    let waiting = story.member.history("flowkeeper__vacuum__mv0").await;
    assert_eq!(waiting.reason.as_deref(), Some("waits for the lock `warehouse`, which run 1 holds"));
    assert_eq!((waiting.state, free), (Pending, 11));

    let fake = Arc::clone(&story.fake);
    let moving = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            fake.world().advance();
        }
    });
    let over = |count: usize| move |runs: &[Run]| runs.iter().filter(|run| run.state == Success).count() >= count;
    story.member.wait_for_runs("the first have ended", over(2)).await;
    // SIGKILL while a run holds the lock, or just after.
    story.member.kill();
    tokio::time::sleep(Duration::from_millis(700)).await;
    story.member.start();
    story.member.wait_for_runs("others have ended", over(4)).await;
    story.zookeeper.restart().await;
    story.member.wait_for_runs("others have ended", over(6)).await;
    // Frozen for longer than the session lives.
    story.zookeeper.freeze(true);
    tokio::time::sleep(Duration::from_secs(7)).await;
    story.zookeeper.freeze(false);
    story.member.wait_for_runs("others have ended", over(8)).await;
    story.member.kill();
    story.member.start();
    let runs = story.member.wait_for_runs("all have ended", over(11)).await;
    moving.abort();
    story.nobody_overlapped();
    assert_eq!(story.fake.world().runs().len(), 11, "each run is one DAG run");
    let mut accepted: Vec<_> = runs.iter().filter(|run| run.id.0 <= 10).collect();
    accepted.sort_by_key(|run| run.accepted_at);
    let order: Vec<_> = accepted.iter().map(|run| run.id.0).collect();
    assert_eq!(order, (1..=10).collect::<Vec<_>>(), "first come first");
    story.client = story.zookeeper.client().await;
    story.queue_is(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_the_process_and_what_nobody_needs_is_removed_by_the_next_leader() {
    let mut story = Story::begin().await;
    story.trigger("load", "a").await;
    story.trigger("vacuum", "b").await;
    let runs = story.states("one goes", &[Queued, Pending]).await;
    story.queue_is(&[1, 2]).await;
    let before = story.queue().await;
    story.member.kill();
    // While nobody serves: the queue stands, and somebody else stands behind it.
    let foreign = story.foreign("_c_0a1b2c3d-0000-4000-8000-000000000001-lock-").await;
    // Znodes of ours without an open row, in this lock and in one that no run owns any more.
    let ours = before[0].rsplit_once('-').expect("a number").0.replace("000000000001-lock", "00000000ffff-lock");
    create(&story.client, &format!("{LOCK}/{ours}-0000000098"), b"").await;
    create(&story.client, "/flowkeeper/locks/other", b"").await;
    create(&story.client, &format!("/flowkeeper/locks/other/{ours}-0000000000"), b"").await;
    create(&story.client, "/flowkeeper/locks/other/notes", b"").await;
    story.member.start();
    story.member.armed().await;
    wait_for(
        || async {
            let left = story.client.list_children("/flowkeeper/locks/other").await.expect("the lock");
            (left == ["notes"] && story.queue().await.len() == 3).then_some(())
        },
        || "what is ours and not needed is not removed".to_owned(),
    )
    .await;
    assert_eq!(story.queue().await[..2], before[..], "the runs keep their znodes");
    story.states("nothing has moved", &[Queued, Pending]).await;
    story.end(&runs[0]);
    story.states("the next one goes", &[Success, Queued]).await;
    story.queue_is(&[2, 0]).await;
    story.end(&runs[1]);
    story.queue_is(&[0]).await;
    // Now somebody else holds it.
    story.trigger("load", "c").await;
    let runs = story.states("it waits", &[Success, Success, Pending]).await;
    story.queue_is(&[0, 3]).await;
    // The command reads ZooKeeper itself, the API asks its own session.
    let told = story.member.json(&["locks"]).await;
    assert_eq!(story.member.get("locks").await.expect("an answer")["items"], told);
    let shown: Vec<_> = told.as_array().expect("a list").iter().map(|lock| (&lock["state"], &lock["run"])).collect();
    assert_eq!(shown, [(&json!("held"), &json!(null)), (&json!("waiting"), &json!(3))], "{told}");
    assert_eq!(told[1]["dag_run_id"], "flowkeeper__load__mc");
    let run = story.member.history(&runs[2].dag_run_id).await;
    assert!(run.reason.is_some_and(|reason| reason.contains("`flowkeeper locks` tells who holds it")));
    delete(&story.client, &foreign).await;
    story.states("it goes", &[Success, Success, Queued]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_end_in_whichever_way_give_their_lock_back() {
    let story = Story::begin().await;
    for key in ["a", "b", "c", "d", "e"] {
        story.trigger("load", key).await;
    }
    story.queue_is(&[1, 2, 3, 4, 5]).await;
    let cancel = async |id: i64| story.member.post(&format!("runs/{id}/cancel"), &json!({})).await;
    cancel(2).await;
    story.queue_is(&[1, 3, 4, 5]).await;
    // Set failed in Airflow.
    story.states("the first is there", &[Queued, Skipped, Pending, Pending, Pending]).await;
    cancel(1).await;
    story.queue_is(&[3, 4, 5]).await;
    // Deleted in Airflow.
    let runs = story.member.wait_for_runs("the third is there", |runs| runs[2].state == Queued).await;
    story.fake.world().delete_run("load", &runs[2].dag_run_id);
    story.member.wait_for_runs("it is missed", |runs| runs[2].state == RunState::Removed).await;
    story.queue_is(&[4, 5]).await;
    let runs = story.member.wait_for_runs("the fourth is there", |runs| runs[3].state == Queued).await;
    story.end(&runs[3]);
    story.queue_is(&[5]).await;
    let runs = story.member.wait_for_runs("the fifth is there", |runs| runs[4].state == Queued).await;
    // Cleared after its end: Airflow runs it again, so it stands in the queue again, behind whoever has come.
    story.end(&runs[4]);
    story.queue_is(&[]).await;
    story.fake.world().set_state("load", &runs[4].dag_run_id, State::Running);
    story.queue_is(&[5]).await;
    story.trigger("vacuum", "f").await;
    story.queue_is(&[5, 6]).await;
    story.end(&runs[4]);
    story.member.wait_for_runs("the last goes", |runs| runs[5].state == Queued).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_gives_the_place_in_the_queue_back_and_a_paused_dag_gets_no_run_that_holds_a_lock() {
    let story = Story::begin().await;
    let foreign = story.foreign("somebody-").await;
    story.trigger("load", "a").await;
    story.trigger("vacuum", "b").await;
    story.queue_is(&[0, 1, 2]).await;
    // Runs by hand go through a pause of the schedule; not to a paused DAG.
    story.fake.world().dags.get_mut("load").expect("the DAG").is_paused = true;
    story.queue_is(&[0, 2]).await;
    let run = story.member.history("flowkeeper__load__ma").await;
    assert_eq!((run.state, run.lock.expect("a lock").asked_at), (Pending, None));
    delete(&story.client, &foreign).await;
    let runs = story.states("the one whose DAG goes on", &[Pending, Queued]).await;
    story.end(&runs[1]);
    story.queue_is(&[]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(story.fake.world().run("load", &runs[0].dag_run_id).is_none());
    story.fake.world().dags.get_mut("load").expect("the DAG").is_paused = false;
    story.states("it queues anew and goes", &[Queued, Success]).await;
    story.queue_is(&[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_zookeeper_nobody_is_granted_a_lock_and_what_is_owed_is_done_later() {
    let mut story = Story::begin().await;
    story.trigger("load", "a").await;
    let runs = story.states("it holds the lock", &[Queued]).await;
    story.zookeeper.kill();
    story.trigger("vacuum", "b").await;
    story.trigger("free", "c").await;
    story.states("others go on", &[Queued, Pending, Queued]).await;
    story.end(&runs[0]);
    story.states("it has ended", &[Success, Pending, Queued]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    story.states("nobody is granted the lock", &[Success, Pending, Queued]).await;
    let waiting = story.member.history("flowkeeper__vacuum__mb").await;
    assert!(waiting.reason.is_some_and(|reason| reason.starts_with("waits for the lock")));
    story.zookeeper.restart().await;
    story.client = story.zookeeper.client().await;
    story.states("then it is given back, and granted", &[Success, Queued, Queued]).await;
    story.queue_is(&[2]).await;
    // Everything is lost there: what holds a lock gets its znode again, before those that wait.
    story.trigger("load", "d").await;
    story.queue_is(&[2, 4]).await;
    story.zookeeper.wipe().await;
    story.client = story.zookeeper.client().await;
    story.queue_is(&[2, 4]).await;
}
