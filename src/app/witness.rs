//! Airflow as a second opinion: on the time, by the `Date` header of its answers, and on the network, by
//! answering at all.

use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::airflow::Airflow;
use crate::health::rounds::NetworkWitness;
use crate::operations::Airflows;
use crate::triggers::cron::TimeWitness;

/// All Airflows; the first that answers is heard.
#[derive(Debug)]
pub(super) struct AirflowWitness(watch::Receiver<Airflows>);

impl AirflowWitness {
    pub(super) fn new(airflows: watch::Receiver<Airflows>) -> Self {
        Self(airflows)
    }
}

/// Nobody can be told of an ensemble while no Airflow answers, so nothing is lost by asking just them.
impl NetworkWitness for AirflowWitness {
    async fn answers(&self) -> bool {
        let airflows = Arc::clone(&self.0.borrow());
        let asked = airflows.values().map(|airflow| async {
            match airflow.health().await {
                Ok(_) => true,
                Err(error) => error.is_answer(),
            }
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some(answered) = answers.next().await {
            if answered {
                return true;
            }
        }
        false
    }
}

impl TimeWitness for AirflowWitness {
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
