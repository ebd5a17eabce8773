"""The DAGs that flowkeeper's tests trigger; for Airflow 2 and 3.

None has a schedule of its own. `fk_success` and `fk_failing` run a task of
Python, which costs a few seconds each; `fk_empty` has only an operator that the
scheduler closes by itself, for tests with thousands of runs.
"""

import time
from datetime import datetime

try:
    from airflow.sdk import DAG, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task

try:
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:
    from airflow.operators.empty import EmptyOperator

START = datetime(2020, 1, 1)


def dag(dag_id, **settings):
    settings.setdefault("is_paused_upon_creation", False)
    settings.setdefault("max_active_runs", 64)
    return DAG(dag_id, schedule=None, start_date=START, catchup=False, **settings)


with dag("fk_empty", max_active_runs=1000):
    EmptyOperator(task_id="nothing")

with dag("fk_success"):

    @task(retries=0)
    def show_conf(**context):
        print(context["dag_run"].conf)

    show_conf()

with dag("fk_failing"):

    @task(retries=0)
    def fail():
        raise RuntimeError("this task always fails")

    fail()

with dag("fk_fails_once"):

    @task(retries=0)
    def succeed_when_cleared(**context):
        # A cleared task instance is tried again: its second try succeeds.
        if context["ti"].try_number < 2:
            raise RuntimeError("the first try always fails")

    succeed_when_cleared()

with dag("fk_slow"):

    @task(retries=0)
    def wait(**context):
        time.sleep(float((context["dag_run"].conf or {}).get("seconds", 60)))

    wait()

with dag("fk_paused", is_paused_upon_creation=True):
    EmptyOperator(task_id="nothing")
