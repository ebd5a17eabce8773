//! One queue for kazoo's `Lock` and flowkeeper's: exclusion both ways, in the order of asking.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zookeeper_client::Client;

use crate::support::process::Member;
use crate::support::world::wait_for;
use crate::support::zookeeper::ZooKeeperServer;

/// The Python that has kazoo; `make test` installs it.
fn python() -> String {
    std::env::var("FLOWKEEPER_TEST_PYTHON").expect("FLOWKEEPER_TEST_PYTHON is set: run the tests with `make test`")
}

fn kazoo(zookeeper: &ZooKeeperServer, path: &str, file: &Path, pattern: bool) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kazoo/lock.py");
    let mut command = Command::new(python());
    command.args([script, &zookeeper.connect(), path]).arg(file).arg("1").args(pattern.then_some("pattern"));
    command.stdin(Stdio::null()).spawn().expect("start Python")
}

fn flowkeeper(member: &Member, path: &str, file: &Path) -> Child {
    let script = format!("echo flowkeeper begins >> {0}; sleep 1; echo flowkeeper ends >> {0}", file.display());
    let mut command = member.command(&["lock", path, "--", "sh", "-c", &script]);
    command.stdin(Stdio::null()).spawn().expect("start flowkeeper")
}

async fn queue(client: &Client, path: &str, length: usize) {
    let ask = || async { (client.list_children(path).await.unwrap_or_default().len() >= length).then_some(()) };
    wait_for(ask, || format!("there are not {length} that queue")).await;
}

async fn ended(children: Vec<Child>, file: &PathBuf) -> String {
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
    let held = flowkeeper(&member, path, &file);
    queue(&client, path, 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = ended(vec![kazoo(zookeeper, path, &file, false), held], &file).await;
    assert!(log.contains("flowkeeper begins\nkazoo begins\n"), "this is what the documentation warns of: {log}");
}
