"""Operators that ask flowkeeper, for Airflow 2.7 to 2.11 and 3: one check, its servers, the sum.

Each may be used in a DAG of one's own, for example as a gate before work that needs ZooKeeper:

    CheckOperator(task_id="zookeeper_works", ensemble="main", check="quorum")

What a verdict means to a task is decided by functions without Airflow in them (`judge`, `sum_up`).
Nothing here is asked, looked up or read before a task runs.
"""

from __future__ import annotations

import inspect
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, TypeVar

from flowkeeper_client import (
    VERDICTS,
    Client,
    Finding,
    FlowkeeperError,
    Report,
    Settings,
    SettingsError,
    UnreachableError,
)

try:
    from airflow.sdk import DAG, BaseOperator
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.models.baseoperator import BaseOperator

try:
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSkipException,
    )
except ImportError:  # Airflow 2, and the first of 3
    from airflow.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSkipException,
    )

T = TypeVar("T")

#: The Airflow connection that says how flowkeeper is reached. Without it the environment does.
DEFAULT_CONNECTION = "flowkeeper_default"

#: The XCom in which a task leaves what it found, however it ends.
RESULT = "result"

#: Tasks need one; nothing is ever caught up.
START = datetime(2020, 1, 1, tzinfo=timezone.utc)

#: Since Airflow 2.9 a mapped task may say what it is about.
HAS_LABELS = "map_index_template" in inspect.signature(BaseOperator.__init__).parameters


# --- decisions ---------------------------------------------------------------


def is_bad(verdict: str, fail_on: str) -> bool:
    """Whether a verdict makes its task fail."""
    return verdict == "critical" or (fail_on == "warning" and verdict == "warning")


def worst(findings: Iterable[Finding]) -> str:
    """The verdict on several findings; on none it is unknown."""
    return min((finding.verdict for finding in findings), key=VERDICTS.index, default="unknown")


def told(findings: Iterable[Finding], *verdicts: str) -> str:
    """The sentences of the findings with these verdicts, a line each, and each remedy once."""
    lines: List[str] = []
    remedies: List[str] = []
    for finding in findings:
        if finding.verdict in verdicts:
            lines.append(f"{finding.server}: {finding.meaning}" if finding.server else finding.meaning)
            if finding.remedy and finding.remedy not in remedies:
                remedies.append(finding.remedy)
    return "\n".join(lines + remedies)


def judge(findings: Sequence[Finding], fail_on: str = "critical") -> Tuple[str, str]:
    """What becomes of a task that found this: `failed`, `skipped` or `success`, and why."""
    if not findings:
        return "skipped", "flowkeeper found nothing on it"
    verdict = worst(findings)
    if is_bad(verdict, fail_on):
        return "failed", told(findings, "critical", "warning" if fail_on == "warning" else "critical")
    if verdict in ("unknown", "not_applicable"):
        return "skipped", told(findings, verdict)
    return "success", told(findings, "warning")


def result(report: Report, check: str, findings: Sequence[Finding]) -> Dict[str, Any]:
    """What a task leaves behind, as plain JSON; `values` has the numbers by server."""
    return {
        "ensemble": report.ensemble,
        "check": check,
        "verdict": worst(findings),
        "values": {finding.server or "ensemble": finding.value for finding in findings if finding.value is not None},
        "unit": next((finding.unit for finding in findings if finding.unit), None),
        "findings": [finding.as_dict() for finding in findings],
    }


