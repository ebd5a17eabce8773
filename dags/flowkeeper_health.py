"""A DAG whose tasks are the checks of a ZooKeeper ensemble: `zookeeper_health_dag`, for Airflow 2.7+ and 3.

Each check is one task with the check's name, so that the grid has a row a check and its history in
the row. flowkeeper runs the checks and decides when the DAG runs. The list of checks is a constant:
reading a DAG file asks nobody.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Dict, Iterable, List, Optional, Sequence

from flowkeeper_client import CHECKS
from flowkeeper_operators import (
    DEFAULT_CONNECTION,
    HAS_LABELS,
    CheckOperator,
    ServersOperator,
    SummaryOperator,
    require_fail_on,
    triggered_dag,
)

try:
    from airflow.sdk import DAG, TaskGroup
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.utils.task_group import TaskGroup


def zookeeper_health_dag(
    ensemble: str,
    *,
    dag_id: Optional[str] = None,
    schedule: Any = None,
    checks: Optional[Iterable[str]] = None,
    per_server: bool = False,
    fail_on: str = "critical",
    flowkeeper_conn_id: str = DEFAULT_CONNECTION,
    retries: int = 2,
    retry_delay: timedelta = timedelta(seconds=15),
    execution_timeout: timedelta = timedelta(minutes=5),
    default_args: Optional[Dict[str, Any]] = None,
    tags: Sequence[str] = ("flowkeeper", "zookeeper"),
    **dag_arguments: Any,
) -> DAG:
    """A DAG that checks an ensemble.

    ensemble       its name in flowkeeper's configuration; `home` is the one that flowkeeper lives in
    dag_id         by default `zookeeper_health_` and the ensemble's name
    schedule       none by default: flowkeeper decides when it runs
    checks         names of checks; all by default
    per_server     checks of servers are mapped: a task instance a server
    fail_on        "critical", or "warning" as well
    retries        for when no flowkeeper answers; what it found is not tried again
    """
    require_fail_on(fail_on)
    chosen = _chosen(checks)
    dag = triggered_dag(
        dag_id or f"zookeeper_health_{ensemble}",
        description=f"The health of the ZooKeeper ensemble {ensemble}, checked by flowkeeper",
        schedule=schedule,
        retries=retries,
        retry_delay=retry_delay,
        execution_timeout=execution_timeout,
        default_args=default_args,
        tags=tags,
        dag_arguments={"max_active_tasks": 8, **dag_arguments},
    )
    asking: Dict[str, Any] = {"ensemble": ensemble, "flowkeeper_conn_id": flowkeeper_conn_id}
    labelled = {"map_index_template": "{{ server }}"} if HAS_LABELS else {}
    with dag:
        is_mapped = per_server and any(check.per_server for check in chosen)
        servers = ServersOperator(task_id="servers", **asking) if is_mapped else None
        summary = SummaryOperator(task_id="summary", checks=[check.name for check in chosen], fail_on=fail_on)
        groups: Dict[str, TaskGroup] = {}
        tasks: List[Any] = []
        for check in chosen:
            if check.group not in groups:
                groups[check.group] = TaskGroup(check.group, prefix_group_id=False)
            judging = {**asking, "check": check.name, "fail_on": fail_on, "task_group": groups[check.group]}
            if servers is not None and check.per_server:
                mapped = CheckOperator.partial(task_id=check.name, **judging, **labelled)
                tasks.append(mapped.expand(server=servers.output))
            else:
                tasks.append(CheckOperator(task_id=check.name, **judging))
        tasks >> summary
    return dag


def _chosen(names: Optional[Iterable[str]]) -> Any:
    """The checks that are meant, in their own order."""
    if names is None:
        return CHECKS
    wanted = list(names)
    known = [check.name for check in CHECKS]
    strange = [name for name in wanted if name not in known]
    if strange or not wanted:
        raise ValueError(f"no checks are called {', '.join(strange) or 'nothing'}; there are {', '.join(known)}")
    return tuple(check for check in CHECKS if check.name in wanted)
