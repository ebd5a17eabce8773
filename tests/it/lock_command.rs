//! `flowkeeper lock`: the command's exit code, its signals and streams, and its end when the lock is lost.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use zookeeper_client::Client;

use crate::support::process::Member;
use crate::support::proxy::Proxy;
use crate::support::world::{PATIENCE, wait_for};
use crate::support::zookeeper::{ZooKeeperServer, delete};

/// What tests lock.
const LOCK: &str = "/jobs/reindex";

/// Longer than any test: what ends sooner was ended.
const FOR_EVER: &str = "900";

/// A configuration whose ensemble is at `connect`, and its directory.
fn configured(connect: &str) -> Member {
    configured_for("4s", connect)
}

/// The same with sessions that end after this time of silence.
fn configured_for(session_timeout: &str, connect: &str) -> Member {
    Member::new(&format!("[zookeeper]\nconnect = \"{connect}\"\nsession_timeout = \"{session_timeout}\"\n"))
}

fn lock(member: &Member, options: &[&str], path: &str, command: &[&str]) -> Command {
    member.command(&[&["lock"], options, &[path, "--"], command].concat())
}

async fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().expect("run flowkeeper")).await.expect("it is waited for")
}

async fn code(command: Command) -> Option<i32> {
    output(command).await.status.code()
}

async fn ended(mut child: Child) -> Option<i32> {
    tokio::task::spawn_blocking(move || child.wait().expect("it is waited for").code()).await.expect("it is waited for")
}

fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("run flowkeeper")
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().expect("run kill");
    assert!(sent.success());
}

async fn contenders(client: &Client, lock: &str, count: usize) -> Vec<String> {
    let ask = || async {
        let mut names = client.list_children(lock).await.unwrap_or_default();
        names.sort_by_key(|name| name[name.len() - 10..].to_owned());
        (names.len() == count).then_some(names)
    };
    wait_for(ask, || format!("there are not {count} that queue")).await
}

