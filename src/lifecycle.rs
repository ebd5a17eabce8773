//! The life of the process: its tasks, its signals, and the order in which it ends.
//!
//! The first signal asks tasks to finish what they have begun; the second ends the process at once.
//! A task that ends by itself with an error takes the process down, since a scheduler with one limb
//! missing looks healthy and is not.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::vigil::Vigil;

/// How long tasks may take to finish after the first signal.
const PATIENCE: Duration = Duration::from_secs(40);

/// The tasks of the process and the wish to end them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    ending: CancellationToken,
    tasks: TaskTracker,
    failure: Arc<Mutex<Option<String>>>,
}

impl Lifecycle {
    /// With no tasks and no wish to end.
    pub fn new() -> Self {
        Self::default()
    }

    /// Is cancelled when the process is to end.
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Runs a task of the process; its error is the process's.
    pub fn spawn<E: Display + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let lifecycle = self.clone();
        self.tasks.spawn(async move {
            match tokio::spawn(task_error(task)).await {
                Ok(None) => {}
                Ok(Some(error)) => lifecycle.fail(name, &error),
                Err(panic) => lifecycle.fail(name, &format!("it panicked: {panic}")),
            }
        });
    }

    /// Ends the process when a task panics that is not its own, but that it cannot do without.
    pub fn watch(&self, name: &'static str, vigil: Vigil) {
        self.watch_until(name, vigil, self.ending.clone());
    }

    /// As [`Self::watch`], until `over`: then the process can do without the task.
    pub fn watch_until(&self, name: &'static str, vigil: Vigil, over: CancellationToken) {
        self.spawn(name, async move {
            tokio::select! {
                () = over.cancelled() => Ok(()),
                last_words = vigil.panicked() => Err(last_words),
            }
        });
    }

    /// Ends the process since a task failed, unless it is ending anyway.
    pub fn fail(&self, name: &'static str, error: &dyn Display) {
        if self.ending.is_cancelled() {
            tracing::debug!(task = name, error = %error, "a task ended with an error while the process was ending");
            return;
        }
        tracing::error!(task = name, error = %error, "a task failed, so the process ends; nothing recorded is lost");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(format!("{name}: {error}"));
        self.ending.cancel();
    }

    /// Asks everything to end.
    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Waits for a signal, or for a task to fail.
    pub async fn ended(&self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("interrupted: finishing requests in flight; a second time stops at once"),
            _ = terminate.recv() => tracing::info!("asked to end: finishing requests in flight"),
            () = self.ending.cancelled() => {}
        }
        self.ending.cancel();
        Ok(())
    }

    /// Waits until every task has finished, a second signal comes or patience runs out; the error of
    /// the task that failed, if one did.
    pub async fn finish(&self) -> Result<(), String> {
        self.tasks.close();
        let second = async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return std::future::pending().await;
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        };
        tokio::select! {
            () = self.tasks.wait() => {}
            () = second => tracing::warn!("stopped at once; open work is found again at the next start"),
            () = tokio::time::sleep(PATIENCE) => {
                tracing::warn!("tasks did not finish in time; open work is found again at the next start");
            }
        }
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

/// The task's error as text, so that what runs it does not depend on its type.
async fn task_error<E: Display>(task: impl Future<Output = Result<(), E>>) -> Option<String> {
    task.await.err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_fails_ends_the_process_with_its_error() {
        let lifecycle = Lifecycle::new();
        let ending = lifecycle.ending().clone();
        lifecycle.spawn("waiting", async move {
            ending.cancelled().await;
            Ok::<(), String>(())
        });
        lifecycle.spawn("failing", async { Err("no more disk") });
        lifecycle.ended().await.unwrap();
        assert_eq!(lifecycle.finish().await, Err("failing: no more disk".to_owned()));
    }

    #[tokio::test]
    async fn a_watched_task_that_panics_ends_the_process() {
        let (lifecycle, vigil) = (Lifecycle::new(), Vigil::default());
        lifecycle.watch("ledger", vigil.clone());
        vigil.spawn(async { panic!("no more disk") });
        lifecycle.ended().await.unwrap();
        let failure = lifecycle.finish().await.unwrap_err();
        assert!(failure.starts_with("ledger: ") && failure.contains("no more disk"), "{failure}");
    }

    #[tokio::test]
    async fn a_watched_task_that_lives_does_not_hold_the_process_up() {
        let lifecycle = Lifecycle::new();
        lifecycle.watch("ledger", Vigil::default());
        lifecycle.end();
        assert_eq!(lifecycle.finish().await, Ok(()));
    }

    #[tokio::test]
    async fn tasks_that_end_on_request_are_no_failure() {
        let lifecycle = Lifecycle::new();
        let ending = lifecycle.ending().clone();
        lifecycle.spawn("waiting", async move {
            ending.cancelled().await;
            Err("cut off")
        });
        lifecycle.end();
        assert_eq!(lifecycle.finish().await, Ok(()));
    }
}
