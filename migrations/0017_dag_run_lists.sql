-- Lists of monitored DAG runs are read by when they were first seen, which `since` and `until` also mean; in
-- the place of the two indexes by number, which nothing reads any more.
CREATE INDEX dag_runs_by_time ON dag_runs (first_seen_at, id);
CREATE INDEX dag_runs_by_airflow_and_time ON dag_runs (airflow, first_seen_at, id);
CREATE INDEX dag_runs_by_dag_and_time ON dag_runs (dag_id, first_seen_at, id);
CREATE INDEX dag_runs_by_state_and_time ON dag_runs (state, first_seen_at, id);
DROP INDEX dag_runs_by_dag;
DROP INDEX dag_runs_by_state;
