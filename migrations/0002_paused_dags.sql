-- Since when Airflow has been seen to hold a schedule back, because its DAG is paused there.
ALTER TABLE schedules ADD COLUMN dag_paused_at BIGINT;
