"""A DAG that looks after a ZooKeeper ensemble: `zookeeper_maintenance_dag`, for Airflow 2.7+ and 3.

How fast snapshots, logs and the tree grow, and which ephemeral znodes belong to nobody any more.
It reports, and deletes nothing.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from flowkeeper_client import Finding, Owner, Owners
from flowkeeper_operators import (
    DEFAULT_CONNECTION,
    FlowkeeperOperator,
    SummaryOperator,
    aligned,
    judge,
    number,
    require_fail_on,
    result,
    triggered_dag,
    worst,
)

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG

#: The checks whose numbers grow.
GROWING: Tuple[str, ...] = ("directory_size", "znode_count", "data_size")

#: The XCom in which a task finds what it measured in earlier runs.
HISTORY = "history"

#: The most measurements that are carried along.
MOST = 100

DAY = 86400.0


# --- decisions ---------------------------------------------------------------


def remembered(
    history: Sequence[Mapping[str, Any]], now: float, values: Mapping[str, float], window: float
) -> List[Dict[str, Any]]:
    """The measurements to remember: those of the last `window` seconds, and the one of now.

    One before the window stays as well, so that it is spanned whole.
    """
    times = [entry["at"] for entry in history if entry["at"] < now]
    begin = max((at for at in times if at <= now - window), default=now - window)
    kept = [dict(entry) for entry in history if begin <= entry["at"] < now]
    return [*kept[-(MOST - 1) :], {"at": now, "values": dict(values)}]


def growth(history: Sequence[Mapping[str, Any]]) -> Dict[str, float]:
    """How much each server's number grew by a day, from its first measurement to its last; nothing
    for servers with one alone."""
    rates = {}
    for server in history[-1]["values"] if history else ():
        known = [(entry["at"], entry["values"][server]) for entry in history if server in entry["values"]]
        (first_at, first), (last_at, last) = known[0], known[-1]
        if last_at > first_at:
            rates[server] = (last - first) / (last_at - first_at) * DAY
    return rates


def days_left(value: Optional[float], limit: Optional[float], rate: Optional[float]) -> Optional[float]:
    """In how many days a growing number reaches its limit; `None` if it does not."""
    if value is None or limit is None or rate is None or rate <= 0:
        return None
    return max(0.0, (limit - value) / rate)


def growth_table(findings: Sequence[Finding], rates: Mapping[str, float]) -> List[str]:
    """The lines of a table with a row a server."""
    rows: List[Tuple[str, ...]] = [
        ("SERVER", "VERDICT", "VALUE", "UNIT", "A DAY", "WARNING IN", "CRITICAL IN", "MEANING")
    ]
    for one in findings:
        rate = rates.get(one.server or "ensemble")
        left = [days_left(one.value, limit, rate) for limit in (one.warn, one.critical)]
        shown = [f"{days:,.1f} days" if days is not None else "" for days in left]
        change = "" if rate is None else f"{'+' if rate > 0 else ''}{number(rate)}"
        rows.append(
            (one.server or "(ensemble)", one.verdict, number(one.value), one.unit or "", change, *shown, one.meaning)
        )
    return aligned(rows)


def too_fast(rates: Mapping[str, float], most: Optional[float], unit: Optional[str]) -> Optional[str]:
    """What to say if a number grows by more than `most` a day."""
    over = {server: rate for server, rate in rates.items() if most is not None and rate > most}
    if not over:
        return None
    told = ", ".join(f"{server} by {number(rate)}" for server, rate in sorted(over.items()))
    return f"It grows by more than {number(most)} {unit or ''} a day: {told}."


def still_stale(before: Owners, after: Owners) -> List[Owner]:
    """Who was found without a session and without a connection twice: one look alone may meet a
    session while it begins or ends."""
    earlier = {owner.session for owner in before.owners if owner.is_stale}
    return [owner for owner in after.owners if owner.is_stale and owner.session in earlier]


def owners_table(owners: Sequence[Owner]) -> List[str]:
    """The lines of a table with a row a session; those that are stale, then those with the oldest
    connections."""
    words = {True: "yes", False: "no", None: "unknown"}
    rows = [("SESSION", "ALIVE", "CONNECTED", "FOR DAYS", "ZNODES", "CLIENTS", "PATHS")]
    for one in sorted(owners, key=lambda owner: (not owner.is_stale, -(owner.connected_for or 0.0))):
        age = "" if one.connected_for is None else f"{one.connected_for / DAY:.1f}"
        paths = " ".join(one.paths) + (" …" if one.ephemerals > len(one.paths) else "")
        rows.append(
            (
                one.session,
                words[one.alive],
                words[one.connected],
                age,
                str(one.ephemerals),
                " ".join(one.clients),
                paths,
            )
        )
    return aligned(rows)


def stale_owners(owners: Sequence[Owner]) -> str:
    """What to say of owners that are gone while their znodes are not."""
    lines = [f"{one.session} owns {one.ephemerals} znodes, among them {', '.join(one.paths)}" for one in owners]
    return "\n".join(
        [
            "Ephemeral znodes are left of sessions that no server knows: what they lock or announce is held by nobody.",
            *lines,
            "Make sure that no client stands behind them, delete them by hand, and compare the servers' "
            "data: a server that keeps them may have diverged from the leader.",
        ]
    )


# --- tasks -------------------------------------------------------------------


class GrowthOperator(FlowkeeperOperator):
    """Runs a check whose number grows, and compares it with earlier runs of the same task."""

    def __init__(
        self,
        *,
        check: str,
        window: timedelta = timedelta(days=14),
        most_a_day: Optional[float] = None,
        fail_on: str = "critical",
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.check = check
        self.window = window
        self.most_a_day = most_a_day
        self.fail_on = fail_on

    def execute(self, context: Any) -> None:
        task = context["ti"]
        report = self.ask(lambda client: client.run_check(self.ensemble, self.check))
        left = result(report, self.check, report.findings)
        earlier = task.xcom_pull(task_ids=self.task_id, key=HISTORY, include_prior_dates=True, map_indexes=-1)
        history = remembered(earlier or [], time.time(), left["values"], self.window.total_seconds())
        task.xcom_push(key=HISTORY, value=history)
        rates = growth(history)
        excess = too_fast(rates, self.most_a_day, left["unit"])
        if excess:
            if worst(report.findings) != "critical":
                left["verdict"] = "warning"
            left["findings"].append({"server": None, "verdict": "warning", "meaning": excess})
        self.leave(context, {**left, "growth_a_day": rates})
        self.show(growth_table(report.findings, rates))
        state, why = judge(report.findings, self.fail_on)
        if excess and state != "failed":
            state, why = ("failed" if self.fail_on == "warning" else "success"), excess
        self.end(state, why)


class EphemeralOwnersOperator(FlowkeeperOperator):
    """Fails if ephemeral znodes are left of sessions that are gone.

    Whoever looks gone is looked at again after `confirm_after`: a task waits only when there is
    somebody to confirm.
    """

    def __init__(self, *, confirm_after: timedelta = timedelta(seconds=30), **arguments: Any) -> None:
        super().__init__(**arguments)
        self.confirm_after = confirm_after

    def execute(self, context: Any) -> None:
        found = self.ask(lambda client: client.owners_of_ephemerals(self.ensemble))
        stale: List[Owner] = []
        if any(owner.is_stale for owner in found.owners):
            time.sleep(self.confirm_after.total_seconds())
            before, found = found, self.ask(lambda client: client.owners_of_ephemerals(self.ensemble))
            stale = still_stale(before, found)
        verdict = "critical" if stale else "unknown" if found.unanswered and not found.owners else "ok"
        self.leave(context, self._left(found, stale, verdict))
        self.show(owners_table(found.owners))
        unanswered = "; ".join(f"{server} {error}" for server, error in found.unanswered)
        if stale:
            self.end("failed", stale_owners(stale))
        elif verdict == "unknown":
            self.end("skipped", f"It is not known who owns ephemeral znodes: {unanswered}")
        else:
            self.end("success", f"Not all servers could be asked: {unanswered}" if unanswered else "")

    def _left(self, found: Owners, stale: Sequence[Owner], verdict: str) -> Dict[str, Any]:
        sentence = f"{len(stale)} sessions are gone and still own ephemeral znodes."
        finding = {"server": None, "verdict": verdict, "meaning": sentence}
        return {
            "ensemble": found.ensemble,
            "check": self.task_id,
            "verdict": verdict,
            "values": {
                "sessions": len(found.owners),
                "ephemerals": sum(owner.ephemerals for owner in found.owners),
                "stale": len(stale),
                "not_connected": sum(owner.connected is False for owner in found.owners),
            },
            "findings": [finding],
        }


def zookeeper_maintenance_dag(
    ensemble: str,
    *,
    dag_id: Optional[str] = None,
    schedule: Any = None,
    window: timedelta = timedelta(days=14),
    most_a_day: Optional[Mapping[str, float]] = None,
    confirm_after: timedelta = timedelta(seconds=30),
    fail_on: str = "critical",
    flowkeeper_conn_id: str = DEFAULT_CONNECTION,
    retries: int = 2,
    retry_delay: timedelta = timedelta(seconds=15),
    execution_timeout: timedelta = timedelta(minutes=10),
    default_args: Optional[Dict[str, Any]] = None,
    tags: Sequence[str] = ("flowkeeper", "zookeeper"),
    **dag_arguments: Any,
) -> DAG:
    """A DAG that looks after an ensemble.

    window         over how long growth is reckoned
    most_a_day     by how much numbers may grow a day before it is a warning, for example
                   {"directory_size": 5e9}
    confirm_after  when owners that look gone are looked at again

    The other arguments are those of `zookeeper_health_dag`.
    """
    require_fail_on(fail_on)
    strange = [name for name in most_a_day or () if name not in GROWING]
    if strange:
        raise ValueError(f"most_a_day has {', '.join(strange)}; what grows is {', '.join(GROWING)}")
    asking: Dict[str, Any] = {"ensemble": ensemble, "flowkeeper_conn_id": flowkeeper_conn_id}
    with triggered_dag(
        dag_id or f"zookeeper_maintenance_{ensemble}",
        description=f"Looks after the ZooKeeper ensemble {ensemble}, by flowkeeper",
        schedule=schedule,
        retries=retries,
        retry_delay=retry_delay,
        execution_timeout=execution_timeout,
        default_args=default_args,
        tags=tags,
        dag_arguments=dag_arguments,
    ) as dag:
        tasks: List[Any] = [
            GrowthOperator(
                task_id=check,
                check=check,
                window=window,
                most_a_day=(most_a_day or {}).get(check),
                fail_on=fail_on,
                **asking,
            )
            for check in GROWING
        ]
        tasks.append(EphemeralOwnersOperator(task_id="ephemeral_owners", confirm_after=confirm_after, **asking))
        summary = SummaryOperator(task_id="summary", checks=[task.task_id for task in tasks], fail_on=fail_on)
        tasks >> summary
    return dag
