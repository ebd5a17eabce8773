//! `serve`: runs a member.

use std::io::IsTerminal as _;

use super::arguments::ServeArguments;
use super::context::Context;
use super::error::CommandError;
use super::output::Output;
use crate::app::{self, ServeError, ServeOptions, logging};
use crate::store::StoreError;

pub(super) async fn run(context: &Context, arguments: &ServeArguments) -> Result<(), CommandError> {
    let set = context.set()?;
    let colours = Output::colors(context.global.color, std::io::stderr().is_terminal());
    logging::start(set.config.log, colours)
        .map_err(|error| CommandError::failed(format!("failed to begin the log: {error}")))?;
    let options = ServeOptions { shadow: arguments.shadow };
    app::serve(set, context.environment.clone(), options).await.map_err(|error| {
        let message = format!("failed to {error}");
        let told = match &error {
            ServeError::Connect(_) | ServeError::Token(_) | ServeError::OtherStore { .. } => {
                CommandError::usage(message)
            }
            ServeError::Store(StoreError::Connect { .. }) => CommandError::unreachable(message),
            _ => CommandError::failed(message),
        };
        match error.hint() {
            Some(hint) => told.hint(hint),
            None => told,
        }
    })
}
