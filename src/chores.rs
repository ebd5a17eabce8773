//! The recurring chores of a leader: retention, trimming, moving and counting, at fixed times in UTC.
//!
//! They run on `tokio-cron-scheduler`. Schedules do not: their times are in zones of their own, and
//! being half a second late is fine for a chore and not for them.

use std::time::Duration;

use tokio::sync::watch;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::store::{Leadership, Ledger, StoreError};

/// Old rows are deleted once an hour, away from the full hour, when people's schedules are due.
const RETENTION: &str = "0 17 * * * *";

/// Decisions without a row are trimmed once a minute.
const TRIM: &str = "41 * * * * *";

/// History follows schedules that were renamed, once a minute.
const FOLLOW: &str = "11 * * * * *";

/// Open rows are compared with Airflow, and what the dispatcher knows with them, in full every five minutes.
const RECONCILE: &str = "23 */5 * * * *";

/// Open rows are counted for the metrics.
const COUNT: &str = "*/15 * * * * *";

/// What chores work on.
#[derive(Clone)]
pub struct Chores {
    /// The ledger that they keep tidy.
    pub ledger: Ledger,
    /// Proof of leading.
    pub leadership: Leadership,
    /// How long closed rows are kept.
    pub retention: Duration,
    /// Counts the full comparisons that monitors and the dispatcher were asked for.
    pub reconcile: watch::Sender<u64>,
}

impl Chores {
    /// Does the chores until the leadership is lost.
    pub async fn run(self) -> Result<(), JobSchedulerError> {
        let mut scheduler = JobScheduler::new().await?;
        let lost = self.leadership.lost().clone();
        for (times, chore) in [
            (RETENTION, Chore::Retain),
            (TRIM, Chore::Trim),
            (FOLLOW, Chore::Follow),
            (RECONCILE, Chore::Reconcile),
            (COUNT, Chore::Count),
        ] {
            let chores = self.clone();
            scheduler
                .add(Job::new_async(times, move |_, _| {
                    let chores = chores.clone();
                    Box::pin(async move { chores.perform(chore).await })
                })?)
                .await?;
        }
        scheduler.start().await?;
        lost.cancelled().await;
        scheduler.shutdown().await
    }

    async fn perform(&self, chore: Chore) {
        if self.leadership.lost().is_cancelled() {
            return;
        }
        if let Err(error) = self.attempt(chore).await {
            // The next time comes by itself.
            tracing::warn!(chore = ?chore, error = %error, "a chore failed; it is tried again at its next time");
        }
    }

    async fn attempt(&self, chore: Chore) -> Result<(), StoreError> {
        match chore {
            Chore::Retain => {
                self.ledger.forget_gone_schedules(&self.leadership).await?;
                let deleted = self.ledger.retain(&self.leadership, self.retention).await?;
                if deleted > 0 {
                    tracing::info!(deleted, "deleted history older than `[store] retention`");
                }
            }
            Chore::Trim => self.ledger.trim_decisions(&self.leadership).await?,
            Chore::Follow => while self.ledger.move_renamed(&self.leadership).await? {},
            Chore::Reconcile => self.reconcile.send_modify(|asked| *asked += 1),
            Chore::Count => {
                for (airflow, open) in self.ledger.open_counts().await? {
                    crate::metrics::open_runs(&airflow, open);
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Chore {
    Retain,
    Trim,
    Follow,
    Reconcile,
    Count,
}
