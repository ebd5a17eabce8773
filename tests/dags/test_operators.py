"""What tasks make of verdicts, with the operators of a real Airflow (2 or 3) and a stub of flowkeeper."""

import os
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

from flowkeeper_client import CHECKS, Finding, Owner, Owners
from flowkeeper_health import zookeeper_health_dag
from flowkeeper_maintenance import (
    EphemeralOwnersOperator,
    GrowthOperator,
    days_left,
    growth,
    growth_table,
    remembered,
    still_stale,
    too_fast,
    zookeeper_maintenance_dag,
)
from flowkeeper_operators import (
    AirflowException,
    AirflowFailException,
    CheckOperator,
    ServersOperator,
    SummaryOperator,
    judge,
    sum_up,
    table,
)
from stub import Stub, finding, nobody, report

DAGS = Path(__file__).parents[2] / "dags"


def found(verdict, server="zk1:2181", meaning="It is so.", remedy=None, value=None):
    return Finding("latency", server, verdict, value, "ms", 100, None, meaning, remedy)


class TaskInstance:
    """The XComs of a task."""

    def __init__(self, held=()):
        self.pushed = {}
        self.held = held

    def xcom_push(self, key, value):
        self.pushed[key] = value

    def xcom_pull(self, **_):
        return self.held


def environment(url, **more):
    cleared = {key: "" for key in os.environ if key.startswith("FLOWKEEPER_") and key[11:] in ("URL", "TOKEN", "CA")}
    return mock.patch.dict(os.environ, {**cleared, "FLOWKEEPER_URL": url, **more})


def execute(operator, answer, held=(), **variables):
    """How a task ended: the name of its exception, its message, what it left."""
    task, context = TaskInstance(held), {}
    context["ti"] = task
    with Stub(answer) as stub, environment(stub.url, **variables):
        try:
            operator.execute(context)
        except AirflowException as error:
            return type(error).__name__, str(error), task.pushed, context
    return "success", "", task.pushed, context


