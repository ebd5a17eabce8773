//! `check`: every fault of the configuration at once.

use super::arguments::{CheckArguments, OutputFormat};
use super::context::Context;
use super::error::CommandError;
use super::output::{self, Rows};
use crate::config::render::{self, Color};
use crate::config::{self, Fault, Faults};

/// The fields of a fault in CSV.
const FIELDS: [&str; 7] = ["severity", "file", "line", "column", "key", "message", "hint"];

pub(super) async fn run(context: &Context, arguments: &CheckArguments) -> Result<(), CommandError> {
    let file = &context.global.config;
    let (config, faults) = match config::check(file, &context.environment) {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(Faults { faults, .. }) => (None, faults),
    };
    if arguments.online && config.is_none() {
        eprintln!("Airflow and ZooKeeper were not asked: the file comes first");
    }
    print(context, &faults)?;
    match config {
        Some(config) if context.output.format() == OutputFormat::Table => output::line(&format!(
            "{} is in order: {} schedule{}",
            file.display(),
            config.schedules.len(),
            if config.schedules.len() == 1 { "" } else { "s" }
        )),
        Some(_) => Ok(()),
        None => Err(CommandError::shown()),
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
