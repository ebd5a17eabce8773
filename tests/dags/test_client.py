"""The client against members that answer in every way; needs no Airflow."""

import os
import tempfile
import unittest

from flowkeeper_client import (
    CHECKS,
    VERDICTS,
    Client,
    FlowkeeperError,
    RefusedError,
    Settings,
    SettingsError,
    UnreachableError,
)
from stub import Stub, cut_short, finding, flood, nobody, redirect_to, report, reset, silent, trickle

TOKEN = "s3cr3t-t0k3n"
GOOD = report(
    finding(verdict="critical", meaning="It is gone.", remedy="Start it.", future="ignored"),
    finding("latency", "zk2:2181", value=1.5, unit="ms", threshold={"warn": 100, "critical": None}),
    finding("quorum", None),
    verdict="critical",
)


def client(*urls, timeout=0.5):
    return Client(Settings(urls, TOKEN, timeout))


class Answers(unittest.TestCase):
    def test_a_check_is_asked_for_with_the_token_and_read(self):
        with Stub(GOOD) as stub:
            found = client(stub.url + "/behind/a/proxy").run_check("ho/me", "serving")
        method, path, headers, body = stub.requests[0]
        self.assertEqual(
            (method, path, body), ("POST", "/behind/a/proxy/api/v1/ensembles/ho%2Fme/checks/serving/run", b"{}")
        )
        self.assertEqual(headers["Authorization"], f"Bearer {TOKEN}")
        self.assertEqual((found.ensemble, found.verdict, len(found.findings)), ("home", "critical", 3))
        gone, slow, all_of_them = found.findings
        self.assertEqual(gone.sentences, "It is gone. Start it.")
        self.assertEqual((slow.value, slow.unit, slow.warn, slow.critical), (1.5, "ms", 100, None))
        self.assertIsNone(all_of_them.server)
        self.assertEqual(
            slow.as_dict(),
            finding("latency", "zk2:2181", value=1.5, unit="ms", threshold={"warn": 100, "critical": None}),
        )

    def test_what_is_no_good_answer_is_told(self):
        for answer, reason in [
            (silent, "no answer within 0.5 s"),
            (reset, "breaks off"),
            (trickle, "answers too slowly"),
            (cut_short, "no JSON object"),
            (flood, "answers without end"),
            (b"<html>", "no JSON object"),
            (b"[" * 100_000, "no JSON object"),
            (b"\xff\xfe\x00", "no JSON object"),
            ([1], "no JSON object"),
            ({"ensemble": "home", "verdict": "ok"}, "`checks` is missing"),
            (report(finding(verdict="splendid")), "no verdict 'splendid'"),
            (report(finding(value="12")), "`value` is no number"),
            (report(finding(meaning=None)), "`meaning` is no text"),
            ((500, b"<html>"), "HTTP 500, and not as flowkeeper does"),
            ((404, b"not found"), "is it another program?"),
            ((503, {"detail": "failed to read the ledger"}), "HTTP 503: failed to read the ledger"),
            ((429, {"detail": "later"}), "HTTP 429: later"),
        ]:
            with self.subTest(reason), Stub(answer) as stub:
                with self.assertRaises(UnreachableError) as caught:
                    client(stub.url).run_check("home", "serving")
                self.assertIn(reason, str(caught.exception))
                self.assertIn("failed to run the check `serving` on the ensemble `home`", str(caught.exception))
                self.assertIn("hint: is `flowkeeper serve` running there?", str(caught.exception))
                self.assertNotIn(TOKEN, str(caught.exception))

    def test_the_members_are_tried_in_turn(self):
        with Stub((503, {"detail": "ends"})) as ending, Stub(GOOD) as well, Stub(GOOD) as spare:
            found = client(nobody(), ending.url, well.url, spare.url).run_check("home", "serving")
        self.assertEqual(found.verdict, "critical")
        self.assertEqual([len(stub.requests) for stub in (ending, well, spare)], [1, 1, 0])
        with self.assertRaises(UnreachableError) as caught:
            client(nobody(), nobody()).run_check("home", "serving")
        self.assertEqual(str(caught.exception).count("cannot be reached: Connection refused"), 2)

    def test_a_refusal_is_final_and_has_a_hint(self):
        problem = {"detail": "there is no ensemble `x`", "hint": "name one of main"}
        with Stub((404, problem)) as stub, Stub(GOOD) as spare:
            with self.assertRaises(RefusedError) as caught:
                client(stub.url, spare.url).run_check("x", "serving")
        self.assertEqual(caught.exception.hint, "name one of main")
        self.assertIn("there is no ensemble `x`", str(caught.exception))
        self.assertEqual(spare.requests, [])
        with Stub((401, {"detail": "who are you?"})) as stub, self.assertRaises(RefusedError) as caught:
            client(stub.url).run_check("x", "serving")
        self.assertIn("a token of role `read`", str(caught.exception))

    def test_no_other_address_is_told_the_token(self):
        with Stub(GOOD) as elsewhere, Stub(redirect_to(elsewhere.url)) as stub:
            with self.assertRaises(UnreachableError) as caught:
                client(stub.url).run_check("home", "serving")
        self.assertEqual(elsewhere.requests, [])
        self.assertIn("HTTP 307", str(caught.exception))

    def test_owners_of_ephemerals(self):
        connection = {"server": "zk1:2181", "client": "10.0.0.7:3312", "age_s": 86400}
        alive = {
            "session": "0x1",
            "alive": True,
            "connected": True,
            "ephemerals": 2,
            "paths": ["/a"],
            "connections": [connection],
        }
        gone = {
            "session": "0x2",
            "alive": False,
            "connected": False,
            "ephemerals": 1,
            "paths": ["/b"],
            "connections": [],
        }
        servers = [{"server": "zk1:2181", "error": None}, {"server": "zk2:2181", "error": "does not allow `dump`"}]
        with Stub({"ensemble": "home", "sessions": [alive, gone], "servers": servers}) as stub:
            found = client(stub.url).owners_of_ephemerals("home")
        self.assertEqual(stub.requests[0][:2], ("GET", "/api/v1/ensembles/home/ephemerals"))
        self.assertEqual([owner.is_stale for owner in found.owners], [False, True])
        self.assertEqual((found.owners[0].clients, found.owners[0].connected_for), (("10.0.0.7:3312",), 86400))
        self.assertEqual(found.unanswered, (("zk2:2181", "does not allow `dump`"),))


