//! `config`: definitions that are kept in ZooKeeper.
//!
//! `pull`, `diff` and `history` read ZooKeeper and the ledger themselves, so they work when no member
//! serves. `push` and `rollback` go through a member, which checks the set with its own program, compares
//! and writes it, and has it audited; then they look on until all members have it in force.

mod files;
mod rollout;
mod show;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::arguments::{
    ConfigCommand, DiffArguments, HistoryArguments, OutputFormat, PullArguments, PushArguments, RollbackArguments,
};
use super::client::{ApiClient, CallError};
use super::context::Context;
use super::error::{CommandError, Exit};
use super::output::{self, Cell, Fit, Rows, Tone};
use super::time::show_time;
use crate::app::connect;
use crate::config::model::{DefinitionsSource, Role, ZooKeeper};
use crate::config::{self, Config, Document, Fault, Faults, render};
use crate::definitions::desk::{Definitions, PushError, Pushed};
use crate::definitions::follower::ZNODE;
use crate::definitions::znodes::{self, Found};
use crate::definitions::{diff, history};
use crate::store::model::DefinitionsVersion;
use files::Local;
use rollout::Rollout;

/// How long the home ensemble may take to open a session.
const ZOOKEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// How many versions are read at a time.
const PAGE: u32 = 100;

const HISTORY_FIELDS: [&str; 10] = [
    "number",
    "version",
    "in_force_at",
    "source",
    "zookeeper_version",
    "author",
    "message",
    "pushed_at",
    "schedules",
    "size_bytes",
];

const PUSHED_FIELDS: [&str; 5] = ["version", "zookeeper_version", "previous_version", "changed", "schedules"];

/// What became of a push.
#[derive(Debug, Serialize)]
struct Outcome<'p> {
    #[serde(flatten)]
    pushed: &'p Pushed,
    /// Where it is in force; null where nobody tells.
    members: Option<Rollout>,
}

pub(super) async fn run(context: &Context, command: &ConfigCommand) -> Result<(), CommandError> {
    match command {
        ConfigCommand::Push(arguments) => push(context, arguments).await,
        ConfigCommand::Pull(arguments) => pull(context, arguments).await,
        ConfigCommand::Diff(arguments) => differences(context, arguments).await,
        ConfigCommand::History(arguments) => show_history(context, arguments).await,
        ConfigCommand::Rollback(arguments) => roll_back(context, arguments).await,
    }
}

async fn push(context: &Context, arguments: &PushArguments) -> Result<(), CommandError> {
    let config = context.config()?;
    home(&config, "push definitions")?;
    let local = gather(context, &arguments.file)?;
    // Warnings are those of the member that takes it.
    if let Err(faults) = check(context, &local) {
        return Err(faulty(context, &arguments.file, &local.named(faults)));
    }
    let body = json!({
        "documents": local.documents,
        "base": arguments.base.as_ref().or(local.base.as_ref()),
        "force": arguments.how.force,
        "message": arguments.how.message,
        "author": files::author(&context.environment),
        "push": uuid::Uuid::new_v4().simple().to_string(),
    });
    let api = context.api_as(&config, Role::Admin)?;
    let pushed: Pushed = match api.put_repeatable(&["config", "definitions"], &body).await {
        Ok(pushed) => pushed,
        Err(error) => return Err(refused(context, error, "push the definitions", &local)),
    };
    if local.base.is_some() {
        local.write_base(&pushed.version)?;
    }
    show_pushed(context, &api, &pushed, &local.named(pushed.warnings.clone())).await
}

async fn roll_back(context: &Context, arguments: &RollbackArguments) -> Result<(), CommandError> {
    let config = context.config()?;
    home(&config, "roll back definitions")?;
    // What is given up is what is there now, and not what somebody pushes meanwhile.
    let base = match &arguments.base {
        None if !arguments.how.force => in_zookeeper(context, &config).await?,
        given => given.clone(),
    };
    let body = json!({
        "version": arguments.version,
        "base": base,
        "force": arguments.how.force,
        "message": arguments.how.message,
        "author": files::author(&context.environment),
        "push": uuid::Uuid::new_v4().simple().to_string(),
    });
    let api: ApiClient = context.api_as(&config, Role::Admin)?;
    let pushed: Pushed = match api.post_repeatable(&["config", "rollback"], &body).await {
        Ok(pushed) => pushed,
        Err(error) => return Err(refused(context, error, "roll back the definitions", &Local::nothing())),
    };
    show_pushed(context, &api, &pushed, &pushed.warnings).await
}

