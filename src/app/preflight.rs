//! `check --online`: whether what a configuration names is really there, and will do.
//!
//! Asks each Airflow for the DAGs of its schedules and opens one session with each ensemble; changes
//! nothing. What an answer means is decided by pure functions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::connect;
use crate::airflow::{Airflow, DagFacts};
use crate::clock::Clock;
use crate::config::model::{self, Config};
use crate::config::{Environment, Fault, Severity};
use crate::domain::occurrence::Occurrence;
use crate::domain::schedule::{PausedDag, Schedule, Trigger};
use crate::domain::template::RenderContext;
use crate::zookeeper::{self, CheckFault};

/// How many questions one Airflow is asked at a time.
const IN_FLIGHT: usize = 4;

/// How long an ensemble may take to open a session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

/// Everything that stands in the way of a configuration, beyond its file.
pub async fn check_online(config: &Config, environment: &Arc<Environment>, clock: &Clock) -> Vec<Fault> {
    let file = config.file.display().to_string();
    let airflows = stream::iter(config.airflows.values().map(|settings| {
        let schedules: Vec<_> =
            config.schedules.iter().filter(|schedule| schedule.airflow == settings.name).cloned().collect();
        check_airflow(&file, settings, schedules, environment, clock)
    }));
    let mut faults: Vec<Fault> = airflows.buffered(IN_FLIGHT).concat().await;
    let home = config
        .zookeeper
        .iter()
        .map(|zookeeper| (Some(zookeeper.root.as_str()), "zookeeper".to_owned(), &zookeeper.connection));
    let others = config.ensembles.iter().filter_map(|(name, ensemble)| {
        ensemble.connection.as_ref().map(|connection| (None, format!("ensemble.{name}"), connection))
    });
    let ensembles = stream::iter(
        home.chain(others).map(|(root, key, connection)| check_ensemble(&file, root, key, connection, environment)),
    );
    faults.extend(ensembles.buffered(IN_FLIGHT).concat().await);
    faults
}

