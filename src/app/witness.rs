//! Airflow as a second opinion on the time: the `Date` header of its answers.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use crate::airflow::Airflow;
use crate::operations::Airflows;
use crate::triggers::cron::TimeWitness;

/// The clocks of all Airflows; the first that answers is heard.
#[derive(Debug)]
pub(super) struct AirflowClocks(watch::Receiver<Airflows>);

impl AirflowClocks {
    pub(super) fn new(airflows: watch::Receiver<Airflows>) -> Self {
        Self(airflows)
    }
}

impl TimeWitness for AirflowClocks {
    async fn time(&self) -> Option<Timestamp> {
        let airflows = Arc::clone(&self.0.borrow());
        for airflow in airflows.values() {
            // Whatever the answer says about health, its header tells the time.
            let answered = match airflow.health().await {
                Ok(_) => true,
                Err(error) => error.is_answer(),
            };
            if answered && let Some(time) = airflow.server_date() {
                return Some(time);
            }
        }
        None
    }
    fn heard(&self) -> Option<Timestamp> {
        // One that agrees with the wall clock is enough: a clock that is behind proves nothing.
        self.0.borrow().values().filter_map(Airflow::server_date).max()
    }
}