async fn show_pushed(
    context: &Context,
    api: &ApiClient,
    pushed: &Pushed,
    warnings: &[Fault],
) -> Result<(), CommandError> {
    if !warnings.is_empty() {
        eprint!("{}", render::human(warnings, context.error_color()));
    }
    let members = rollout::follow(api, &pushed.version).await;
    for warning in members.iter().flat_map(Rollout::warnings) {
        eprintln!("warning: {warning}");
    }
    let rollout =
        members.as_ref().map_or_else(|| "no member tells whether it is in force".to_owned(), Rollout::summary);
    context.output.one(&Outcome { pushed, members }, &PUSHED_FIELDS, || {
        let outcome = if pushed.changed {
            Cell::toned(format!("pushed; {rollout}"), Tone::Good)
        } else {
            Cell::toned(format!("was there already, nothing was written; {rollout}"), Tone::Muted)
        };
        vec![
            ("version", pushed.version.clone().into()),
            ("in place of", pushed.previous_version.clone().unwrap_or_else(|| "nothing".to_owned()).into()),
            ("schedules", pushed.schedules.to_string().into()),
            ("outcome", outcome),
        ]
    })
}

/// What a member refused, with the faults that it found.
fn refused(context: &Context, error: CallError, action: &str, local: &Local) -> CommandError {
    let faults = error.faults().to_vec();
    if !faults.is_empty() {
        eprint!("{}", render::human(&local.named(faults), context.error_color()));
    }
    error.into_error_of(action, Role::Admin)
}

async fn pull(context: &Context, arguments: &PullArguments) -> Result<(), CommandError> {
    let config = context.config()?;
    let current = current(context, &config).await?;
    let to_file = arguments.file.as_ref().filter(|file| file.as_os_str() != "-");
    let Some(file) = to_file else {
        return match context.output.format() {
            OutputFormat::Json => output::json(&current),
            _ => output::text_as_is(&files::with_base(&current)),
        };
    };
    let written = files::write(file, &current, arguments.force)?;
    for path in written {
        eprintln!("wrote {}", path.display());
    }
    match context.output.format() {
        OutputFormat::Json => output::json(&current),
        _ => output::line(&format!("version {} {}", current.version, by(&current))),
    }
}

async fn differences(context: &Context, arguments: &DiffArguments) -> Result<(), CommandError> {
    let config = context.config()?;
    let (from, from_documents) = match &arguments.from {
        Some(version) => {
            let (entry, documents) = version_of_history(context, &config, version).await?;
            (entry.version, documents)
        }
        None => match current_if_any(context, &config).await? {
            Some(current) => (current.version, current.documents),
            None => ("nothing".to_owned(), Vec::new()),
        },
    };
    let (to, to_documents) = if let Some(file) = &arguments.file {
        let local = gather(context, file)?;
        match check(context, &local) {
            Ok(warnings) if warnings.is_empty() => {}
            Ok(warnings) => eprint!("{}", render::human(&local.named(warnings), context.error_color())),
            Err(faults) => {
                eprint!("{}", render::human(&local.named(faults), context.error_color()));
                eprintln!("as it is, `config push` refuses it");
            }
        }
        (file.display().to_string(), local.documents)
    } else {
        let current = current(context, &config).await?;
        (current.version, current.documents)
    };
    let changes = diff::diff(&from_documents, &to_documents)
        .map_err(|error| CommandError::usage(format!("failed to {error}")).hint("correct it, or pull it anew"))?;
    show::changes(&context.output, &from, &to, &changes)
}

