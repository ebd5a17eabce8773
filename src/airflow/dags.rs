//! What Airflow says about the DAGs that schedules use.
