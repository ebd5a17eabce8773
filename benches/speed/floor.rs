//! The floors, and tokio-cron-scheduler: what the same libraries do when nothing is decided,
//! remembered or made durable.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_cron_scheduler::{Job, JobScheduler};
use zookeeper_client::{AddWatchMode, Client, EventType};

use crate::Outcome;
use crate::measure::milliseconds;

/// Requests that a floor has in flight at most.
const IN_FLIGHT: usize = 64;

/// Plays the role that the environment names.
pub(crate) async fn play(role: &str) -> Outcome<()> {
    let words: Vec<&str> = role.split(' ').collect();
    match words.as_slice() {
        ["watch", connect, path, url] => watch(connect, path, url).await,
        ["clock", due, url] => clock(due.parse()?, url).await,
        ["tokio-cron-scheduler", all, due, hour, url] => {
            tokio_cron_scheduler(all.parse()?, due.parse()?, hour, url).await
        }
        ["replace-jobs", all] => replace_jobs(all.parse()?).await,
        _ => Err(format!("no such role: {role}").into()),
    }
}

/// Posts DAG runs with ids that nobody else uses.
#[derive(Clone)]
struct Sender {
    http: reqwest::Client,
    url: Arc<str>,
    sent: Arc<AtomicU64>,
}

impl Sender {
    fn new(url: &str) -> Outcome<Self> {
        Ok(Self {
            http: reqwest::Client::builder().tcp_nodelay(true).build()?,
            url: format!("{url}/api/v2/dags/bench/dagRuns").into(),
            sent: Arc::default(),
        })
    }

    async fn send(&self, conf: Value) -> Outcome<()> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let body = json!({"dag_run_id": format!("floor__{number}"), "logical_date": null, "conf": conf});
        // Read to the end, or the connection could not be used again.
        self.http.post(&*self.url).json(&body).send().await?.error_for_status()?.bytes().await?;
        Ok(())
    }
}

/// One recursive watch; each event is read, and each version that was read is posted.
async fn watch(connect: &str, path: &str, url: &str) -> Outcome<()> {
    let client = Client::connect(connect).await?;
    let sender = Sender::new(url)?;
    let mut watcher = client.watch(path, AddWatchMode::PersistentRecursive).await?;
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    println!("ready");
    loop {
        let event = watcher.changed().await;
        if !matches!(event.event_type, EventType::NodeCreated | EventType::NodeDataChanged) {
            continue;
        }
        // The request is queued when the future is made, so reads keep the order of their events.
        let read = client.get_data(&event.path);
        let (seen, slots, sender) = (seen.clone(), slots.clone(), sender.clone());
        tokio::spawn(async move {
            let (_, stat) = read.await?;
            if seen.lock().await.insert(stat.mzxid) {
                let _slot = slots.acquire().await?;
                sender.send(json!({"path": event.path, "version": stat.version})).await?;
            }
            Outcome::Ok(())
        });
    }
}

/// Sleeps until the next ten seconds are full and posts what would be due.
async fn clock(due: u32, url: &str) -> Outcome<()> {
    const PERIOD_US: i64 = 10_000_000;
    let sender = Sender::new(url)?;
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    println!("ready");
    loop {
        let now = Clock::system().now().as_microsecond();
        let wait = u64::try_from(PERIOD_US - now.rem_euclid(PERIOD_US))?;
        tokio::time::sleep(Duration::from_micros(wait)).await;
        for job in 0..due {
            let (slots, sender) = (slots.clone(), sender.clone());
            tokio::spawn(async move {
                let _slot = slots.acquire().await?;
                sender.send(json!({"job": job})).await
            });
        }
    }
}

/// The scheduler that most Rust programs use, with a callback that posts.
async fn tokio_cron_scheduler(all: u32, due: u32, hour: &str, url: &str) -> Outcome<()> {
    let sender = Sender::new(url)?;
    let (queue, mut work) = mpsc::unbounded_channel::<u32>();
    let scheduler = JobScheduler::new().await?;
    for job in 0..all {
        let cron = if job < due {
            "*/10 * * * * *".to_owned()
        } else {
            format!("{} {} {hour} * * *", job % 60, job / 60 % 60)
        };
        let queue = queue.clone();
        scheduler
            .add(Job::new(cron, move |_, _| {
                // The receiver lives as long as the process.
                let _ = queue.send(job);
            })?)
            .await?;
    }
    scheduler.start().await?;
    println!("ready");
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(job) = work.recv().await {
        let (slots, sender) = (slots.clone(), sender.clone());
        tokio::spawn(async move {
            let _slot = slots.acquire().await?;
            sender.send(json!({"job": job})).await
        });
    }
    Ok(())
}

/// The same scheduler going over to other jobs. It has no way to edit one, so each is removed and added.
/// Nothing is checked, kept or told to anybody.
async fn replace_jobs(all: u32) -> Outcome<()> {
    let scheduler = JobScheduler::new().await?;
    scheduler.start().await?;
    let job =
        |number: u32, hour: u32| Job::new(format!("{} {} {hour} * * *", number % 60, number / 60 % 60), |_, _| {});
    let mut ids = Vec::new();
    for number in 0..all {
        ids.push(scheduler.add(job(number, 3)?).await?);
    }
    let start = Instant::now();
    scheduler.remove(&ids.swap_remove(0)).await?;
    ids.push(scheduler.add(job(0, 4)?).await?);
    let one = milliseconds(start.elapsed());
    let start = Instant::now();
    for (number, id) in (0..all).zip(std::mem::take(&mut ids)) {
        scheduler.remove(&id).await?;
        ids.push(scheduler.add(job(number, 4)?).await?);
    }
    let edited = milliseconds(start.elapsed());
    let start = Instant::now();
    for id in ids {
        scheduler.remove(&id).await?;
    }
    let removed = milliseconds(start.elapsed());
    println!("{}", json!({"one edited": one, "all edited": edited, "all removed": removed}));
    Ok(())
}