class Decisions(unittest.TestCase):
    def test_a_verdict_decides_how_a_task_ends(self):
        ok, warning, critical = found("ok"), found("warning", meaning="Slow."), found("critical", meaning="Dead.")
        unknown, absent = found("unknown", meaning="Who knows."), found("not_applicable", meaning="Not here.")
        for findings, fail_on, state, why in [
            ([ok, ok], "critical", "success", ""),
            ([ok, warning], "critical", "success", "zk1:2181: Slow."),
            ([ok, warning], "warning", "failed", "zk1:2181: Slow."),
            ([ok, warning, critical], "critical", "failed", "zk1:2181: Dead."),
            ([warning, critical], "warning", "failed", "zk1:2181: Slow.\nzk1:2181: Dead."),
            ([unknown, critical], "critical", "failed", "zk1:2181: Dead."),
            ([ok, unknown], "critical", "skipped", "zk1:2181: Who knows."),
            ([unknown, warning], "critical", "success", "zk1:2181: Slow."),
            ([ok, absent], "critical", "success", ""),
            ([absent], "critical", "skipped", "zk1:2181: Not here."),
            ([], "critical", "skipped", "flowkeeper found nothing on it"),
        ]:
            self.assertEqual(judge(findings, fail_on), (state, why), findings)

    def test_both_sentences_are_told_and_each_remedy_once(self):
        same = [found("critical", f"zk{n}:1", "Dead.", "Start it.") for n in (1, 2)]
        self.assertEqual(judge(same), ("failed", "zk1:1: Dead.\nzk2:1: Dead.\nStart it."))
        self.assertEqual(judge([found("critical", None, "Split.", "Mend it.")]), ("failed", "Split.\nMend it."))

    def test_the_sum(self):
        def left(check, verdict, *findings):
            return {"check": check, "verdict": verdict, "findings": list(findings)}

        dead = {"server": "zk1:1", "verdict": "critical", "meaning": "Dead."}
        slow = {"server": None, "verdict": "warning", "meaning": "Slow."}
        for results, fail_on, verdict, failed in [
            ([left("a", "ok"), left("b", "not_applicable")], "critical", "ok", None),
            ([left("a", "unknown"), left("b", "ok")], "critical", "unknown", None),
            ([left("a", "warning", slow), left("b", "ok")], "critical", "warning", None),
            ([left("a", "warning", slow), left("b", "ok")], "warning", "warning", "a: Slow."),
            (
                [left("a", "ok"), left("a", "critical", dead), left("b", "ok")],
                "critical",
                "critical",
                "a on zk1:1: Dead.",
            ),
            ([left("a", "ok")], "critical", "ok", "not found out, since their tasks did not get that far: b"),
            ([], "critical", "unknown", "not found out, since their tasks did not get that far: a, b"),
        ]:
            summary = sum_up(["a", "b"], results, fail_on)
            self.assertEqual((summary["verdict"], summary["failed"]), (verdict, failed), results)
        self.assertEqual(sum_up(["a", "b"], [left("a", "ok"), left("b", "warning", slow)])["warning"], ["b"])

    def test_a_table_has_a_row_a_server(self):
        lines = table([found("ok", value=1.5), found("critical", "a-longer-name:2181", "Dead.", value=12345678.9)])
        self.assertEqual(
            lines,
            [
                "SERVER              VERDICT   VALUE       UNIT  WARNING  CRITICAL  MEANING",
                "zk1:2181            ok        1.5         ms    100                It is so.",
                "a-longer-name:2181  critical  12,345,679  ms    100                Dead.",
            ],
        )

    def test_growth_is_reckoned_over_what_is_remembered(self):
        day = 86400
        history = []
        for at, size in enumerate([100, 110, 120, 130, 140]):
            history = remembered(history, at * day, {"zk1": size, **({"zk2": 5} if at == 4 else {})}, 2 * day)
        self.assertEqual([entry["at"] / day for entry in history], [2, 3, 4], "the window is spanned")
        self.assertEqual(growth(history), {"zk1": 10.0}, "one measurement alone tells nothing")
        self.assertEqual(growth([]), {})
        again = remembered(history, 4 * day, {"zk1": 7}, 2 * day)
        self.assertEqual([entry["at"] / day for entry in again], [2, 3, 4], "a cleared task replaces what it measured")
        many = [{"at": at, "values": {"zk1": at}} for at in range(500)]
        self.assertEqual(len(remembered(many, 500, {"zk1": 500}, 1e9)), 100)

    def test_days_until_a_limit(self):
        for value, limit, rate, days in [
            (50, 100, 10, 5),
            (150, 100, 10, 0),
            (50, 100, 0, None),
            (50, 100, -1, None),
            (50, None, 10, None),
            (None, 100, 10, None),
            (50, 100, None, None),
        ]:
            self.assertEqual(days_left(value, limit, rate), days)
        _, row = growth_table([found("ok", "zk1", value=10.0)], {"zk1": 7.0})
        self.assertIn("+7     12.9 days", row)
        self.assertIsNone(too_fast({"zk1": 9}, None, "bytes"))
        self.assertIsNone(too_fast({"zk1": 9}, 9, "bytes"))
        self.assertEqual(too_fast({"zk1": 9}, 8, "bytes"), "It grows by more than 8 bytes a day: zk1 by 9.")

    def test_owners_are_stale_when_they_were_so_twice(self):
        def owner(session, alive, connected):
            return Owner(session, alive, connected, 1, ("/a",), (), None)

        def owners(*all_of_them):
            return Owners("home", all_of_them, ())

        gone = owner("0x1", False, False)
        self.assertEqual(still_stale(owners(gone), owners(gone)), [gone])
        for other in [
            owner("0x1", True, False),
            owner("0x1", False, True),
            owner("0x1", None, False),
            owner("0x1", False, None),
        ]:
            self.assertEqual(still_stale(owners(gone), owners(other)), [], other)
            self.assertEqual(still_stale(owners(other), owners(gone)), [], other)


