//! Edits that reach members one after the other, across their leading and their dying.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::fake_airflow::{FakeAirflow, State, World};
use crate::support::process::Member;
use crate::support::team::{PATIENCE, Team, is_ready};
use crate::support::zookeeper::{ZooKeeperServer, create};

fn schedule(name: &str, trigger: &str, more: &str) -> String {
    format!(
        "[[schedule]]\nname = \"{name}\"\n{trigger}\ndag = \"load\"\noverlap = \"allow\"\ncatchup = \"all\"\n{more}\n"
    )
}

/// Due each second.
pub(crate) fn ticking(name: &str) -> String {
    schedule(name, "cron = \"* * * * * *\"", "")
}

fn save(member: &Member, schedules: &str) {
    let directory = member.path().join("schedules");
    std::fs::create_dir_all(&directory).expect("make the directory");
    std::fs::write(directory.join("a.toml"), schedules).expect("write the file");
}

pub(crate) fn of<'r>(runs: &'r [Run], schedule: &str) -> Vec<&'r Run> {
    runs.iter().filter(|run| run.schedule == schedule).collect()
}

/// Ends a member in order and starts it again with other schedules.
async fn again_with(member: &mut Member, schedules: &str) {
    assert_eq!(member.stop().await, Some(0), "{}", member.logged());
    save(member, schedules);
    member.start();
    is_ready(member).await;
}

#[tokio::test]
async fn a_schedule_that_comes_back_while_it_is_paused_does_not_fire() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let airflow = format!(
        "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n",
        fake.url()
    );
    let mut member = Member::new(&airflow);
    member.include_schedules();
    std::fs::write(member.path().join("password"), "admin").expect("write the file");
    let both = ticking("beside") + &ticking("held");
    save(&member, &both);
    member.start();
    member.armed().await;
    member.wait_for_runs("runs of both", |runs| !of(runs, "held").is_empty()).await;
    member.post("schedules/held/pause", &json!({"reason": "an upgrade"})).await;

    // What came due before the gate was closed is recorded.
    let so_far = of(&member.runs().await, "beside").len();
    member.wait_for_runs("a few seconds", |runs| of(runs, "beside").len() >= so_far + 3).await;
    let paused_with = of(&member.runs().await, "held").len();
    for _ in 0..3 {
        // A leader whose file lacks it leaves it where it is.
        again_with(&mut member, &ticking("beside")).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        again_with(&mut member, &both).await;
    }
    let so_far = of(&member.runs().await, "beside").len();
    member.wait_for_runs("some more seconds", |runs| of(runs, "beside").len() >= so_far + 3).await;
    let runs = member.runs().await;
    assert_eq!(of(&runs, "held").len(), paused_with, "{:#?}", of(&runs, "held"));
    let held = member.get("schedules/held").await.expect("the schedule");
    assert_eq!(held["paused"], true, "{held}");
}

