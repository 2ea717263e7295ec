import unittest

from tests import support

import counts
import forms
import hostfacts
import normalise

ID = "12345678-1234-4234-8234-12345678901"


def fetched(sent, path="/whole.raw"):
    return {"t": 1.0, "dir": "client->images", "method": "GET", "path": path, "req_headers": {}, "status": 200, "sent": sent, "size": 1 << 28}


def too_much(ipa, ferric):
    return [where for where, _ in counts.differences(normalise.records(ipa), normalise.records(ferric))]


class Counts(unittest.TestCase):
    def setUp(self):
        self.start = [support.boot(), support.lookup(), support.heartbeat()]

    def test_a_few_heartbeats_more_are_a_matter_of_time_and_many_are_not(self):
        self.assertEqual(too_much(self.start, self.start + [support.heartbeat()] * 4), [])
        self.assertEqual(too_much(self.start, self.start + [support.heartbeat()] * 200), ["boot 1: number of heartbeats"])

    def test_an_image_that_is_fetched_again_and_again_is_seen(self):
        once = self.start + [fetched(1 << 28)]
        self.assertEqual(too_much(once, once), [])
        self.assertEqual(too_much(once, once + [fetched(1 << 20)]), [], "tables read before")
        self.assertEqual(too_much(once, self.start + [fetched(1 << 28)] * 4), ["boot 1: bytes of GET /whole.raw"])
        self.assertEqual(too_much(self.start + [fetched(1 << 28)] * 4, once), [], "fewer is no fault")

    def test_a_boot_that_one_side_alone_has_is_left_out(self):
        self.assertEqual(too_much(self.start, self.start + self.start + [support.heartbeat()]), [])


class Forms(unittest.TestCase):
    def setUp(self):
        running = support.result(ID + "2", "execute_clean_step", "RUNNING")
        self.step = support.command(running, "clean.execute_clean_step")
        self.next = support.command(support.result(ID + "3", "sync"), "standby.sync")
        self.start = [support.boot(), support.lookup(), support.heartbeat()]

    def test_a_step_that_no_heartbeat_follows_is_seen(self):
        self.assertEqual(list(forms.faults(self.start + [self.step, support.heartbeat(), self.next])), [])
        found = list(forms.faults(self.start + [self.step, self.next]))
        self.assertEqual([where for where, _ in found], ["boot 1: command clean.execute_clean_step"])
        self.assertEqual(list(forms.faults(self.start + [self.next, self.next])), [], "questions wait for no heartbeat")

    def test_an_inventory_is_held_to_what_is_known_of_the_machine(self):
        inventory = {"interfaces": [], "cpu": {"count": 2}, "memory": {"total": 5}}
        record = {**support.lookup(), "req_body": {"inventory": inventory}}
        wanted = {("cpu", "count"): 2, ("memory", "total"): 5}
        self.assertEqual(list(forms.faults([support.boot(), record], wanted)), [])
        for path, wrong in ((("cpu", "count"), 4), (("memory", "total"), None)):
            found = list(forms.faults([support.boot(), record], {**wanted, path: wrong}))
            self.assertEqual([difference.path for _, difference in found], [".".join(path)])

    def test_this_machine_has_a_processor_and_memory(self):
        facts = hostfacts.of_this_machine()
        self.assertGreater(facts["cpu", "count"], 0)
        self.assertGreater(facts["memory", "total"], 1 << 20)

    def test_a_number_that_cannot_be_is_not_blurred_into_one_that_can(self):
        self.assertNotEqual(hostfacts.form(0), hostfacts.form(2))
        self.assertEqual(hostfacts.form(4), hostfacts.form(2))
