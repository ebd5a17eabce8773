//! Pacing: a burst into a real Airflow, with the limit that flowkeeper finds and with fixed ones.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions};

use crate::measure::number;
use crate::party::Party;
use crate::report::{Goal, Report, Row};
use crate::{Outcome, Setting};

const PERSISTENT: CreateOptions<'static> = CreateMode::Persistent.with_acls(Acls::anyone_all());

/// The DAG that is triggered: its only task is closed by the scheduler itself.
const DAG: &str = "fk_empty";

/// The party's name, and the limit as it stands in the configuration.
const LIMITS: [(&str, &str); 4] =
    [("in flight 1", "1"), ("in flight auto", "\"auto\""), ("in flight 2", "2"), ("in flight 4", "4")];

/// A real Airflow 3, asked how many DAG runs it has.
struct Airflow {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Airflow {
    async fn log_in(home: &Path) -> Outcome<Self> {
        let read = |name: &str| std::fs::read_to_string(home.join(name)).map(|text| text.trim().to_owned());
        let (url, username, password) = (read("url")?, read("username")?, read("password")?);
        let http = reqwest::Client::new();
        let login = http.post(format!("{url}/auth/token")).json(&json!({"username": username, "password": password}));
        let answer: Value = login.send().await?.error_for_status()?.json().await?;
        let token = answer["access_token"].as_str().ok_or("no token")?.to_owned();
        Ok(Self { http, url, token })
    }

    /// DAG runs whose id begins like this, in this state or in any.
    async fn count(&self, prefix: &str, state: Option<&str>) -> Outcome<u64> {
        let state = state.map(|state| format!("&state={state}")).unwrap_or_default();
        let url = format!("{}/api/v2/dags/{DAG}/dagRuns?limit=1&run_id_prefix_pattern={prefix}{state}", self.url);
        let answer: Value =
            self.http.get(url).bearer_auth(&self.token).send().await?.error_for_status()?.json().await?;
        answer["total_entries"].as_u64().ok_or_else(|| "no total_entries".into())
    }

    /// Waits until no DAG run is open, so that one burst does not slow down the next.
    async fn drained(&self) -> Outcome<()> {
        let start = Instant::now();
        while self.count("flowkeeper__", Some("queued")).await? + self.count("flowkeeper__", Some("running")).await? > 0
        {
            if start.elapsed() > Duration::from_mins(10) {
                return Err("Airflow did not finish the runs of the last burst".into());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }
}

/// A burst of new children, once for each limit.
pub(crate) async fn burst(setting: &Setting, report: &mut Report) -> Outcome<()> {
    let home = setting.airflow.as_deref().ok_or("no Airflow")?;
    let runs = setting.pick(500, 150);
    let airflow = Airflow::log_in(home).await?;
    let client = Client::connect(&setting.zookeeper).await?;
    // A limit that is too high may take hours: what it reached by then is its rate.
    let patience = setting.pick(Duration::from_mins(2), Duration::from_secs(40));
    let (mut found, mut best_fixed) = (0.0_f64, 0.0_f64);
    // Those that hardly get anywhere on SQLite keep a slow machine busy and come last.
    for (name, limit) in LIMITS {
        airflow.drained().await?;
        let schedule = format!("pacing-{}", name.rsplit(' ').next().unwrap_or_default());
        let parent = format!("/bench-{schedule}");
        client.mkdir(&parent, &PERSISTENT).await?;
        let schedules = format!(
            "[airflow.main]\nurl = \"{}\"\nauth = {{ username = \"admin\", password = {{ file = \"{}\" }} }}\n\
             in_flight = {limit}\n\n[[schedule]]\nname = \"{schedule}\"\n\
             znode = {{ path = \"{parent}\", watch = \"children\" }}\ndag = \"{DAG}\"\n",
            airflow.url,
            home.join("password").display(),
        );
        let party = Party::flowkeeper(setting, name, &schedules).await?;
        let start = Instant::now();
        let paths: Vec<String> = (0..runs).map(|child| format!("{parent}/{child:05}")).collect();
        let mut replies: FuturesUnordered<_> = paths.iter().map(|path| client.create(path, b"", &PERSISTENT)).collect();
        while let Some(reply) = replies.next().await {
            reply?;
        }
        let prefix = format!("flowkeeper__{schedule}__");
        let mut accepted = 0;
        let mut at = start;
        while accepted < runs && start.elapsed() < patience {
            // Seldom enough not to slow Airflow down; the rate is off by this much at most.
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = usize::try_from(airflow.count(&prefix, None).await.unwrap_or_default())?;
            if now > accepted {
                (accepted, at) = (now, Instant::now());
            }
        }
        let rate = number(accepted) / at.duration_since(start).as_secs_f64();
        report.row(
            Row::new("pacing", party.name)
                .rate(rate)
                .share(number(accepted) / number(runs))
                .note("Airflow 3.3.2 on SQLite")
                .cost(party.end()),
        );
        match limit.parse::<u32>() {
            Ok(_) => best_fixed = best_fixed.max(rate),
            Err(_) => found = rate,
        }
    }
    report.goal(Goal::at_least(
        "pacing",
        "runs a second, 95 % of the best fixed limit",
        found,
        0.95 * best_fixed,
        "/s",
    ));
    Ok(())
}
