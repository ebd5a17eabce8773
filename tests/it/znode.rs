//! What a change in a real ZooKeeper becomes.

use std::time::Duration;

use flowkeeper::domain::run::RunState;
use flowkeeper::domain::schedule::{Catchup, ChangeKinds, Initial, PathGlobs, WatchScope};
use flowkeeper::store::model::Run;
use flowkeeper::triggers::gate::Gate;
use serde_json::json;
use zookeeper_client::{Acl, Acls, AuthId, CreateMode, Permission};

use crate::support::world::{PATIENCE, World, fields, schedule, trigger, wait_for, when};
use crate::support::zookeeper::{ZooKeeperServer, create, delete, set};

const ALL: ChangeKinds = ChangeKinds { created: true, changed: true, deleted: true };

#[tokio::test]
async fn a_znode_that_does_not_exist_yet_fires_when_it_is_created_set_and_deleted() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    let mut world = World::new(&server.connect()).await;
    // Not even its parent exists.
    let mut watched = trigger("/late/flag", WatchScope::Node);
    watched.on = ALL;
    world.watch(schedule("late", watched)).await;
    world.armed("late").await;

    create(&zk, "/late", b"").await;
    let created = create(&zk, "/late/flag", b"one").await;
    world.wait_for_runs("late", 1).await;
    let changed = set(&zk, "/late/flag", b"two").await;
    world.wait_for_runs("late", 2).await;
    delete(&zk, "/late/flag").await;
    let runs = world.wait_for_runs("late", 3).await;

    assert_eq!(fields(&runs, "event"), [json!("created"), json!("changed"), json!("deleted")]);
    assert_eq!(fields(&runs, "text"), [json!("one"), json!("two"), json!(null)]);
    for (run, prefix) in runs.iter().zip([format!("z{created:x}-"), format!("z{changed:x}-"), format!("d{created:x}-")])
    {
        let expected = format!("flowkeeper__late__{prefix}");
        assert!(run.dag_run_id.starts_with(&expected), "{} is not {expected}…", run.dag_run_id);
        assert_eq!((run.state, run.coalesced), (RunState::Pending, 0));
    }

    // With its parent, and again.
    create(&zk, "/late/flag", b"three").await;
    world.wait_for_runs("late", 4).await;
    delete(&zk, "/late/flag").await;
    delete(&zk, "/late").await;
    world.wait_for_runs("late", 5).await;
    create(&zk, "/late", b"").await;
    create(&zk, "/late/flag", b"four").await;
    let runs = world.wait_for_runs("late", 6).await;
    assert_eq!(runs[5].conf["znode"]["text"], "four");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_znode_that_is_set_during_the_first_look_is_new_at_first_sight_all_the_same() {
    const COUNT: usize = 1000;
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/first", b"").await;
    let paths: Vec<String> = (0..COUNT).map(|number| format!("/first/{number:04}")).collect();
    futures_util::future::join_all(paths.iter().map(|path| create(&zk, path, b""))).await;
    for _ in 0..3 {
        futures_util::future::join_all(paths.iter().map(|path| set(&zk, path, b"before"))).await;
    }
    let mut world = World::new(&server.connect()).await;
    let mut watched = trigger("/first", WatchScope::Subtree);
    watched.initial = Initial::Fire;
    let setting = tokio::spawn({
        let (zk, paths) = (zk.clone(), paths.clone());
        async move {
            // Those that the look reads last, again and again.
            for _ in 0..20 {
                futures_util::future::join_all(paths.iter().rev().take(300).map(|path| set(&zk, path, b"now"))).await;
            }
        }
    });
    world.watch(schedule("first", watched)).await;
    setting.await.expect("the znodes are set");
    // Every znode is seen first once, and each version after that is its own or counted.
    let covers = |run: &Run| run.conf["znode"]["version"].as_i64().map(|version| (version - run.coalesced, version));
    let started = std::time::Instant::now();
    let runs = loop {
        let runs = world.runs("first").await;
        let latest = runs.iter().filter(|run| covers(run).is_some_and(|(_, version)| version == 23)).count();
        let rest = runs.iter().filter(|run| covers(run) == Some((3, 3))).count();
        if latest == 300 && rest >= COUNT - 300 {
            break runs;
        }
        assert!(started.elapsed() < PATIENCE, "{latest} of 300 are at the last version, and {rest} rest");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for run in runs {
        assert!(covers(&run).is_some_and(|(from, _)| from >= 3), "it stands for some that were before: {run:#?}");
    }
}

#[tokio::test]
async fn what_happened_while_nobody_watched_is_found_and_counted() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/down", b"").await;
    for (node, data) in [("set", "0"), ("same", "0"), ("gone", "0"), ("again", "0")] {
        create(&zk, &format!("/down/{node}"), data.as_bytes()).await;
    }
    let mut world = World::new(&server.connect()).await;
    let mut watched = trigger("/down", WatchScope::Subtree);
    watched.on = ALL;
    world.watch(schedule("down", watched)).await;
    world.armed("down").await;
    assert!(world.runs("down").await.is_empty(), "what exists is ignored at first sight");

    let stopped = world.stop().await;
    for _ in 0..5 {
        set(&zk, "/down/set", b"5").await;
    }
    delete(&zk, "/down/gone").await;
    delete(&zk, "/down/again").await;
    create(&zk, "/down/again", b"1").await;
    set(&zk, "/down/again", b"2").await;
    create(&zk, "/down/new", b"1").await;
    let world = stopped.start().await;
    let runs = world.wait_for_runs("down", 4).await;
    let mut found: Vec<_> = runs
        .iter()
        .map(|run| {
            let znode = &run.conf["znode"];
            let text = |field: &str| znode[field].as_str().unwrap_or_default().to_owned();
            (text("name"), text("event"), run.coalesced, znode["recreated"].as_bool())
        })
        .collect();
    found.sort();
    let expected = [
        ("again", "created", 1, true),
        ("gone", "deleted", 0, false),
        ("new", "created", 0, false),
        ("set", "changed", 4, false),
    ];
    assert_eq!(found, expected.map(|(name, event, n, again)| (name.to_owned(), event.to_owned(), n, Some(again))));

    // Nothing is found twice.
    let world = world.stop().await.start().await;
    world.armed("down").await;
    world.wait_for_runs("down", 4).await;
}

