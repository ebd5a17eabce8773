//! Airflow as a second opinion on the time: the `Date` header of its answers.

use jiff::Timestamp;

use crate::airflow::Airflow;
use crate::triggers::cron::TimeWitness;

/// The clocks of all Airflows; the first that answers is heard.
#[derive(Debug)]
pub(super) struct AirflowClocks(Vec<Airflow>);

impl AirflowClocks {
    pub(super) fn new(airflows: Vec<Airflow>) -> Self {
        Self(airflows)
    }
}

impl TimeWitness for AirflowClocks {
    async fn time(&self) -> Option<Timestamp> {
        for airflow in &self.0 {
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
        self.0.iter().filter_map(Airflow::server_date).max()
    }
}