async fn check_airflow(
    file: &str,
    settings: &model::Airflow,
    schedules: Vec<Arc<Schedule>>,
    environment: &Arc<Environment>,
    clock: &Clock,
) -> Vec<Fault> {
    let key = format!("airflow.{}", settings.name);
    let airflow = match connect::airflow(settings, environment, clock.clone()) {
        Ok(airflow) => airflow,
        Err(error) => {
            let hint = "set the variable or create the file that the configuration names";
            return vec![Fault::without_place(file, &key, format!("failed to {error}"), hint)];
        }
    };
    let mut wanted: Vec<String> = schedules.iter().map(|schedule| schedule.dag_id.to_string()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let dags: HashMap<String, DagFacts> = match airflow.list_dags(&wanted).await {
        Ok(dags) => dags.into_iter().map(|dag| (dag.dag_id.clone(), dag)).collect(),
        Err(error) => return vec![Fault::without_place(file, &key, format!("failed to {error}"), error.hint())],
    };
    let known: Vec<String> = wanted.into_iter().filter(|dag_id| dags.contains_key(dag_id)).collect();
    let params = match read_params(&airflow, known).await {
        Ok(params) => params,
        Err(error) => return vec![Fault::without_place(file, &key, format!("failed to {error}"), error.hint())],
    };
    let now = clock.now();
    schedules
        .iter()
        .flat_map(|schedule| {
            let mut faults = judge_dag(file, schedule, dags.get(&*schedule.dag_id));
            if let Some(params) = params.get(&*schedule.dag_id) {
                faults.extend(
                    sample_conf(schedule, now).into_iter().flat_map(|conf| judge_conf(file, schedule, &conf, params)),
                );
            }
            faults
        })
        .collect()
}

/// The params of each DAG.
async fn read_params(
    airflow: &Airflow,
    dag_ids: Vec<String>,
) -> Result<HashMap<String, Map<String, Value>>, crate::airflow::Error> {
    let details = stream::iter(dag_ids).map(|dag_id| async move {
        let details = airflow.dag_details(&dag_id).await?;
        Ok((dag_id, details.params))
    });
    let details: Vec<_> = details.buffered(IN_FLIGHT).collect().await;
    details.into_iter().collect()
}

/// What is wrong with the DAG of a schedule, as Airflow shows it.
fn judge_dag(file: &str, schedule: &Schedule, dag: Option<&DagFacts>) -> Vec<Fault> {
    let key = format!("schedule.{}.dag", schedule.name);
    let (dag_id, airflow) = (&schedule.dag_id, &schedule.airflow);
    let Some(dag) = dag else {
        let message = format!("Airflow `{airflow}` has no DAG `{dag_id}`");
        let hint = "is its file in the DAGs folder? A new one takes Airflow a moment to parse";
        return vec![Fault::without_place(file, &key, message, hint)];
    };
    let mut faults = Vec::new();
    if dag.has_import_errors {
        let message = format!("the file of the DAG `{dag_id}` in Airflow `{airflow}` fails to import");
        faults.push(Fault::without_place(
            file,
            &key,
            message,
            "Airflow's pages show the error; runs are refused until it is corrected",
        ));
    }
    if dag.is_paused && !schedule.paused {
        let message = format!("the DAG `{dag_id}` is paused in Airflow `{airflow}`");
        let hint = match schedule.paused_dag {
            PausedDag::Hold => "unpause it; until then nothing is submitted",
            PausedDag::Submit => "unpause it; until then its runs stay queued",
            PausedDag::Skip => "unpause it; until then every occurrence is skipped",
        };
        faults.push(Fault::without_place(file, &key, message, hint));
    }
    if let Some(own) = &dag.own_schedule {
        let message = format!("the DAG `{dag_id}` in Airflow `{airflow}` has a schedule of its own: {own}");
        faults.push(Fault::without_place(file, &key, message, "give it `schedule=None`, or it runs twice"));
    }
    faults
}

/// The conf that a cron schedule would send now; that of a znode is known only when it changes.
fn sample_conf(schedule: &Schedule, now: Timestamp) -> Option<Map<String, Value>> {
    let Trigger::Cron(cron) = &schedule.trigger else { return None };
    let time = cron.next_after(now)?.at;
    let dag_run_id = Occurrence::Nominal(time).dag_run_id(&schedule.name);
    let context = RenderContext { nominal_time: Some(time), ..RenderContext::of(schedule, &dag_run_id) };
    serde_json::from_str(context.conf().ok()?.get()).ok()
}

/// What is wrong with a conf, given the DAG's params (`{"value": …, "schema": {…}}` by name).
fn judge_conf(file: &str, schedule: &Schedule, conf: &Map<String, Value>, params: &Map<String, Value>) -> Vec<Fault> {
    let key = |name: &str| format!("schedule.{}.conf.{name}", schedule.name);
    params
        .iter()
        .filter_map(|(name, param)| {
            let schema = param.get("schema")?;
            let (value, message, hint) = if let Some(value) = conf.get(name) {
                let message = format!("`{value}` does not fit the param `{name}` of the DAG `{}`", schedule.dag_id);
                (value, message, format!("the DAG asks for {schema}"))
            } else {
                let message = format!("the DAG `{}` needs the param `{name}`, and conf has none", schedule.dag_id);
                let hint = "add it to `conf`, or give it a default in the DAG".to_owned();
                (param.get("value").unwrap_or(&Value::Null), message, hint)
            };
            (!fits(value, schema)).then(|| Fault::without_place(file, key(name), message, &hint))
        })
        .collect()
}

/// Whether a value fits the parts of a JSON Schema that Airflow's forms use: `type`, `enum`, `const`.
/// What it does not know it lets pass; Airflow has the last word.
fn fits(value: &Value, schema: &Value) -> bool {
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    };
    let typed = match schema.get("type") {
        Some(Value::String(name)) => is(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    };
    let listed = schema.get("enum").and_then(Value::as_array).is_none_or(|allowed| allowed.contains(value));
    typed && listed && schema.get("const").is_none_or(|constant| constant == value)
}

async fn check_ensemble(
    file: &str,
    root: Option<&str>,
    key: String,
    connection: &model::Connection,
    environment: &Arc<Environment>,
) -> Vec<Fault> {
    let settings = match connect::zookeeper(connection.clone(), Arc::clone(environment), key.clone()) {
        Ok(settings) => settings,
        Err(error) => {
            let hint = "set the variable or create the file that the configuration names";
            return vec![Fault::without_place(file, &key, format!("failed to {error}"), hint)];
        }
    };
    match tokio::time::timeout(SESSION_TIMEOUT, zookeeper::check(&settings, root)).await {
        Ok(Ok(None)) => Vec::new(),
        Ok(Ok(Some(CheckFault { message, hint }))) => {
            let message = format!("with ZooKeeper at {}: {message}", connection.connect);
            let severity = Severity::Warning;
            vec![Fault { severity, ..Fault::without_place(file, format!("{key}.root"), message, &hint) }]
        }
        Ok(Err(CheckFault { message, hint })) => {
            let message = format!("with ZooKeeper at {}: failed to {message}", connection.connect);
            vec![Fault::without_place(file, &key, message, &hint)]
        }
        Err(_) => {
            let waited = SESSION_TIMEOUT.as_secs();
            let message = format!("ZooKeeper at {} does not answer: no session within {waited} s", connection.connect);
            vec![Fault::without_place(
                file,
                format!("{key}.connect"),
                message,
                "is it running, and can this host reach it?",
            )]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_judged_by_type_and_choice() {
        let cases = [
            (json!("a"), json!({"type": "string"}), true),
            (json!(1), json!({"type": "string"}), false),
            (json!(null), json!({"type": ["null", "string"]}), true),
            (json!(null), json!({"type": "string"}), false),
            (json!(1.5), json!({"type": "integer"}), false),
            (json!(1.5), json!({"type": "number"}), true),
            (json!("b"), json!({"enum": ["a", "b"]}), true),
            (json!("c"), json!({"enum": ["a", "b"]}), false),
            (json!("c"), json!({"const": "d"}), false),
            (json!([1]), json!({"minItems": 3}), true),
            (json!("x"), json!({"type": "colour"}), true),
            (json!("x"), json!(true), true),
        ];
        for (value, schema, expected) in cases {
            assert_eq!(fits(&value, &schema), expected, "{value} {schema}");
        }
    }
}