#[tokio::test]
async fn initial_decides_about_what_exists_at_first_sight() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/initial", b"").await;
    create(&zk, "/initial/old", b"").await;
    let between = create(&zk, "/initial/new", b"").await - 1;
    set(&zk, "/initial/old", b"set since").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut world = World::new(&server.connect()).await;
    let past = "2000-01-01T00:00:00Z".parse().expect("a time");
    let future = "2100-01-01T00:00:00Z".parse().expect("a time");
    let cases = [
        ("ignore", Initial::Ignore, vec![]),
        ("fire", Initial::Fire, vec!["new created", "old created"]),
        ("after-zxid", Initial::AfterZxid(between), vec!["new created", "old changed"]),
        ("after-past", Initial::After(past), vec!["new created", "old changed"]),
        ("after-future", Initial::After(future), vec![]),
    ];
    for (name, initial, _) in &cases {
        let mut watched = trigger("/initial", WatchScope::Subtree);
        watched.initial = *initial;
        world.watch(schedule(name, watched)).await;
    }
    for (name, _, expected) in &cases {
        world.armed(name).await;
        let runs = world.wait_for_runs(name, expected.len()).await;
        let mut found: Vec<_> = fields(&runs, "name")
            .iter()
            .zip(fields(&runs, "event"))
            .map(|(name, event)| {
                format!("{} {}", name.as_str().unwrap_or_default(), event.as_str().unwrap_or_default())
            })
            .collect();
        found.sort();
        assert_eq!(&found, expected, "{name}");
    }
    // Whatever the first look did, later ones are not first looks.
    create(&zk, "/initial/later", b"").await;
    for (name, _, expected) in &cases {
        world.wait_for_runs(name, expected.len() + 1).await;
    }
}

#[tokio::test]
async fn children_are_a_run_each_and_globs_choose() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/inbox", b"").await;
    let mut world = World::new(&server.connect()).await;
    world.watch(schedule("inbox", trigger("/inbox", WatchScope::Children))).await;
    let mut some = trigger("/inbox", WatchScope::Subtree);
    some.include = Some(PathGlobs::new(&["**/*.json".to_owned()]).expect("a glob"));
    world.watch(schedule("some", some)).await;
    world.armed("inbox").await;
    world.armed("some").await;

    let czxid = create(&zk, "/inbox/a", b"a").await;
    create(&zk, "/inbox/b.json", b"b").await;
    create(&zk, "/inbox/a/deep.json", b"deep").await;
    set(&zk, "/inbox/a", b"set: not a new child").await;
    let runs = world.wait_for_runs("inbox", 2).await;
    assert_eq!(fields(&runs, "name"), [json!("a"), json!("b.json")]);
    assert!(runs[0].dag_run_id.contains(&format!("__z{czxid:x}-")), "{}", runs[0].dag_run_id);
    let runs = world.wait_for_runs("some", 2).await;
    assert_eq!(fields(&runs, "path"), [json!("/inbox/b.json"), json!("/inbox/a/deep.json")]);
    // A child of the same name is another child.
    delete(&zk, "/inbox/b.json").await;
    create(&zk, "/inbox/b.json", b"b2").await;
    world.wait_for_runs("inbox", 3).await;
}