class Tasks(unittest.TestCase):
    def test_a_check_leaves_its_numbers_however_it_ends(self):
        for verdict, state in [
            ("critical", "AirflowFailException"),
            ("unknown", "AirflowSkipException"),
            ("warning", "success"),
        ]:
            answer = report(finding("latency", verdict=verdict, value=600, unit="ms", remedy="Look."), verdict=verdict)
            ended, why, pushed, _ = execute(CheckOperator(task_id="latency", ensemble="home", check="latency"), answer)
            self.assertEqual(ended, state, why)
            self.assertEqual((pushed["result"]["verdict"], pushed["result"]["values"]), (verdict, {"zk1:2181": 600}))
            if verdict == "critical":
                self.assertEqual(why, "zk1:2181: It is so.\nLook.")

    def test_a_mapped_check_sees_its_server_alone(self):
        answer = report(finding(verdict="critical"), finding(server="zk2:2181"), verdict="critical")
        operator = CheckOperator(task_id="serving", ensemble="home", check="serving", server="zk2:2181")
        ended, _, pushed, context = execute(operator, answer)
        self.assertEqual((ended, pushed["result"]["verdict"], context["server"]), ("success", "ok", "zk2:2181 ok"))
        with Stub(answer) as stub, environment(stub.url):
            servers = ServersOperator(task_id="servers", ensemble="home").execute({"ti": TaskInstance()})
        self.assertEqual(servers, ["zk1:2181", "zk2:2181"])

    def test_who_cannot_be_reached_is_tried_again_and_who_refuses_is_not(self):
        operator = CheckOperator(task_id="serving", ensemble="home", check="serving")
        ended, why, _, _ = execute(operator, (503, {"detail": "no"}))
        self.assertEqual(ended, "AirflowException")
        self.assertIn("hint: is `flowkeeper serve` running there?", why)
        ended, why, _, _ = execute(operator, (403, {"detail": "the token does not suffice", "hint": "take another"}))
        self.assertEqual(ended, "AirflowFailException")
        self.assertIn("hint: take another", why)
        ended, why, _, _ = execute(operator, {}, FLOWKEEPER_TIMEOUT="soon")
        self.assertEqual(ended, "AirflowFailException")
        self.assertIn("the Airflow connection `flowkeeper_default`", why)

    def test_the_connection_comes_before_the_environment(self):
        with Stub(report(finding())) as stub:
            connection = (
                f'{{"conn_type": "http", "host": "{stub.url}", "password": "t0k3n", "extra": {{"timeout": 5}}}}'
            )
            with environment(nobody(), AIRFLOW_CONN_FLOWKEEPER_DEFAULT=connection):
                CheckOperator(task_id="serving", ensemble="home", check="serving").execute({"ti": TaskInstance()})
        self.assertEqual(stub.requests[0][2]["Authorization"], "Bearer t0k3n")

    def test_the_summary_fails_when_a_check_did(self):
        def left(verdict):
            return {
                "check": "serving",
                "verdict": verdict,
                "findings": [{"server": None, "verdict": verdict, "meaning": "So."}],
            }

        for held, failed in [
            ([left("ok")], False),
            ([left("critical")], True),
            ([], True),
            (None, True),
            ([None], True),
        ]:
            task = TaskInstance(held)
            operator = SummaryOperator(task_id="summary", checks=["serving"])
            if failed:
                with self.assertRaises(AirflowFailException):
                    operator.execute({"ti": task})
            else:
                operator.execute({"ti": task})
            self.assertEqual(task.pushed["summary"]["failed"] is not None, failed)

    def test_growth_is_carried_from_run_to_run(self):
        size = {"check": "directory_size", "unit": "bytes", "threshold": {"warn": 1e10, "critical": 1e11}}
        operator = GrowthOperator(task_id="directory_size", check="directory_size", ensemble="home", most_a_day=1.0)
        ended, why, pushed, _ = execute(operator, report(finding(value=1000, **size)), held=None)
        self.assertEqual((ended, pushed["result"]["growth_a_day"]), ("success", {}), why)
        earlier = pushed["history"]
        earlier[0]["at"] -= 86400
        ended, why, pushed, _ = execute(operator, report(finding(value=3000, **size)), held=earlier)
        self.assertEqual((ended, pushed["result"]["verdict"]), ("success", "warning"), why)
        self.assertAlmostEqual(pushed["result"]["growth_a_day"]["zk1:2181"], 2000, delta=1)
        self.assertIn("a day", sum_up(["directory_size"], [pushed["result"]], "warning")["failed"])
        operator.fail_on = "warning"
        ended, why, _, _ = execute(operator, report(finding(value=3000, **size)), held=earlier)
        self.assertEqual((ended, why[:33]), ("AirflowFailException", "It grows by more than 1 bytes a d"))

    def test_stale_owners_are_looked_at_twice(self):
        servers = [{"server": "zk1:2181", "error": None}]
        gone = {
            "session": "0x2",
            "alive": False,
            "connected": False,
            "ephemerals": 1,
            "paths": ["/lock"],
            "connections": [],
        }
        answers = [{"ensemble": "home", "servers": servers, "sessions": [gone]}]
        operator = EphemeralOwnersOperator(task_id="ephemeral_owners", ensemble="home")
        with mock.patch("flowkeeper_maintenance.time.sleep") as sleep:
            ended, why, pushed, _ = execute(operator, lambda _: answers[0])
        sleep.assert_called_once_with(30.0)
        self.assertEqual((ended, pushed["result"]["values"]["stale"]), ("AirflowFailException", 1))
        self.assertIn("0x2 owns 1 znodes, among them /lock", why)
        nobody_stale = {"ensemble": "home", "servers": servers, "sessions": [{**gone, "alive": True}]}
        self.assertEqual(execute(operator, nobody_stale)[0], "success")
        refused = {
            "ensemble": "home",
            "servers": [{"server": "zk1:2181", "error": "does not allow `dump`"}],
            "sessions": [],
        }
        ended, why, _, _ = execute(operator, refused)
        self.assertEqual(ended, "AirflowSkipException")
        self.assertIn("zk1:2181 does not allow `dump`", why)


