"""DAGs to try flowkeeper with: each prints the conf that it was triggered with.

They have no schedule of their own. When they run is decided in flowkeeper.toml.
"""

import json
from datetime import datetime, timezone

try:
    from airflow.sdk import dag, task
except ImportError:  # Airflow 2
    from airflow.decorators import dag, task


def example(name):
    """A DAG of this name with one task."""

    @dag(
        dag_id=name,
        schedule=None,
        start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        is_paused_upon_creation=False,
        tags=["flowkeeper"],
    )
    def definition():
        @task
        def show_conf(dag_run=None):
            print(json.dumps(dag_run.conf, indent=2, sort_keys=True))

        show_conf()

    return definition()


for name in ["nightly_load", "reload", "ingest", "rebuild"]:
    globals()[name] = example(name)