def sum_up(tasks: Sequence[str], results: Iterable[Mapping[str, Any]], fail_on: str = "critical") -> Dict[str, Any]:
    """Counts what tasks left behind. `failed` says why the sum is bad; `None` if it is not."""
    verdicts: Dict[str, str] = {}
    sentences: List[str] = []
    for left in results:
        # A mapped task leaves one for each server.
        task = left["check"]
        before = verdicts.get(task, left["verdict"])
        verdicts[task] = min(before, left["verdict"], key=VERDICTS.index)
        for finding in left["findings"]:
            if is_bad(finding["verdict"], fail_on):
                server = f" on {finding['server']}" if finding["server"] else ""
                sentences.append(f"{task}{server}: {finding['meaning']}")
    by_verdict = {verdict: [task for task in tasks if verdicts.get(task) == verdict] for verdict in VERDICTS}
    missing = [task for task in tasks if task not in verdicts]
    if missing:
        sentences.append(f"not found out, since their tasks did not get that far: {', '.join(missing)}")
    known = [verdict for verdict in VERDICTS if by_verdict[verdict]]
    return {
        "verdict": known[0] if known else "unknown",
        "counts": {verdict: len(by_verdict[verdict]) for verdict in VERDICTS},
        **{verdict: by_verdict[verdict] for verdict in VERDICTS if verdict != "ok"},
        "missing": missing,
        "failed": "\n".join(sentences) or None,
    }


def number(value: Optional[float]) -> str:
    """A number for people; nothing for none."""
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def table(findings: Sequence[Finding]) -> List[str]:
    """The lines of a table with a row a server."""
    rows: List[Tuple[str, ...]] = [("SERVER", "VERDICT", "VALUE", "UNIT", "WARNING", "CRITICAL", "MEANING")]
    for one in findings:
        numbers = (number(one.value), one.unit or "", number(one.warn), number(one.critical))
        rows.append((one.server or "(ensemble)", one.verdict, *numbers, one.meaning))
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    """Rows as lines, the columns below each other; the last may be of any length."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in rows]


# --- tasks -------------------------------------------------------------------


def settings_of(connection_id: str) -> Settings:
    """How flowkeeper is reached: as the Airflow connection says if there is one, else as the
    environment does. Called by running tasks only."""
    try:
        from airflow.sdk import BaseHook
    except ImportError:  # Airflow 2
        from airflow.hooks.base import BaseHook
    try:
        found = BaseHook.get_connection(connection_id)
    except AirflowNotFoundException:
        settings = Settings.from_environment()
        _mask(settings.token)
        return settings
    _mask(found.password)
    return Settings.from_connection(found.host, found.port, found.schema, found.password, found.extra_dejson)


def _mask(secret: Optional[str]) -> None:
    """Has Airflow hide it, should anything ever print it."""
    if not secret:
        return
    try:
        from airflow.sdk.log import mask_secret
    except ImportError:
        try:  # 3.0
            from airflow.sdk.execution_time.secrets_masker import mask_secret
        except ImportError:  # Airflow 2
            from airflow.utils.log.secrets_masker import mask_secret
    mask_secret(secret)


class FlowkeeperOperator(BaseOperator):
    """What tasks that ask flowkeeper have in common."""

    template_fields: Sequence[str] = ("ensemble",)
    ui_color = "#e8f0e4"

    def __init__(self, *, ensemble: str, flowkeeper_conn_id: str = DEFAULT_CONNECTION, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ensemble = ensemble
        self.flowkeeper_conn_id = flowkeeper_conn_id

    def ask(self, question: Callable[[Client], T]) -> T:
        """Asks, and fails: for good when flowkeeper says no, to be tried again when it is away."""
        try:
            return question(Client(settings_of(self.flowkeeper_conn_id)))
        except UnreachableError as error:
            raise AirflowException(str(error)) from None
        except SettingsError as error:
            where = f"the Airflow connection `{self.flowkeeper_conn_id}`, or FLOWKEEPER_… in the environment"
            raise AirflowFailException(f"{error}\n(the settings come from {where})") from None
        except FlowkeeperError as error:
            raise AirflowFailException(str(error)) from None

    def leave(self, context: Any, left: Dict[str, Any]) -> None:
        """Leaves a result for whoever looks, also if the task fails or is skipped after this."""
        context["ti"].xcom_push(key=RESULT, value=left)

    def show(self, lines: Iterable[str]) -> None:
        """Shows a table in the task's log."""
        self.log.info("\n%s", "\n".join(lines))

    def end(self, state: str, why: str) -> None:
        """Ends the task as decided. What flowkeeper found is not tried again: the next run looks."""
        if state == "failed":
            raise AirflowFailException(why)
        if state == "skipped":
            raise AirflowSkipException(why)
        if why:
            self.log.warning("warning\n%s", why)


