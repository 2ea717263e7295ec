import contextlib
import io
import json
import pathlib
import tempfile
import unittest

from tests import support

import certificate
import comparison
import expected
import hostfacts
import report

RUN = [support.boot(), support.lookup(), support.heartbeat(), support.command(support.result("12345678-1234-4234-8234-123456789012"))]


class Scenarios(unittest.TestCase):
    def outcome(self, ipa, ferric, rules=(), ferric_result=None, ipa_result=None):
        with tempfile.TemporaryDirectory() as folder:
            for side, records, result in (("ipa", ipa, ipa_result or {"ok": True}), ("ferric", ferric, ferric_result or {"ok": True})):
                path = pathlib.Path(folder, side)
                path.mkdir()
                (path / "x.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
                (path / "x.result.json").write_text(json.dumps(result))
            return comparison.directories(f"{folder}/ipa", f"{folder}/ferric", [], expected.Expected(list(rules)), report.Outcome())

    def test_the_same_is_clean(self):
        outcome = self.outcome(RUN, RUN)
        self.assertTrue(outcome.clean)
        self.assertEqual(outcome.compared, {"x": 4})
        self.assertEqual(outcome.text().splitlines()[-1], "1 passed, 0 failed, 0 skipped")

    def test_a_difference_says_where_and_what(self):
        other = RUN[:-1] + [support.command(support.result("12345678-1234-4234-8234-123456789012", status="FAILED"))]
        text = self.outcome(RUN, other).text()
        for words in ("x / boot 1: command clean.get_clean_steps", "response.body.command_status differs", '"SUCCEEDED"', '"FAILED"'):
            self.assertIn(words, text)
        self.assertEqual(text.splitlines()[-1], "0 passed, 1 failed, 0 skipped")

    def step(self, *answer):
        record = support.command(support.result("12345678-1234-4234-8234-123456789013", "execute_clean_step", *answer), "clean.execute_clean_step")
        return RUN + [{**record, "path": record["path"].replace("wait=true", "wait=false")}]

    def test_a_command_may_have_ended_before_its_answer_but_in_one_of_the_known_ways(self):
        running = self.step("RUNNING")
        for ended in ("SUCCEEDED", "FAILED"):
            self.assertTrue(self.outcome(running, self.step(ended)).clean, ended)
        for wrong in ("STARTED", None):
            self.assertFalse(self.outcome(running, self.step(wrong)).clean, wrong)
        bare = self.step("SUCCEEDED")
        bare[-1] = {**bare[-1], "resp_body": {"command_status": "SUCCEEDED"}}
        self.assertFalse(self.outcome(running, bare).clean, "the answer still names the command")

    def test_a_node_that_the_scenario_before_has_deployed_is_no_difference(self):
        states = lambda *names: {"ok": True, "phases": [{"state": name} for name in names]}
        deployed = states("deploying", "wait call-back", "active", "rescuing", "rescue", "active")
        for result, clean in ((states("rescuing", "rescue", "active"), True), (states("deploying", "active"), False)):
            outcome = self.outcome(RUN + RUN, RUN, ferric_result=result, ipa_result=deployed)
            self.assertEqual([where for _, where, _ in outcome.open], [] if clean else ["boot 1: a boot more"])

    def test_a_scenario_that_failed_for_one_differs(self):
        self.assertEqual([where for _, where, _ in self.outcome(RUN, RUN, ferric_result={"ok": False}).open], ["verdict"])

    def test_a_scenario_that_the_reference_fails_is_compared_with_the_one_that_it_should_be_like(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, records in (("ipa/deploy_raw_unnamed", RUN[:1]), ("ipa/deploy_raw", RUN), ("ferric/deploy_raw_unnamed", RUN)):
                path = pathlib.Path(folder, name + ".jsonl")
                path.parent.mkdir(exist_ok=True)
                path.write_text("".join(json.dumps(record) + "\n" for record in records))
            outcome = comparison.directories(f"{folder}/ipa", f"{folder}/ferric", ["deploy_raw_unnamed"], expected.Expected([]), report.Outcome())
        self.assertTrue(outcome.clean, outcome.text())
        self.assertEqual(outcome.compared, {"deploy_raw_unnamed": 4})

    def test_order_of_headers_is_free(self):
        def with_headers(*names):
            return [RUN[0], {**RUN[1], "req_headers": {name: "x" for name in names}}]

        self.assertTrue(self.outcome(with_headers("a", "b"), with_headers("B", "A")).clean)

    def test_a_missing_scenario_is_a_complaint(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            outcome = comparison.directories(folder, folder, ["inspect"], expected.Expected([]), report.Outcome())
        self.assertEqual(len(outcome.missing), 2)


class Pieces(unittest.TestCase):
    def test_facts_of_the_host_are_blurred_to_their_form(self):
        inventory = {"cpu": {"model_name": "EPYC", "frequency": "2450.0000", "count": 2, "architecture": "x86_64"}, "memory": {"total": 5}}
        self.assertEqual(hostfacts.inventory(inventory), {
            "cpu": {"model_name": "<text>", "frequency": "<number as text>", "count": "<int>", "architecture": "x86_64"},
            "memory": {"total": "<int>"}})
        self.assertEqual(hostfacts.inventory(hostfacts.inventory(inventory))["cpu"]["architecture"], "x86_64")

    def test_a_certificate_says_what_matters(self):
        text = """Certificate:
    Data:
        Version: 3 (0x2)
        Signature Algorithm: ecdsa-with-SHA384
        Issuer: CN=node
        Validity
            Not Before: Nov 20 20:27:43 2026 GMT
            Not After : Dec 20 21:27:43 2026 GMT
        Subject: CN=node
                NIST CURVE: P-384
        X509v3 extensions:
            X509v3 Subject Alternative Name: critical
                IP Address:192.0.2.7
            X509v3 Subject Key Identifier: 
                AB:CD
    Signature Algorithm: ecdsa-with-SHA384
"""
        self.assertEqual(
            certificate.from_text(text, 1795210063),
            "<certificate v3; P-384; ecdsa-with-SHA384; subject CN; self-issued; valid since 60 min; valid for 721 h; "
            "X509v3 Subject Alternative Name critical IP Address:192.0.2.7; X509v3 Subject Key Identifier (of the key)>")