async fn show_history(context: &Context, arguments: &HistoryArguments) -> Result<(), CommandError> {
    let config = context.config()?;
    if let Some(version) = &arguments.version {
        let (entry, documents) = version_of_history(context, &config, version).await?;
        return match context.output.format() {
            OutputFormat::Json => output::json(&json!({ "version": entry, "documents": documents })),
            _ => output::text_as_is(&files::joined(&documents)),
        };
    }
    let zones = context.zones(&config);
    let (mut entries, mut cursor) = (Vec::new(), None);
    if let Some(ledger) = context.ledger_if_any(&config).await? {
        loop {
            let page = ledger.definitions(PAGE, cursor.as_deref()).await?;
            entries.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
    }
    let rows = || {
        let mut rows = Rows::new([
            ("NUMBER", Fit::Number),
            ("VERSION", Fit::Whole),
            ("IN FORCE SINCE", Fit::Whole),
            ("FROM", Fit::Optional),
            ("BY", Fit::Wrap),
            ("SCHEDULES", Fit::OptionalNumber),
            ("MESSAGE", Fit::Wrap),
        ]);
        for entry in &entries {
            rows.push([
                entry.number.to_string().into(),
                entry.version.clone().into(),
                show_time(entry.in_force_at, zones.common()).into(),
                entry.source.clone().into(),
                entry.author.clone().unwrap_or_default().into(),
                entry.schedules.to_string().into(),
                entry.message.clone().unwrap_or_default().into(),
            ]);
        }
        rows
    };
    context.output.list(&entries, &HISTORY_FIELDS, rows, "no definitions were in force yet")
}

async fn version_of_history(
    context: &Context,
    config: &Config,
    which: &str,
) -> Result<(DefinitionsVersion, Vec<Document>), CommandError> {
    let found = context.ledger(config).await?.definitions_of(which).await?;
    let (entry, text) = found.ok_or_else(|| {
        CommandError::failed(format!("failed to {}", PushError::NoVersion(which.to_owned())))
            .hint(PushError::NO_VERSION_HINT)
    })?;
    let documents = history::documents(&entry, &text)?;
    Ok((entry, documents))
}

/// The set in ZooKeeper.
async fn current(context: &Context, config: &Config) -> Result<Definitions, CommandError> {
    current_if_any(context, config).await?.ok_or_else(|| {
        CommandError::failed("failed to read the definitions: there are none in ZooKeeper")
            .hint("write some with `flowkeeper config push FILE`")
    })
}

/// The version in ZooKeeper; `None` if there is none, or something that is no set.
async fn in_zookeeper(context: &Context, config: &Config) -> Result<Option<String>, CommandError> {
    match found(context, config).await? {
        Found::Set(bundle, _) => Ok(Some(bundle.version)),
        Found::Nothing { .. } | Found::Rubbish(..) => Ok(None),
    }
}

/// The set in ZooKeeper; `None` if nobody has pushed one.
async fn current_if_any(context: &Context, config: &Config) -> Result<Option<Definitions>, CommandError> {
    match found(context, config).await? {
        Found::Nothing { .. } => Ok(None),
        Found::Set(bundle, stat) => Ok(Some(Definitions::new(*bundle, stat.version))),
        Found::Rubbish(rubbish, _) => Err(CommandError::failed(format!(
            "failed to read the definitions in ZooKeeper: the znode `{ZNODE}` {rubbish}"
        ))
        .next("the members keep the definitions that were in force")
        .hint(rubbish.hint())),
    }
}

/// What there is in ZooKeeper.
async fn found(context: &Context, config: &Config) -> Result<Found, CommandError> {
    let home = home(config, "read the definitions in ZooKeeper")?;
    let environment = Arc::new(context.environment.clone());
    let settings = connect::zookeeper(home.connection.clone(), environment, "zookeeper".to_owned())
        .map_err(|error| CommandError::usage(format!("failed to {error}")))?;
    let away = |reason: String| {
        CommandError::unreachable(format!("failed to read the definitions in ZooKeeper: {reason}"))
            .hint("is it running? `flowkeeper config history` reads the ledger: the newest version is in force")
    };
    let visit = connect::visit(None, settings, context.clock.clone(), ZOOKEEPER_PATIENCE).await.map_err(away)?;
    let path = format!("{}/{ZNODE}", home.root.trim_end_matches('/'));
    znodes::read(&visit.session, &path).await.map_err(|error| away(error.to_string()))
}

/// The home ensemble, where the definitions are in it.
fn home<'c>(config: &'c Config, action: &str) -> Result<&'c ZooKeeper, CommandError> {
    let home = config.zookeeper.as_ref().filter(|_| config.server.definitions == DefinitionsSource::ZooKeeper);
    home.ok_or_else(|| {
        CommandError::usage(format!(
            "failed to {action}: {} says that they are files ([server] definitions = \"file\")",
            config.file.display()
        ))
        .hint(
            "edit the files; `flowkeeper config history VERSION` prints what was in force before. To move them to \
             ZooKeeper, go by docs/live-configuration.md",
        )
    })
}

fn gather(context: &Context, file: &Path) -> Result<Local, CommandError> {
    Local::gather(file).map_err(|Faults { faults, .. }| faulty(context, file, &faults))
}

/// Checks a set as the member will; what is probably not meant, or what is wrong.
fn check(context: &Context, local: &Local) -> Result<Vec<Fault>, Vec<Fault>> {
    config::check_definitions(&context.global.config, &local.documents, &context.environment)
        .map(|(_, warnings)| warnings)
        .map_err(|Faults { faults, .. }| faults)
}

fn faulty(context: &Context, file: &Path, faults: &[Fault]) -> CommandError {
    match context.output.format() {
        OutputFormat::Json => {
            // What a program reads about it; a reader that went away has seen enough.
            drop(output::json(&render::json(faults)));
            CommandError::shown(Exit::Usage)
        }
        _ => CommandError::usage(format!(
            "failed to read the definitions in {}\n\n{}",
            file.display(),
            render::human(faults, context.error_color()).trim_end()
        ))
        .next("nothing was done"),
    }
}

fn by(current: &Definitions) -> String {
    let author = current.author.as_deref().map(|author| format!("by {author}"));
    let message = current.message.as_deref().map(|message| format!("({message})"));
    author.into_iter().chain(message).collect::<Vec<_>>().join(" ")
}
