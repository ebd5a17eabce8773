//! The command line: what a person types, and what is printed for them.
//!
//! Commands print and decide nothing. Those that read open the ledger, so they work when no member is
//! serving; those that act ask a serving member over its HTTP API, so that there is one place where
//! actions are checked and audited. Standard output carries the answer alone; progress, logs and
//! errors go to standard error.

mod adopt;
mod airflow;
mod arguments;
mod backfill;
mod check;
mod client;
mod context;
mod definitions;
mod error;
mod health;
mod history;
mod lock;
mod locks;
mod members;
mod next;
mod output;
mod runs;
mod schedules;
mod serve;
mod setup;
mod show;
mod sync;
mod time;
mod trigger;
mod why;

pub use arguments::{Cli, Command, GlobalOptions, OutputFormat};
pub use error::{CommandError, Exit};

use context::Context;

/// Carries out a command; what went wrong is printed to standard error.
pub async fn run(cli: Cli) -> Exit {
    let context = Context::new(cli.global);
    match dispatch(&context, &cli.command).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            if !error.is_silent() {
                eprintln!("{error}");
            }
            error.exit()
        }
    }
}

async fn dispatch(context: &Context, command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Init(arguments) => setup::init(context, arguments),
        Command::Check(arguments) => check::run(context, arguments).await,
        Command::Health(arguments) => health::run(context, arguments).await,
        Command::Serve(arguments) => serve::run(context, arguments).await,
        Command::Next(arguments) => next::run(context, arguments).await,
        Command::Schedules(arguments) => schedules::list(context, arguments).await,
        Command::Pause(arguments) => schedules::pause(context, arguments).await,
        Command::Resume(arguments) => schedules::resume(context, arguments).await,
        Command::Trigger(arguments) => trigger::run(context, arguments).await,
        Command::Backfill(arguments) => backfill::run(context, arguments).await,
        Command::Runs(arguments) => runs::run(context, arguments).await,
        Command::Stats(arguments) => history::stats(context, arguments).await,
        Command::Why(arguments) => why::run(context, arguments).await,
        Command::Audit(arguments) => history::audit(context, arguments).await,
        Command::Adopt(arguments) => adopt::run(context, arguments).await,
        Command::Config { command } => definitions::run(context, command).await,
        Command::Locks => locks::run(context).await,
        Command::Lock(arguments) => lock::run(context, arguments).await,
        Command::Airflow => airflow::run(context).await,
        Command::Members => members::run(context).await,
        Command::Sync(command) => sync::run(context, command).await,
        Command::Schema => setup::schema(),
        Command::Completions(arguments) => setup::completions(arguments),
    }
}