async fn written(file: &PathBuf) -> String {
    let ask = || async { std::fs::read_to_string(file).ok().filter(|text| !text.is_empty()) };
    wait_for(ask, || format!("nothing is written to {}", file.display())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_is_the_commands_and_failures_of_our_own_can_be_told_apart() {
    let zookeeper = ZooKeeperServer::shared().await;
    let member = configured(&zookeeper.connect());
    let run = async |path: &str, command: &[&str]| code(lock(&member, &[], path, command)).await;
    for (command, expected) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 143),
        (&["/no/such/command"], 127),
        (&["/etc/passwd"], 126),
    ] {
        assert_eq!(run("codes", command).await, Some(expected), "{command:?}");
    }
    assert_eq!(run("/a//b", &["true"]).await, Some(125), "no path");
    let output = output(lock(&member, &[], "codes", &["sh", "-c", "echo $FLOWKEEPER_LOCK"])).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/flowkeeper/locks/codes\n", "and nothing else");
    // Somebody holds it.
    let file = member.path().join("held");
    // It keeps its session, however busy this machine is.
    let patient = configured_for("40s", &zookeeper.connect());
    let hold = format!("touch {}; echo held > {0}; sleep {FOR_EVER}", file.display());
    let mut holder = start(lock(&patient, &[], "codes", &["sh", "-c", &hold]));
    written(&file).await;
    assert_eq!(code(lock(&member, &["--no-wait"], "codes", &["true"])).await, Some(124));
    let begun = Instant::now();
    assert_eq!(code(lock(&member, &["--timeout", "1s"], "codes", &["true"])).await, Some(124));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    // Interrupted while it waits, it leaves the queue.
    let (client, queue) = (zookeeper.client().await, "/flowkeeper/locks/codes");
    contenders(&client, queue, 1).await;
    let waiting = start(lock(&member, &[], "codes", &["true"]));
    contenders(&client, queue, 2).await;
    signal(&waiting, "INT");
    assert_eq!(ended(waiting).await, Some(130));
    signal(&holder, "TERM");
    assert_eq!(holder.wait().expect("it is waited for").code(), Some(143), "passed on, and its end passed back");
    assert_eq!(run("codes", &["true"]).await, Some(0), "it was given back at once");
    let nowhere = Member::new("");
    assert_eq!(code(lock(&nowhere, &[], "codes", &["true"])).await, Some(125), "no home ensemble");
    assert_eq!(code(lock(&configured("127.0.0.1:1"), &[], "codes", &["true"])).await, Some(125), "no ZooKeeper");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_signals_are_the_commands() {
    let zookeeper = ZooKeeperServer::shared().await;
    let member = configured(&zookeeper.connect());
    let mut command = lock(&member, &[], "streams", &["sh", "-c", "cat; echo told >&2; exit 3"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run flowkeeper");
    child.stdin.take().expect("its input").write_all(b"one\ntwo\n").expect("write to it");
    let output =
        tokio::task::spawn_blocking(move || child.wait_with_output().expect("its output")).await.expect("it ends");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"one\ntwo\n"[..], &b"told\n"[..]));
    assert_eq!(output.status.code(), Some(3));
    for (name, number) in [("HUP", 41), ("USR1", 42), ("TERM", 43)] {
        let file = member.path().join(name);
        let script =
            format!("trap 'exit {number}' {name}; echo ready > {}; while :; do sleep 0.1; done", file.display());
        let child = start(lock(&member, &[], "streams", &["sh", "-c", &script]));
        written(&file).await;
        signal(&child, name);
        assert_eq!(ended(child).await, Some(number), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_want_it_one_runs_at_a_time() {
    let zookeeper = ZooKeeperServer::shared().await;
    let member = configured(&zookeeper.connect());
    let file = member.path().join("log");
    let script = format!("echo begin >> {0}; sleep 0.2; echo end >> {0}", file.display());
    let children: Vec<_> = (0..8).map(|_| start(lock(&member, &[], "crowd", &["sh", "-c", &script]))).collect();
    for child in children {
        assert_eq!(ended(child).await, Some(0));
    }
    assert_eq!(std::fs::read_to_string(&file).expect("the log"), "begin\nend\n".repeat(8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_lock_is_deleted_ends_with_everything_that_it_started() {
    let zookeeper = ZooKeeperServer::start().await;
    let (member, client) = (configured(&zookeeper.connect()), zookeeper.client().await);
    let file = member.path().join("pids");
    // It listens to nobody, and neither does what it started.
    let script = format!(
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {}; sleep {FOR_EVER}' & wait; sleep {FOR_EVER}",
        file.display()
    );
    let child = start(lock(&member, &["--grace", "1s"], LOCK, &["sh", "-c", &script]));
    let inner = written(&file).await;
    let own = contenders(&client, LOCK, 1).await;
    let begun = Instant::now();
    delete(&client, &format!("{LOCK}/{}", own[0])).await;
    assert_eq!(ended(child).await, Some(123));
    assert!(begun.elapsed() >= Duration::from_secs(1), "it has its grace: {:?}", begun.elapsed());
    wait_for(
        || async { (!PathBuf::from(format!("/proc/{}", inner.trim())).exists()).then_some(()) },
        || "what the command had started still runs".to_owned(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_cut_costs_nothing_and_a_long_one_ends_the_command_before_another_can_begin() {
    let zookeeper = ZooKeeperServer::start().await;
    let proxy = Proxy::start(&zookeeper.connect()).await;
    let (cut, direct) = (configured_for("20s", &proxy.connect()), configured_for("20s", &zookeeper.connect()));
    let client = zookeeper.client().await;
    let (beats, begun) = (cut.path().join("beats"), cut.path().join("begun"));
    let beat = format!("while :; do date +%s%N >> {}; sleep 0.02; done", beats.display());
    let first = start(lock(&cut, &[], LOCK, &["sh", "-c", &beat]));
    written(&beats).await;
    let second = start(lock(&direct, &[], LOCK, &["sh", "-c", &format!("date +%s%N > {}", begun.display())]));
    let queue = contenders(&client, LOCK, 2).await;
    proxy.refuse(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.refuse(false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(contenders(&client, LOCK, 2).await, queue, "the session went on");
    assert!(!begun.exists());
    proxy.refuse(true);
    assert_eq!(ended(first).await, Some(123));
    assert_eq!(ended(second).await, Some(0));
    let number = |text: &str| text.trim().parse::<u64>().expect("a time");
    let last = std::fs::read_to_string(&beats).expect("the beats").lines().last().map(number).expect("a beat");
    let begun = number(&std::fs::read_to_string(&begun).expect("its beginning"));
    assert!(last < begun, "the first was alive {} ms into the second", (last - begun.min(last)) / 1_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_slept_through_the_end_of_the_session_ends_the_command_at_once() {
    let zookeeper = ZooKeeperServer::start().await;
    let member = configured(&zookeeper.connect());
    let file = member.path().join("ready");
    let script = format!("trap '' TERM; echo ready > {}; sleep {FOR_EVER}", file.display());
    let child = start(lock(&member, &["--grace", "600s"], LOCK, &["sh", "-c", &script]));
    written(&file).await;
    signal(&child, "STOP");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let begun = Instant::now();
    signal(&child, "CONT");
    assert_eq!(ended(child).await, Some(123));
    assert!(begun.elapsed() < PATIENCE, "no grace is left: {:?}", begun.elapsed());
}
