//! Znode triggers: how long one change takes, and how many changes and new children a second become
//! DAG runs of their own.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions};

use crate::measure::{Disk, Samples, milliseconds, number};
use crate::party::{self, Party};
use crate::report::{Goal, Report, Row};
use crate::stand_in::StandIn;
use crate::{Outcome, Setting};

pub(crate) const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());

/// Changes a second that the driver asks `ZooKeeper` for.
const CHANGES_PER_S: usize = 10_000;

/// How long nothing may arrive before a burst counts as over.
const PATIENCE_MS: u64 = 4_000;

/// Who takes part, with the name of its subtree.
const PARTIES: [(&str, &str); 3] = [("floor", "floor"), ("flowkeeper", "flowkeeper"), ("kazoo", "kazoo")];

/// One change at a time: from asking `ZooKeeper` to set the data to the request's arrival.
pub(crate) async fn one_change(setting: &Setting, disk: &Disk, report: &mut Report) -> Outcome<()> {
    const WARM_UP: usize = 30;
    let times = setting.pick(500, 100) + WARM_UP;
    let stand_in = StandIn::start().await?;
    let client = Client::connect(&setting.zookeeper).await?;
    let mut p50 = Vec::new();
    let mut p99 = Vec::new();
    for (name, folder) in PARTIES {
        let parent = format!("/bench-change-{folder}");
        let node = format!("{parent}/node");
        client.mkdir(&parent, &PERSISTENT).await?;
        client.create(&node, b"", &PERSISTENT).await?;
        stand_in.clear();
        let schedule = format!("znode = {{ path = \"{node}\" }}");
        let party = start(setting, name, "tree", &parent, &schedule, &stand_in).await?;
        let mut samples = Vec::with_capacity(times);
        for turn in 0..times {
            // A moment of rest, of varying length, so that no one's timer is hit in step.
            tokio::time::sleep(Duration::from_micros(3_000 + 37 * (u64::try_from(turn)? % 100))).await;
            let before = stand_in.count();
            let start = Instant::now();
            client.set_data(&node, b"x", None).await?;
            if !stand_in.more_than(before, PATIENCE_MS).await {
                return Err(format!("{name}: change {turn} was not triggered").into());
            }
            let arrival = stand_in.arrivals().pop().ok_or("no arrival")?;
            samples.push(milliseconds(arrival.at.duration_since(start)));
        }
        let samples = Samples::new(samples.split_off(WARM_UP));
        p50.push(samples.percentile(50));
        p99.push(samples.percentile(99));
        report.row(Row::new("change", name).latency(&samples).cost(party.end()));
    }
    let limit = 1.5 * (p50[0] + disk.fdatasync.percentile(50));
    report.goal(Goal::at_most("change", "p50 ≤ 1.5 × (floor + one fdatasync)", p50[1], limit, "ms"));
    report.goal(Goal::at_most("change", "p99 below kazoo's", p99[1], p99[2], "ms"));
    Ok(())
}

/// 5,000 changes on 1,000 znodes at 10,000 a second: how many become runs of their own, how fast.
pub(crate) async fn many_changes(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let nodes = 1_000;
    let changes = 5 * nodes;
    let rounds = setting.pick(3, 1);
    let stand_in = StandIn::start().await?;
    let client = Client::connect(&setting.zookeeper).await?;
    let mut shares = Vec::new();
    let mut rates = Vec::new();
    for (name, folder) in PARTIES {
        let (mut share_of, mut rate_of) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let parent = format!("/bench-changes-{folder}-{round}");
            client.mkdir(&parent, &PERSISTENT).await?;
            let paths: Vec<String> = (0..nodes).map(|node| format!("{parent}/{node:04}")).collect();
            create_all(&client, &paths).await?;
            stand_in.clear();
            let schedule = format!("znode = {{ path = \"{parent}\", watch = \"subtree\" }}");
            let party = start(setting, name, "tree", &parent, &schedule, &stand_in).await?;
            let start = Instant::now();
            let written = set_all(&client, &paths, changes).await?;
            stand_in.settle(changes, PATIENCE_MS).await;
            let arrivals = stand_in.arrivals();
            let own: HashSet<(&str, i64)> =
                arrivals.iter().map(|arrival| (arrival.conf.path.as_str(), arrival.conf.version)).collect();
            let last = arrivals.last().map_or(start, |arrival| arrival.at);
            let share = number(own.len()) / number(changes);
            let rate = number(own.len()) / last.duration_since(start).as_secs_f64();
            report.row(
                Row::new("changes", name)
                    .rate(rate)
                    .share(share)
                    .note(format!("round {}: changes written at {written:.0}/s", round + 1))
                    .cost(party.end()),
            );
            share_of.push(share);
            rate_of.push(rate);
        }
        shares.push(Samples::new(share_of).percentile(50));
        rates.push(Samples::new(rate_of).percentile(50));
    }
    report.goal(Goal::at_least("changes", "changes that became runs of their own", 100.0 * shares[1], 95.0, "%"));
    report.goal(Goal::at_least("changes", "runs a second", rates[1], 3_000.0, "/s"));
    Ok(())
}

