//! `serve`: runs a member.

use super::arguments::ServeArguments;
use super::context::Context;
use super::error::CommandError;

pub(super) async fn run(context: &Context, arguments: &ServeArguments) -> Result<(), CommandError> {
    let config = context.config()?;
    let mode = if arguments.shadow { "in the shadow " } else { "" };
    Err(CommandError::failed(format!(
        "failed to serve {mode}at {}: this build has no member yet",
        config.server.listen
    )))
}
