"""The three DAGs of flowkeeper's demo. Each prints the conf that it was given.

None has a schedule of its own: flowkeeper decides when they run.
"""

from datetime import datetime

from airflow.sdk import DAG, task

for dag_id, description in {
    "demo_clock": "triggered every ten seconds",
    "demo_ready": "triggered when the znode /demo/ready is created or changed",
    "demo_inbox": "triggered for every child of the znode /demo/inbox",
}.items():
    with DAG(
        dag_id,
        description=description,
        schedule=None,
        start_date=datetime(2020, 1, 1),
        max_active_runs=16,
        is_paused_upon_creation=False,
        tags=["flowkeeper"],
    ):

        @task
        def show_conf(**context):
            print(context["dag_run"].conf)
            return context["dag_run"].conf

        show_conf()