/// 2,000 new children under one parent.
pub(crate) async fn many_children(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let children = 2_000;
    let rounds = setting.pick(3, 1);
    let stand_in = StandIn::start().await?;
    let client = Client::connect(&setting.zookeeper).await?;
    let mut rates = Vec::new();
    for (name, folder) in PARTIES {
        let mut rate_of = Vec::new();
        for round in 0..rounds {
            let parent = format!("/bench-children-{folder}-{round}");
            client.mkdir(&parent, &PERSISTENT).await?;
            let paths: Vec<String> = (0..children).map(|child| format!("{parent}/{child:05}")).collect();
            stand_in.clear();
            let schedule = format!("znode = {{ path = \"{parent}\", watch = \"children\" }}");
            let party = start(setting, name, "children", &parent, &schedule, &stand_in).await?;
            let start = Instant::now();
            create_all(&client, &paths).await?;
            let written = number(children) / start.elapsed().as_secs_f64();
            stand_in.settle(children, PATIENCE_MS).await;
            let arrivals = stand_in.arrivals();
            let own: HashSet<&str> = arrivals.iter().map(|arrival| arrival.conf.path.as_str()).collect();
            let last = arrivals.last().map_or(start, |arrival| arrival.at);
            let rate = number(own.len()) / last.duration_since(start).as_secs_f64();
            report.row(
                Row::new("children", name)
                    .rate(rate)
                    .share(number(own.len()) / number(children))
                    .note(format!("round {}: children created at {written:.0}/s", round + 1))
                    .cost(party.end()),
            );
            rate_of.push(rate);
        }
        rates.push(Samples::new(rate_of).percentile(50));
    }
    report.goal(Goal::at_least("children", "runs a second", rates[1], 3_000.0, "/s"));
    Ok(())
}

/// Starts the floor, flowkeeper or kazoo on one subtree.
async fn start(
    setting: &Setting,
    name: &'static str,
    kazoo_mode: &str,
    parent: &str,
    schedule: &str,
    stand_in: &StandIn,
) -> Outcome<Party> {
    match name {
        "floor" => Party::role(name, &["watch", &setting.zookeeper, parent, &stand_in.url]).await,
        "kazoo" => {
            let arguments = [kazoo_mode, &setting.zookeeper, parent, &stand_in.url];
            Party::python(setting, name, "kazoo_trigger.py", &arguments).await
        }
        _ => {
            let schedules = format!(
                "{}[[schedule]]\nname = \"bench\"\n{schedule}\ndag = \"bench\"\n\
                 conf = {{ path = \"{{{{ znode.path }}}}\", version = \"{{{{ znode.version }}}}\" }}\n",
                party::airflow(&stand_in.url)
            );
            Party::flowkeeper(setting, name, &schedules).await
        }
    }
}

/// Creates every path, pipelined.
pub(crate) async fn create_all(client: &Client, paths: &[String]) -> Outcome<()> {
    let mut replies: FuturesUnordered<_> = paths.iter().map(|path| client.create(path, b"", &PERSISTENT)).collect();
    while let Some(reply) = replies.next().await {
        reply?;
    }
    Ok(())
}

/// Sets the data of the paths in turn, `changes` times in all, at [`CHANGES_PER_S`]; returns the rate
/// that was reached.
async fn set_all(client: &Client, paths: &[String], changes: usize) -> Outcome<f64> {
    const PER_STEP: usize = CHANGES_PER_S / 200;
    let start = Instant::now();
    let mut step = tokio::time::interval(Duration::from_millis(5));
    let mut replies = FuturesUnordered::new();
    let mut turn = 0;
    while turn < changes || !replies.is_empty() {
        tokio::select! {
            _ = step.tick(), if turn < changes => {
                for _ in 0..PER_STEP.min(changes - turn) {
                    replies.push(client.set_data(&paths[turn % paths.len()], b"x", None));
                    turn += 1;
                }
            }
            Some(reply) = replies.next() => { reply?; }
        }
    }
    Ok(number(changes) / start.elapsed().as_secs_f64())
}
