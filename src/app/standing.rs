//! Whether this member leads: the loop that takes the lead, sees that it was lost, and ends terms.

use std::sync::Arc;
use std::time::Duration;

use super::ServeError;
use super::member::Member;
use super::term::Term;

/// How long the parts of a term may take to finish what they had begun. As long as the process gives
/// its tasks: nothing follows but its end.
const TERM_PATIENCE: Duration = Duration::from_secs(40);

/// Leads until the process ends or a newer member has taken over.
pub(super) async fn run(member: Arc<Member>) -> Result<(), ServeError> {
    let leadership = member.ledger.take_lead(&member.name()).await?;
    let term = Term::begin(&member, leadership).await?;
    tracing::info!(epoch = term.leadership().epoch(), "took the lead");
    member.status.set_started();
    let ending = member.lifecycle.ending();
    tokio::select! {
        () = ending.cancelled() => {}
        () = term.leadership().lost().cancelled() => {}
    }
    let replaced = !ending.is_cancelled();
    term.end(TERM_PATIENCE).await;
    if replaced { Err(ServeError::Replaced) } else { Ok(()) }
}
