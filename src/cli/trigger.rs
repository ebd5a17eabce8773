//! `trigger`: a run by hand, and waiting for its end.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::arguments::{OutputFormat, TriggerArguments};
use super::client::{ApiClient, CallError};
use super::context::Context;
use super::error::CommandError;
use super::show::{RUN_FIELDS, run_properties};
use crate::domain::run::{RunId, RunState};
use crate::store::model::Run;

/// How often a run that is waited for is looked at.
const POLL: Duration = Duration::from_secs(1);

/// How long the member may be away (restarting, for example) while a run is waited for.
const MAX_ABSENCE: Duration = Duration::from_mins(5);

pub(super) async fn run(context: &Context, arguments: &TriggerArguments) -> Result<(), CommandError> {
    let conf = arguments.conf.as_deref().map(parse_conf).transpose()?;
    let config = context.config_in_force().await?;
    let zones = context.zones(&config);
    let client = context.api(&config)?;
    let name = arguments.name.as_str();
    // Drawn before the first request, so that every repetition means the same run.
    let key = arguments.key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let mut body = json!({ "key": key, "reason": arguments.reason });
    if let Some(conf) = conf {
        body["conf"] = Value::Object(conf);
    }
    let mut run: Run = client.post_repeatable(&["schedules", name, "trigger"], &body).await.map_err(|error| {
        let unknown = error.is_unknown();
        let shown = error.into_error(&format!("trigger `{name}`"));
        if unknown {
            shown.hint(format!("`flowkeeper trigger {name} --key {key}` asks again: the same key is the same run"))
        } else {
            shown
        }
    })?;
    if arguments.wait {
        run = wait(context, &client, run).await?;
    }
    context.output.one(&run, &RUN_FIELDS, || run_properties(&run, zones.of(&run.schedule)))?;
    match run.state {
        RunState::Success => Ok(()),
        state if state.is_open() => Ok(()),
        state => {
            let reason = run.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            Err(CommandError::failed(format!("run {} of `{name}` ended as {state}{reason}", run.id))
                .hint(format!("`flowkeeper runs {}` shows what happened", run.id)))
        }
    }
}

fn parse_conf(text: &str) -> Result<Map<String, Value>, CommandError> {
    let wrong = |why: String| {
        CommandError::usage(format!("failed to read `--conf`: {why}"))
            .hint("a conf is a JSON object, for example --conf '{\"day\": \"2026-11-22\"}'")
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(conf)) => Ok(conf),
        Ok(_) => Err(wrong("it is JSON, but not an object".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// Follows a run to its end; each new state is told on standard error.
async fn wait(context: &Context, client: &ApiClient, mut run: Run) -> Result<Run, CommandError> {
    let quiet = context.output.format() != OutputFormat::Table;
    let tell = |id: RunId, state: RunState| {
        if !quiet {
            eprintln!("run {id}: {state}");
        }
    };
    tell(run.id, run.state);
    let mut answered = tokio::time::Instant::now();
    while run.state.is_open() {
        tokio::time::sleep(POLL).await;
        match client.get::<Run>(&["runs", &run.id.to_string()]).await {
            Ok(seen) => {
                answered = tokio::time::Instant::now();
                if seen.state != run.state {
                    tell(seen.id, seen.state);
                }
                run = seen;
            }
            Err(CallError::Problem { status, problem }) if status.is_client_error() => {
                return Err(CallError::Problem { status, problem }.into_error(&format!("follow run {}", run.id)));
            }
            Err(error) if answered.elapsed() > MAX_ABSENCE => {
                return Err(error
                    .into_error(&format!("follow run {}", run.id))
                    .next("the run goes on without this command")
                    .hint(format!("`flowkeeper runs {}` shows it", run.id)));
            }
            Err(_) => {}
        }
    }
    Ok(run)
}
