"""How Airflow DAGs take a distributed lock of flowkeeper: two examples that exclude each other.

`flowkeeper_lock_run`: the whole DAG run holds the lock. Its schedule in flowkeeper.toml names it, a
run waits for it before Airflow hears of the run, and gives it back when the DAG run has ended:

    [[schedule]]
    name = "lock-run"
    cron = "@hourly"
    dag = "flowkeeper_lock_run"
    lock = "warehouse"

`flowkeeper_lock_task`: one task holds it, for as long as a command runs. The worker needs the
program `flowkeeper` and a configuration with a section [zookeeper]; nothing has to be serving.
While it waits the task has its slot in Airflow, so let it give up: it is skipped then.
"""

from datetime import datetime, timedelta, timezone

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.decorators import task

SETTINGS = {
    "schedule": None,
    "start_date": datetime(2020, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "is_paused_upon_creation": False,
    "tags": ["flowkeeper"],
}

with DAG("flowkeeper_lock_run", **SETTINGS) as lock_run:

    @task
    def load():
        print("nobody else has the lock `warehouse` while this DAG run lasts")

    load()

with DAG("flowkeeper_lock_task", **SETTINGS) as lock_task:
    BashOperator(
        task_id="vacuum",
        # `exec`: whoever ends the task reaches flowkeeper, which ends the command and gives the lock back.
        bash_command=(
            'exec flowkeeper --config "${FLOWKEEPER_CONFIG:-/etc/flowkeeper/flowkeeper.toml}"'
            " lock --timeout 10m warehouse -- sh -c 'echo nobody else has the lock while this runs'"
        ),
        # Somebody else held the lock all that time.
        skip_on_exit_code=124,
        # The lock was lost, or ZooKeeper was away: both pass.
        retries=2,
        retry_delay=timedelta(minutes=1),
        append_env=True,
    )
