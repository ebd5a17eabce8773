//! `check`: every fault of the configuration at once.

use std::sync::Arc;

use super::arguments::{CheckArguments, OutputFormat};
use super::context::Context;
use super::error::{CommandError, Exit};
use super::output::{self, Rows};
use crate::app::preflight::check_online;
use crate::config::render::{self, Color};
use crate::config::{self, Fault, Faults, Severity};

/// The fields of a fault in CSV.
const FIELDS: [&str; 7] = ["severity", "file", "line", "column", "key", "message", "hint"];

pub(super) async fn run(context: &Context, arguments: &CheckArguments) -> Result<(), CommandError> {
    let file = &context.global.config;
    let (config, mut faults) = match config::check(file, &context.environment) {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(Faults { faults, .. }) => (None, faults),
    };
    let in_order = config.is_some();
    match &config {
        Some(config) if arguments.online => {
            let environment = Arc::new(context.environment.clone());
            faults.extend(check_online(config, &environment, &context.clock).await);
        }
        None if arguments.online => eprintln!("Airflow and ZooKeeper were not asked: the file comes first"),
        _ => {}
    }
    print(context, &faults)?;
    let any_error = faults.iter().any(|fault| fault.severity == Severity::Error);
    match config {
        Some(config) if !any_error && context.output.format() == OutputFormat::Table => output::line(&format!(
            "{} is in order: {} schedule{}{}",
            file.display(),
            config.schedules.len(),
            if config.schedules.len() == 1 { "" } else { "s" },
            if arguments.online { "; Airflow and ZooKeeper answer, and the DAGs are there" } else { "" }
        )),
        _ if !any_error => Ok(()),
        // The file is in order, and what it names is not.
        _ if in_order => Err(CommandError::shown(Exit::Failed)),
        _ => Err(CommandError::shown(Exit::Usage)),
    }
}

/// Prints faults; in a table's place stands the text that people read.
fn print(context: &Context, faults: &[Fault]) -> Result<(), CommandError> {
    let output = &context.output;
    match output.format() {
        OutputFormat::Json => output::json(&render::json(faults)),
        OutputFormat::Csv => output.list(faults, &FIELDS, || Rows::new([]), ""),
        OutputFormat::Github => output::text_as_is(&render::github(faults)),
        OutputFormat::Table => {
            let color = if output.uses_color() { Color::On } else { Color::Off };
            output::text_as_is(&render::human(faults, color))
        }
    }
}