class Dags(unittest.TestCase):
    def test_every_check_is_a_task_and_the_summary_is_last(self):
        for mapped in (False, True):
            dag = zookeeper_health_dag("home", dag_id="d", per_server=mapped)
            names = {check.name for check in CHECKS}
            self.assertEqual({task.task_id for task in dag.tasks} - {"servers", "summary"}, names)
            self.assertEqual([task.task_id for task in dag.leaves], ["summary"])
            self.assertEqual("servers" in dag.task_ids, mapped)
            self.assertEqual(set(dag.task_group.children) - {"servers", "summary"}, {check.group for check in CHECKS})
            self.assertEqual(str(getattr(dag.get_task("summary").trigger_rule, "value", "")), "all_done")
        kinds = {task.task_id: type(task).__name__ for task in dag.tasks}
        self.assertEqual((kinds["serving"], kinds["quorum"]), ("MappedOperator", "CheckOperator"))

    def test_arguments_reach_the_dag(self):
        dag = zookeeper_health_dag(
            "solr", checks=["quorum", "leader"], retries=5, max_active_runs=3, default_args={"owner": "me"}
        )
        self.assertEqual(
            (dag.dag_id, dag.max_active_runs, list(dag.task_ids)),
            ("zookeeper_health_solr", 3, ["summary", "leader", "quorum"]),
        )
        self.assertEqual((dag.get_task("leader").retries, dag.get_task("leader").owner), (5, "me"))
        for wrong in [{"checks": ["quorom"]}, {"checks": []}, {"fail_on": "never"}]:
            with self.assertRaises(ValueError):
                zookeeper_health_dag("solr", **wrong)
        with self.assertRaises(ValueError):
            zookeeper_maintenance_dag("solr", most_a_day={"latency": 1})

    def test_the_files_are_read_without_network_connection_and_database(self):
        code = f"""
import sys, socket, sqlite3, importlib
sys.path.insert(0, {str(DAGS)!r})
import airflow
from airflow.hooks.base import BaseHook
from flowkeeper_health import DAG
def refuse(*arguments, **more):
    raise AssertionError(f"reaches out: {{arguments}}")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = sqlite3.connect = refuse
BaseHook.get_connection = refuse
ids = []
for name in {sorted(path.stem for path in DAGS.glob("*.py"))!r}:
    module = importlib.import_module(name)
    ids += [value.dag_id for value in vars(module).values() if isinstance(value, DAG)]
print("dags:", *sorted(set(ids)), file=sys.__stdout__, flush=True)
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        dags = next(line for line in ran.stdout.splitlines() if line.startswith("dags: "))
        self.assertEqual(
            dags.split()[1:],
            [
                "flowkeeper_lock_run",
                "flowkeeper_lock_task",
                "ingest",
                "nightly_load",
                "rebuild",
                "reload",
                "zookeeper_health",
                "zookeeper_maintenance",
            ],
        )

    def test_airflow_looks_into_each_file_that_has_a_dag(self):
        # It reads only files that have both words.
        for name in ("zookeeper_health", "zookeeper_maintenance", "flowkeeper_lock_example", "flowkeeper_examples"):
            text = (DAGS / f"{name}.py").read_text().lower()
            self.assertTrue("dag" in text and "airflow" in text, name)


if __name__ == "__main__":
    unittest.main()
