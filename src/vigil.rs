//! The death of a background task, for whoever must not go on without it.
//!
//! A handle on a ledger, an ensemble or a membership outlives the task behind it. Should that panic,
//! whoever holds the handle would wait for ever, or believe what was told last. So each such task runs
//! under a [`Vigil`], and the process that depends on it watches (`lifecycle`).

use std::sync::Arc;

use tokio::sync::watch;

/// Watches over tasks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Vigil(Arc<watch::Sender<Option<String>>>);

impl Vigil {
    /// Runs a task, and tells if it panics. A task that returns has done its work.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (vigil, task) = (self.clone(), tokio::spawn(task));
        tokio::spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                vigil.0.send_replace(Some(error.to_string()));
            }
        });
    }

    /// Waits until a task has panicked, and tells what it said.
    pub async fn panicked(&self) -> String {
        let mut last_words = self.0.subscribe();
        match last_words.wait_for(Option::is_some).await.map(|words| words.clone()) {
            Ok(Some(words)) => words,
            // This vigil holds the sender, so there always is one.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_a_return_is_not() {
        let vigil = Vigil::default();
        vigil.spawn(async {});
        assert!(tokio::time::timeout(Duration::from_millis(50), vigil.panicked()).await.is_err());
        vigil.spawn(async { panic!("no more disk") });
        assert!(vigil.panicked().await.contains("no more disk"));
        assert!(vigil.clone().panicked().await.contains("no more disk"), "whoever asks later hears it as well");
    }
}
