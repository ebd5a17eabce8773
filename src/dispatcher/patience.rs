//! Waiting for a ledger that does not answer just now: a hiccup of the database must end no run's way,
//! and no leader's term.

use std::time::Duration;

use crate::store::{Leadership, StoreError};

/// How long to wait before the ledger is asked again.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Asks the ledger until it answers, be it with a failure that does not pass; `None` once the lead is
/// lost. Says once in the log that `what` waits. `ask` must not mind being repeated.
pub(super) async fn answer_of<T, F>(
    leadership: &Leadership,
    what: &str,
    ask: impl Fn() -> F,
) -> Option<Result<T, StoreError>>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut told = false;
    let asking = async {
        loop {
            match ask().await {
                Err(error) if error.is_transient() => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            what,
                            error = %error,
                            hint = error.hint(),
                            "the dispatcher waits for the ledger; it asks again every second"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer,
            }
        }
    };
    leadership.lost().run_until_cancelled(asking).await
}