/// Replaces a part of the main file of a member that serves, and waits until that is in force.
async fn edit(member: &Member, old: &str, new: &str) {
    let main = member.path().join("flowkeeper.toml");
    let text = std::fs::read_to_string(&main).expect("the configuration");
    assert!(text.contains(old), "{text}");
    let version = async || Some(member.get("config").await?["in_force"]["version"].as_str()?.to_owned());
    let before = version().await.expect("a version");
    std::fs::write(&main, text.replace(old, new)).expect("write the file");
    let end = Instant::now() + PATIENCE;
    while version().await.is_none_or(|now| now == before) {
        assert!(Instant::now() < end, "it is not in force\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How often each second from the first to the last is covered, whatever its schedule was called.
pub(crate) fn seconds(runs: &[Run]) -> BTreeMap<Timestamp, usize> {
    let mut covered = BTreeMap::new();
    for run in runs {
        let nominal = run.nominal_time.expect("a nominal time");
        let mut second = run.from.unwrap_or(nominal);
        while second <= run.to.unwrap_or(nominal) {
            *covered.entry(second).or_default() += 1;
            second += SignedDuration::from_secs(1);
        }
    }
    let (first, last) = (covered.keys().next().copied(), covered.keys().next_back().copied());
    let mut second = first.expect("some");
    while Some(second) < last {
        covered.entry(second).or_default();
        second += SignedDuration::from_secs(1);
    }
    covered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_that_reaches_the_next_leader_later_loses_and_doubles_nothing() {
    let (old, new) = (ticking("old"), ticking("new") + "was = \"old\"\n");
    let mut team = Team::start(2, &old).await;
    let leader = team.leader().await;
    let next = 1 - leader;
    edit(&team.members[leader], &old, &new).await;
    team.members[leader].wait_for_runs("runs under the new name", |runs| of(runs, "new").len() >= 2).await;
    team.members[leader].kill();
    // The next one still has the old file; the new one reaches it while it leads.
    while team.leader().await != next {}
    team.members[next].wait_for_runs("runs of the next leader", |runs| of(runs, "old").len() >= 12).await;
    let states = team.members[next].ledger().await.schedule_states().await.expect("states");
    assert_eq!(states.len(), 1, "{states:#?}");
    edit(&team.members[next], &old, &new).await;
    let so_far = team.members[next].runs().await.len();
    let runs = team.members[next].wait_for_runs("more runs", |runs| runs.len() >= so_far + 3).await;
    assert_eq!(of(&runs, "new").len(), runs.len(), "all of its history goes along");
    let wrong: Vec<_> = seconds(&runs).into_iter().filter(|(_, count)| *count != 1).collect();
    assert!(wrong.is_empty(), "lost or doubled: {wrong:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_that_is_rolled_back_neither_repeats_nor_forgets() {
    let zookeeper = ZooKeeperServer::shared().await;
    let client = zookeeper.client().await;
    let place = format!("/edits-{}", uuid::Uuid::new_v4().simple());
    create(&client, &place, b"").await;
    create(&client, &format!("{place}/in"), b"").await;
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let inbox = |name: &str, more: &str| {
        let trigger = format!("znode = {{ path = \"{place}/in\", watch = \"children\" }}\ninitial = \"fire\"");
        format!("[[schedule]]\nname = \"{name}\"\n{trigger}\ndag = \"load\"\n{more}\n")
    };
    let (old, new) = (inbox("in", ""), inbox("inbox", "was = \"in\""));
    let mut member = Member::new(&format!(
        "[zookeeper]\nconnect = \"{}\"\nroot = \"{place}/root\"\n[airflow.main]\nurl = \"{}\"\n\
         auth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n{old}",
        zookeeper.connect(),
        fake.url()
    ));
    std::fs::write(member.path().join("password"), "admin").expect("write the file");
    member.start();
    member.armed().await;
    for child in ["a", "b", "c"] {
        create(&client, &format!("{place}/in/{child}"), b"").await;
    }
    member.wait_for_runs("a run for each child", |runs| runs.len() == 3).await;

    edit(&member, &old, &new).await;
    member.post("schedules/inbox/pause", &json!({"reason": "an upgrade"})).await;
    edit(&member, &new, &old).await;
    let back = member.get("schedules/in").await.expect("the schedule");
    assert_eq!((&back["paused"], &back["pause"]["reason"]), (&json!(true), &json!("an upgrade")), "{back}");
    create(&client, &format!("{place}/in/d"), b"").await;
    member.post("schedules/in/resume", &json!({})).await;
    // What is new is found, and what was there is not taken for new.
    let runs = member.wait_for_runs("a run for the new child", |runs| runs.len() > 3).await;
    assert_eq!((runs.len(), of(&runs, "in").len()), (4, 4), "{runs:#?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(member.runs().await.len(), 4);
}

#[tokio::test]
async fn a_schedule_that_was_renamed_twice_while_nobody_served_goes_on() {
    let fake = FakeAirflow::start(World::default().with_dags(["load"])).await;
    let mut member = Member::new(&format!(
        "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n",
        fake.url()
    ));
    member.include_schedules();
    std::fs::write(member.path().join("password"), "admin").expect("write the file");
    let quiet = |name: &str, was: &str| schedule(name, "cron = \"0 0 1 1 *\"", was);
    save(&member, &(ticking("old") + &quiet("held", "")));
    member.start();
    member.armed().await;
    member.wait_for_runs("some runs", |runs| of(runs, "old").len() >= 2).await;
    member.post("schedules/held/pause", &json!({"reason": "an upgrade"})).await;

    // Nobody has seen the set with the names in between.
    let newest = ticking("newest") + "was = [\"newer\", \"old\"]\n" + &quiet("kept", "was = [\"hold\", \"held\"]");
    again_with(&mut member, &newest).await;
    member.wait_for_runs("runs under the newest name", |runs| of(runs, "newest").len() >= 6).await;
    let kept = member.get("schedules/kept").await.expect("the schedule");
    assert_eq!((&kept["paused"], &kept["pause"]["reason"]), (&json!(true), &json!("an upgrade")), "{kept}");
    // And back to that set.
    let newer = ticking("newer") + "was = \"old\"\n" + &quiet("hold", "was = \"held\"");
    again_with(&mut member, &newer).await;
    let so_far = member.runs().await.len();
    let runs = member.wait_for_runs("more runs", |runs| runs.len() >= so_far + 3).await;
    assert_eq!(of(&runs, "newer").len(), runs.len(), "all of its history goes along");
    let wrong: Vec<_> = seconds(&runs).into_iter().filter(|(_, count)| *count != 1).collect();
    assert!(wrong.is_empty(), "lost or doubled: {wrong:?}");
    let hold = member.get("schedules/hold").await.expect("the schedule");
    assert_eq!(hold["paused"], true, "{hold}");
}

#[tokio::test]
async fn what_a_pause_holds_back_is_not_let_go_by_a_rename() {
    let fake = FakeAirflow::start(World::default().with_dags(["load", "held"])).await;
    let queueing =
        |name: &str, more: &str| ticking(name).replace("\"allow\"", "\"queue\"").replace("\"load\"", "\"held\"") + more;
    let old = ticking("beside") + &queueing("old", "");
    let new = ticking("beside") + &queueing("new", "was = \"old\"\n");
    let mut member = Member::new(&format!(
        "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"admin\", password = {{ file = \"password\" }} }}\n{old}",
        fake.url()
    ));
    std::fs::write(member.path().join("password"), "admin").expect("write the file");
    member.start();
    member.armed().await;
    let accepted = |runs: &[Run], schedule: &str| {
        of(runs, schedule).into_iter().filter(|run| run.accepted_at.is_some()).cloned().collect::<Vec<_>>()
    };
    let runs = member
        .wait_for_runs("some that wait behind the first", |runs| {
            of(runs, "old").len() >= 3 && accepted(runs, "old").len() == 1
        })
        .await;
    member.post("schedules/old/pause", &json!({"reason": "an upgrade"})).await;
    let end = Instant::now() + PATIENCE;
    while member.get("schedules/old").await.is_none_or(|old| old["armed"] != false) {
        assert!(Instant::now() < end, "its gate is not closed\n{}", member.logged());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nothing but the pause holds the next one back.
    let first = accepted(&runs, "old").remove(0);
    fake.world().set_state("held", &first.dag_run_id, State::Success);
    member.wait_for_run("the first has ended", &first.dag_run_id, |run| run.ended_at.is_some()).await;

    edit(&member, &old, &new).await;
    let so_far = accepted(&member.runs().await, "beside").len();
    let runs = member.wait_for_runs("others go on", |runs| accepted(runs, "beside").len() >= so_far + 2).await;
    assert_eq!(accepted(&runs, "new").len(), 1, "{:#?}", of(&runs, "new"));
    assert_eq!(of(&runs, "old").len(), 0, "all of them have the new name");

    member.post("schedules/new/resume", &json!({})).await;
    let runs = member.wait_for_runs("the next one goes", |runs| accepted(runs, "new").len() == 2).await;
    let next = &accepted(&runs, "new")[1];
    assert!(next.dag_run_id.starts_with("flowkeeper__old__"), "it is what it was: {}", next.dag_run_id);
}