#[tokio::test]
async fn when_is_evaluated_on_the_read_and_on_the_state_last_handled() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/cond", b"0").await;
    let mut world = World::new(&server.connect()).await;
    let mut rising = schedule("rising", trigger("/cond", WatchScope::Node));
    rising.when = Some(when("znode.json > previous.json"));
    world.watch(rising).await;
    world.armed("rising").await;

    for (value, rows) in [("5", 1), ("3", 1), ("4", 2)] {
        set(&zk, "/cond", value.as_bytes()).await;
        let runs = world.wait_for_runs("rising", rows).await;
        assert!(runs.iter().all(|run| run.state == RunState::Pending), "{:?}", runs[0].reason);
        if rows == 1 && value == "3" {
            // False moves the cursor, so the next value is compared with it.
            wait_for(
                || async {
                    let name = crate::support::world::name("rising");
                    let decisions = world.ledger.decisions(&name, 10).await.expect("decisions are read");
                    (decisions.first().map(|decision| decision.kind.as_str()) == Some("when_false")).then_some(())
                },
                || "the decision is not kept".to_owned(),
            )
            .await;
        }
    }
    // What cannot be evaluated is rejected, with the reason.
    set(&zk, "/cond", b"not json").await;
    let runs = world.wait_for_runs("rising", 3).await;
    assert_eq!(runs[2].state, RunState::Rejected);
    assert!(runs[2].reason.as_deref().is_some_and(|reason| reason.contains("when")), "{:?}", runs[2].reason);

    // False on several changes that look like one is a row, after a restart too.
    set(&zk, "/cond", b"100").await;
    let runs = world.wait_for_runs("rising", 4).await;
    assert_eq!(runs[3].state, RunState::Rejected, "`previous` is not JSON either");
    let stopped = world.stop().await;
    set(&zk, "/cond", b"500").await;
    set(&zk, "/cond", b"99").await;
    let world = stopped.start().await;
    let runs = world.wait_for_runs("rising", 5).await;
    assert_eq!((runs[4].state, runs[4].coalesced), (RunState::Skipped, 1));
}

#[tokio::test]
async fn data_of_any_kind_and_size_is_carried() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/data", b"").await;
    let mut world = World::new(&server.connect()).await;
    world.watch(schedule("data", trigger("/data", WatchScope::Node))).await;
    world.armed("data").await;

    set(&zk, "/data", b"\xff\xfe\x00").await;
    world.wait_for_runs("data", 1).await;
    let large = "ä".repeat(524_000);
    set(&zk, "/data", large.as_bytes()).await;
    let runs = world.wait_for_runs("data", 2).await;
    let znode = &runs[0].conf["znode"];
    assert_eq!((&znode["text"], &znode["base64"]), (&json!(null), &json!("//4A")));
    let znode = &runs[1].conf["znode"];
    assert_eq!((&znode["size_bytes"], &znode["truncated"]), (&json!(1_048_000), &json!(true)));
    assert_eq!(znode["text"].as_str().map(str::len), Some(8192));
}

#[tokio::test]
async fn changes_that_settle_become_one_run() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/settle", b"").await;
    let mut world = World::new(&server.connect()).await;
    let mut watched = trigger("/settle", WatchScope::Subtree);
    watched.settle = Some(Duration::from_millis(400));
    watched.settle_max = Some(Duration::from_secs(5));
    watched.batch = Some(5);
    world.watch(schedule("settle", watched)).await;
    world.armed("settle").await;

    for child in ["a", "b"] {
        create(&zk, &format!("/settle/{child}"), b"").await;
    }
    set(&zk, "/settle/a", b"x").await;
    let runs = world.wait_for_runs("settle", 1).await;
    assert!(runs[0].dag_run_id.starts_with("flowkeeper__settle__b"), "{}", runs[0].dag_run_id);
    let changes = runs[0].conf["changes"].as_array().expect("changes").clone();
    assert_eq!(changes.len(), 3);

    // A full batch does not wait.
    for child in 0..7 {
        create(&zk, &format!("/settle/{child}"), b"").await;
    }
    let runs = world.wait_for_runs("settle", 3).await;
    let sizes: Vec<_> = runs.iter().map(|run| run.conf["changes"].as_array().map(Vec::len)).collect();
    assert_eq!(sizes, [Some(3), Some(5), Some(2)]);

    // What had not settled when the process ended is found by the next one.
    create(&zk, "/settle/late", b"").await;
    let world = world.stop().await.start().await;
    let runs = world.wait_for_runs("settle", 4).await;
    assert_eq!(runs[3].conf["changes"][0]["name"], "late");
}