class CheckOperator(FlowkeeperOperator):
    """Has flowkeeper run a check, and ends as the verdict says: critical fails, unknown and not
    applicable are skipped, a warning succeeds and is in the log, unless `fail_on="warning"`."""

    template_fields: Sequence[str] = ("ensemble", "server")

    def __init__(
        self, *, check: str, server: Optional[str] = None, fail_on: str = "critical", **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.check = check
        self.server = server
        self.fail_on = fail_on

    def execute(self, context: Any) -> None:
        report = self.ask(lambda client: client.run_check(self.ensemble, self.check))
        findings = [one for one in report.findings if self.server is None or one.server == self.server]
        left = result(report, self.check, findings)
        if self.server is not None:
            context["server"] = f"{self.server} {left['verdict']}"
        self.leave(context, left)
        self.show(table(findings))
        self.end(*judge(findings, self.fail_on))


class ServersOperator(FlowkeeperOperator):
    """The servers of an ensemble, for tasks that are mapped over them."""

    def execute(self, context: Any) -> List[str]:
        report = self.ask(lambda client: client.run_check(self.ensemble, "serving"))
        servers = [finding.server for finding in report.findings if finding.server]
        if not servers:
            raise AirflowException(f"flowkeeper names no server of the ensemble `{self.ensemble}`")
        return servers


class SummaryOperator(BaseOperator):
    """Sums up what checks left behind, and fails if one is bad or did not get that far, so that
    the DAG run ends as it should: a run's state is that of its last task."""

    ui_color = "#dfe7ee"

    def __init__(self, *, checks: Sequence[str], fail_on: str = "critical", **arguments: Any) -> None:
        arguments.setdefault("trigger_rule", "all_done")
        super().__init__(**arguments)
        self.checks = list(checks)
        self.fail_on = fail_on

    def execute(self, context: Any) -> None:
        left = context["ti"].xcom_pull(task_ids=self.checks, key=RESULT) or []
        summary = sum_up(self.checks, [one for one in left if one], self.fail_on)
        context["ti"].xcom_push(key="summary", value=summary)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in summary["counts"].items() if count)
        self.log.info("%s: %s", summary["verdict"], counts or "nothing was found out")
        if summary["warning"]:
            self.log.warning("warnings: %s", ", ".join(summary["warning"]))
        if summary["failed"]:
            raise AirflowFailException(summary["failed"])


# --- DAGs --------------------------------------------------------------------


def require_fail_on(fail_on: str) -> None:
    """Refuses what is neither of the two, before a DAG is made of it."""
    if fail_on not in ("critical", "warning"):
        raise ValueError(f'fail_on is "critical" or "warning", not {fail_on!r}')


def triggered_dag(
    dag_id: str,
    *,
    description: str,
    schedule: Any,
    retries: int,
    retry_delay: timedelta,
    execution_timeout: timedelta,
    default_args: Optional[Dict[str, Any]],
    tags: Sequence[str],
    dag_arguments: Dict[str, Any],
) -> DAG:
    """A DAG that flowkeeper triggers: one run at a time, nothing caught up, not paused at first.
    What `dag_arguments` and `default_args` say comes before that."""
    usual = {
        "max_active_runs": 1,
        "start_date": START,
        "catchup": False,
        "is_paused_upon_creation": False,
        "description": description,
    }
    defaults = {
        "retries": retries,
        "retry_delay": retry_delay,
        "execution_timeout": execution_timeout,
        **(default_args or {}),
    }
    return DAG(dag_id, schedule=schedule, default_args=defaults, tags=list(tags), **{**usual, **dag_arguments})
