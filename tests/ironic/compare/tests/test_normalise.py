import unittest

from tests import support

import normalise

ID = "12345678-1234-4234-8234-123456789abc"


class Normalise(unittest.TestCase):
    def run_of(self, token, request, identity):
        return [
            support.boot(request), support.lookup(token, **{"X-OpenStack-Request-ID": request}), support.heartbeat(token),
            support.command(support.result(identity), token=token), support.poll(support.result(identity), token=token),
        ]

    def test_runs_that_differ_by_chance_alone_become_the_same(self):
        first = self.run_of("a" * 43, "req-11111111-1111-4111-8111-111111111111", ID)
        second = self.run_of("b" * 43, "req-22222222-2222-4222-8222-222222222222", ID.replace("1", "2"))
        self.assertNotEqual(first, second)
        self.assertEqual(normalise.records(first), normalise.records(second))

    def test_normalising_twice_changes_nothing(self):
        once = normalise.records(self.run_of("a" * 43, "req-11111111-1111-4111-8111-111111111111", ID))
        self.assertEqual(once, normalise.records(once))

    def test_a_token_that_is_not_the_one_of_lookup_stays(self):
        beat = normalise.records([support.boot(), support.lookup("a" * 43), support.heartbeat("b" * 43)])[-1]
        self.assertEqual(beat["req_body"]["agent_token"], "b" * 43)

    def test_an_id_that_no_command_answered_with_is_not_a_command(self):
        poll = normalise.records([support.boot(), support.poll(support.result(ID))])[-1]
        self.assertEqual(poll["resp_body"]["commands"][0]["id"], "<uuid>")

    def test_an_id_that_is_no_uuid_stays(self):
        for identity in ("7", "12345678-1234-1234-8234-123456789abc", ID.upper(), 7):
            record = normalise.records([support.boot(), support.command(support.result(identity))])[-1]
            self.assertIn(record["resp_body"]["id"], (identity, "<uuid>"))
        record = normalise.records([support.boot(), support.command(support.result(ID))])[-1]
        self.assertEqual(record["resp_body"]["id"], "<command-1>")

    def test_a_request_id_of_another_boot_is_not_this_ones(self):
        other = "req-33333333-3333-4333-8333-333333333333"
        record = normalise.records([support.boot(), support.lookup(**{"X-OpenStack-Request-ID": other})])[-1]
        self.assertEqual(record["req_headers"]["X-OpenStack-Request-ID"], "<request>")

    def test_what_the_harness_chose_stays(self):
        answer = support.result(ID, value={"root uuid": "11111111-2222-4333-8444-555555555555", "other": ID.replace("1", "3")})
        record = normalise.records([support.boot(), support.command(answer)])[-1]
        self.assertEqual(record["resp_body"]["command_result"], {"root uuid": "11111111-2222-4333-8444-555555555555", "other": "<uuid>"})

    def test_details_are_free_but_have_to_be_text(self):
        for details, expected in (("disk is gone", "<text>"), ("", ""), (None, None), (["x"], ["x"])):
            error = {"type": "E", "code": 500, "message": "disk is gone", "details": details}
            record = normalise.records([support.boot(), support.command(support.result(ID, status="FAILED", error=error))])[-1]
            self.assertEqual(record["resp_body"]["command_error"]["details"], expected)
            self.assertEqual(record["resp_body"]["command_error"]["message"], "disk is gone")

    def test_the_version_has_to_be_that_of_the_reference(self):
        for version, expected in (("13.0.0", "<version>"), ("0.1.0", "0.1.0"), ("99.99.99", "99.99.99"), ("ferric 1.0", "ferric 1.0"), (None, None)):
            record = normalise.records([support.boot(), support.heartbeat(agent_version=version)])[-1]
            self.assertEqual(record["req_body"]["agent_version"], expected)

    def test_of_the_conductors_node_only_the_uuid_stays(self):
        params = {"node": {"uuid": ID.replace("1", "4"), "extra": {}}, "ports": [{"address": "52:54", "uuid": "x"}], "step": {"node": 1}}
        record = normalise.records([support.boot(), support.command(support.result(ID), params=params)])[-1]
        self.assertEqual(record["req_body"]["params"], {"node": {"uuid": "<uuid>"}, "ports": [{"address": "52:54"}], "step": {"node": 1}})

    def test_a_node_in_the_agents_words_is_compared_whole(self):
        answer = support.result(ID, value={"node": {"uuid": "x", "more": 1}})
        record = normalise.records([support.boot(), support.command(answer)])[-1]
        self.assertEqual(record["resp_body"]["command_result"], {"node": {"uuid": "x", "more": 1}})

    def test_archives_passwords_and_digests(self):
        value = {"system_logs": "H4sI" + "A" * 100, "short": "H4sI", "p": "$5$DTBqgtUNYATCy3wo$28kO.s6FuWnNiQmH2eHT54W9bahjwZbh99njhRjU6Z4",
                 "os_hash_value": "0" * 64, "checksum": "http://192.0.2.1/SUMS"}
        record = normalise.records([support.boot(), support.command(support.result(ID, value=value))])[-1]
        self.assertEqual(record["resp_body"]["command_result"], {
            "system_logs": "<gzip in base64>", "short": "H4sI", "p": "<crypt>", "os_hash_value": "<digest of 64 digits>",
            "checksum": "http://192.0.2.1/SUMS"})