#[tokio::test]
async fn a_pause_holds_the_cursor_and_catchup_decides_afterwards() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/pause", b"").await;
    let paused = || Gate::Paused { reason: "maintenance".into(), dag: false };
    let mut world = World::new(&server.connect()).await;
    for (name, catchup) in [("all", Catchup::All), ("latest", Catchup::Latest), ("none", Catchup::None)] {
        create(&zk, &format!("/pause/{name}"), b"").await;
        let mut watched = schedule(name, trigger(&format!("/pause/{name}"), WatchScope::Subtree));
        watched.catchup = catchup;
        world.watch(watched).await;
        world.armed(name).await;
        world.gate(name, paused());
        for child in ["a", "b", "c"] {
            create(&zk, &format!("/pause/{name}/{child}"), b"").await;
        }
        set(&zk, &format!("/pause/{name}/a"), b"set").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(world.runs(name).await.is_empty(), "nothing comes due while it is paused");
        world.gate(name, Gate::Open);
        if catchup == Catchup::None {
            let runs = world.wait_for_runs(name, 1).await;
            assert_eq!((runs[0].state, runs[0].count), (RunState::Skipped, 3));
            assert!(runs[0].reason.as_deref().is_some_and(|reason| reason.contains("maintenance")));
        } else {
            let runs = world.wait_for_runs(name, 3).await;
            assert!(runs.iter().all(|run| run.state == RunState::Pending), "children are never merged");
        }
        // From then on everything runs.
        let rows = world.runs(name).await.len();
        create(&zk, &format!("/pause/{name}/after"), b"").await;
        let runs = world.wait_for_runs(name, rows + 1).await;
        assert_eq!(runs.last().map(|run| run.state), Some(RunState::Pending));
        // A paused DAG whose runs are skipped gets a row for each.
        world.gate(name, Gate::Skipping { reason: "the DAG is paused".into() });
        create(&zk, &format!("/pause/{name}/skipped"), b"").await;
        let runs = world.wait_for_runs(name, rows + 2).await;
        assert_eq!(runs.last().map(|run| run.state), Some(RunState::Skipped));
    }
}

#[tokio::test]
async fn what_may_not_be_read_is_said_and_found_once_it_may() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/acl", b"").await;
    let mut world = World::new(&server.connect()).await;
    world.watch(schedule("acl", trigger("/acl", WatchScope::Subtree))).await;
    world.armed("acl").await;
    let creator = Acl::new(Permission::WRITE | Permission::DELETE | Permission::ADMIN, AuthId::anyone());
    let options = CreateMode::Persistent.with_acls(Acls::new(std::slice::from_ref(&creator)));
    zk.create("/acl/secret", b"s", &options).await.expect("the znode is created");
    create(&zk, "/acl/open", b"o").await;
    let runs = world.wait_for_runs("acl", 1).await;
    assert_eq!(fields(&runs, "name"), [json!("open")], "one znode does not hold up the others");
    let world = world.stop().await.start().await;
    assert!(world.trouble("acl").await.contains("/acl/secret"), "{}", world.trouble("acl").await);

    zk.set_acl("/acl/secret", &[Acl::new(Permission::ALL, AuthId::anyone())], None).await.expect("readable");
    let world = world.stop().await.start().await;
    let runs = world.wait_for_runs("acl", 2).await;
    assert_eq!(runs[1].conf["znode"]["text"], "s");
}

#[tokio::test]
async fn a_chroot_is_not_part_of_paths() {
    let server = ZooKeeperServer::shared().await;
    let zk = server.client().await;
    create(&zk, "/chroot", b"").await;
    let mut world = World::new(&format!("{}/chroot/team", server.connect())).await;
    world.watch(schedule("chroot", trigger("/app", WatchScope::Subtree))).await;
    world.armed("chroot").await;
    for path in ["/chroot/team", "/chroot/team/app", "/chroot/team/app/x", "/chroot/app"] {
        create(&zk, path, b"").await;
    }
    let runs = world.wait_for_runs("chroot", 1).await;
    assert_eq!(fields(&runs, "path"), [json!("/app/x")]);
}
