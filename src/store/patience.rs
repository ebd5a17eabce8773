//! Waiting for a ledger that does not answer just now: a hiccup of the database must end no run's way, no
//! trigger, and no leader's term.
//!
//! For those that can do nothing else meanwhile, and do not mind asking twice. Loops that come round again
//! by themselves ask again then.

use std::time::Duration;

use super::{Leadership, StoreError};

/// How long to wait before the ledger is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks the ledger until it answers, be it with a failure that does not pass. Says once in the log that
/// `what` waits.
pub(crate) async fn answer<T, F>(what: &str, ask: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut told = false;
    loop {
        match ask().await {
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        what,
                        error = %error,
                        hint = error.hint(),
                        "this waits for the ledger, which is asked again every second"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// The same for as long as the lead is held; `None` once it is lost.
pub(crate) async fn answer_while_leading<T, F>(
    leadership: &Leadership,
    what: &str,
    ask: impl Fn() -> F,
) -> Option<Result<T, StoreError>>
where
    F: Future<Output = Result<T, StoreError>>,
{
    leadership.lost().run_until_cancelled(answer(what, ask)).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::store::Ledger;

    async fn leadership() -> (tempfile::TempDir, Leadership) {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let leadership = Ledger::open(&url, Clock::system()).await.unwrap().take_lead("a member").await.unwrap();
        (directory, leadership)
    }

    #[tokio::test]
    async fn what_passes_is_waited_for_and_what_does_not_is_told() {
        let (_directory, leadership) = leadership().await;
        let asked = AtomicU32::new(0);
        let answer = answer_while_leading(&leadership, "a test", || async {
            if asked.fetch_add(1, Ordering::Relaxed) < 2 { Err(StoreError::OutcomeUnknown) } else { Ok("done") }
        });
        assert!(matches!(answer.await, Some(Ok("done"))));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        let refused = answer_while_leading::<(), _>(&leadership, "a test", || async { Err(StoreError::Closed) });
        assert!(matches!(refused.await, Some(Err(StoreError::Closed))));
    }

    #[tokio::test]
    async fn nobody_waits_without_the_lead() {
        let (_directory, leadership) = leadership().await;
        let waiting = answer_while_leading::<(), _>(&leadership, "a test", || async {
            leadership.give_up();
            Err(StoreError::OutcomeUnknown)
        });
        assert!(waiting.await.is_none());
    }
}
