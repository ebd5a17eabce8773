//! One queue for kazoo's `Lock` and flowkeeper's: exclusion both ways, in the order of asking.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use zookeeper_client::Client;

use crate::support::process::Member;
use crate::support::world::wait_for;
use crate::support::zookeeper::ZooKeeperServer;

/// The Python that has kazoo; `make test` installs it.
fn python() -> String {
    std::env::var("FLOWKEEPER_TEST_PYTHON").expect("FLOWKEEPER_TEST_PYTHON is set: run the tests with `make test`")
}

/// The file whose appearance ends the holding of a lock by whoever appends to `file`.
fn release(file: &Path) -> PathBuf {
    file.with_extension("release")
}

fn kazoo(zookeeper: &ZooKeeperServer, path: &str, file: &Path, pattern: bool) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kazoo/lock.py");
    let mut command = Command::new(python());
    command.args([script, &zookeeper.connect(), path]).arg(file).arg(release(file)).args(pattern.then_some("pattern"));
    command.stdin(Stdio::null()).spawn().expect("start Python")
}

fn flowkeeper(member: &Member, path: &str, file: &Path) -> Child {
    let script = format!(
        "echo flowkeeper begins >> {0}; until [ -e {1} ]; do sleep 0.05; done; echo flowkeeper ends >> {0}",
        file.display(),
        release(file).display()
    );
    let mut command = member.command(&["lock", path, "--", "sh", "-c", &script]);
    command.stdin(Stdio::null()).spawn().expect("start flowkeeper")
}

async fn queue(client: &Client, path: &str, length: usize) {
    let ask = || async { (client.list_children(path).await.unwrap_or_default().len() >= length).then_some(()) };
    wait_for(ask, || format!("there are not {length} that queue")).await;
}

/// Lets whoever holds the lock give it back, one after the other; what they have written.
async fn ended(children: Vec<Child>, file: &PathBuf) -> String {
    std::fs::write(release(file), "").expect("written");
    for mut child in children {
        let status = tokio::task::spawn_blocking(move || child.wait().expect("it is waited for")).await;
        assert!(status.expect("it is waited for").success());
    }
    std::fs::read_to_string(file).expect("the log")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kazoo_and_flowkeeper_wait_for_each_other_in_one_queue() {
    let zookeeper = ZooKeeperServer::shared().await;
    let client = zookeeper.client().await;
    let member = Member::new(&format!("[zookeeper]\nconnect = \"{}\"\n", zookeeper.connect()));
    let file = member.path().join("log");
    let path = "/kazoo/one";
    let mut children = vec![flowkeeper(&member, path, &file)];
    queue(&client, path, 1).await;
    children.push(kazoo(zookeeper, path, &file, true));
    queue(&client, path, 2).await;
    children.push(flowkeeper(&member, path, &file));
    queue(&client, path, 3).await;
    let log = ended(children, &file).await;
    let (ours, theirs) = ("flowkeeper begins\nflowkeeper ends\n", "kazoo begins\nkazoo ends\n");
    assert_eq!(log, [ours, theirs, ours].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_pattern_kazoo_does_not_wait_and_flowkeeper_does() {
    let zookeeper = ZooKeeperServer::shared().await;
    let client = zookeeper.client().await;
    let member = Member::new(&format!("[zookeeper]\nconnect = \"{}\"\n", zookeeper.connect()));
    let file = member.path().join("log");
    let path = "/kazoo/two";
    let first = kazoo(zookeeper, path, &file, false);
    queue(&client, path, 1).await;
    let second = flowkeeper(&member, path, &file);
    queue(&client, path, 2).await;
    let log = ended(vec![first, second], &file).await;
    assert_eq!(log, "kazoo begins\nkazoo ends\nflowkeeper begins\nflowkeeper ends\n");
    std::fs::remove_file(release(&file)).expect("it is there");
    let written = |text: &'static str| {
        let file = &file;
        let ask = move || async move { std::fs::read_to_string(file).ok().filter(|log| log.ends_with(text)) };
        wait_for(ask, move || format!("not {text}"))
    };
    let held = flowkeeper(&member, path, &file);
    written("flowkeeper begins\n").await;
    let beside = kazoo(zookeeper, path, &file, false);
    // This is what the documentation warns of.
    written("flowkeeper begins\nkazoo begins\n").await;
    ended(vec![held, beside], &file).await;
}