class Reading(unittest.TestCase):
    def test_settings_from_a_connection(self):
        for fields, urls in [
            (("fk",), ("http://fk:8787",)),
            (("fk", 80), ("http://fk:80",)),
            (("fk", None, "https"), ("https://fk:443",)),
            (("a, b:1,", 2, "https"), ("https://a:2", "https://b:1")),
            (("https://fk/base/",), ("https://fk/base",)),
            (("[::1]", 3), ("http://[::1]:3",)),
            ((None,), ("http://127.0.0.1:8787",)),
        ]:
            self.assertEqual(Settings.from_connection(*fields).urls, urls, fields)
        whole = Settings.from_connection("fk", token=f" {TOKEN}\n", extra={"timeout": "5", "ca": "ca.pem"})
        self.assertEqual((whole.token, whole.timeout, whole.ca), (TOKEN, 5.0, "ca.pem"))

    def test_settings_from_the_environment(self):
        self.assertEqual(Settings.from_environment({}), Settings())
        with tempfile.NamedTemporaryFile("w", suffix=".token") as file:
            file.write(TOKEN + "\n")
            file.flush()
            variables = {
                "FLOWKEEPER_URL": "http://a:1, http://b:2/",
                "FLOWKEEPER_TOKEN_FILE": file.name,
                "FLOWKEEPER_TIMEOUT": "9",
            }
            settings = Settings.from_environment(variables)
        self.assertEqual((settings.urls, settings.token, settings.timeout), (("http://a:1", "http://b:2"), TOKEN, 9.0))

    def test_bad_settings_are_told_without_the_secret(self):
        for make in [
            lambda: Settings(()),
            lambda: Settings(("ftp://a",)),
            lambda: Settings(("http://a:b",)),
            lambda: Settings((f"http://me:{TOKEN}@a",)),
            lambda: Settings(token=TOKEN + "\r\nX: y"),
            lambda: Settings(token=TOKEN + "é"),
            lambda: Settings(timeout=0),
            lambda: Settings.from_environment({"FLOWKEEPER_TIMEOUT": "soon"}),
            lambda: Settings.from_environment({"FLOWKEEPER_TOKEN_FILE": "/no/such/file"}),
            lambda: Client(Settings(("https://a",), TOKEN, ca="/no/such/file")),
            lambda: Client(Settings(("https://a",), TOKEN, ca=os.path.abspath(__file__))),
        ]:
            with self.assertRaises(SettingsError) as caught:
                make()
            self.assertNotIn(TOKEN, str(caught.exception))
            self.assertIsNotNone(caught.exception.hint)
            self.assertIsInstance(caught.exception, FlowkeeperError)

    def test_a_token_is_not_shown(self):
        self.assertNotIn(TOKEN, repr(Settings(token=TOKEN)))
        self.assertNotIn(TOKEN, repr(vars(client(nobody())).keys()))

    def test_groups_are_no_checks(self):
        names = [check.name for check in CHECKS]
        self.assertEqual(len(set(names)), len(names))
        self.assertFalse(set(names) & {check.group for check in CHECKS})
        self.assertFalse(set(names) & {"servers", "summary"})
        self.assertEqual(len(VERDICTS), 5)


if __name__ == "__main__":
    unittest.main()
