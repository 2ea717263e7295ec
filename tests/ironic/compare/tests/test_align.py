import unittest

from tests import support

import align
import normalise

ID = "12345678-1234-4234-8234-12345678901"


def pairs(ipa, ferric):
    return list(align.pairs(normalise.records(ipa), normalise.records(ferric)))


def unequal(ipa, ferric):
    return [pair.where for pair in pairs(ipa, ferric) if pair.ipa != pair.ferric]


class Align(unittest.TestCase):
    def setUp(self):
        self.steps = support.result(ID + "1")
        self.running = support.result(ID + "2", "execute_clean_step", "RUNNING")
        self.done = support.result(ID + "2", "execute_clean_step")
        self.start = [support.boot(), support.lookup(), support.heartbeat(), support.command(self.steps)]

    def test_number_of_polls_and_heartbeats_is_free(self):
        step = support.command(self.running, "clean.execute_clean_step")
        few = self.start + [step, support.poll(self.steps, self.done)]
        many = self.start + [
            step, support.poll(self.steps, self.running), support.heartbeat(), support.poll(self.steps, self.running),
            support.heartbeat(), support.poll(self.steps, self.done),
        ]
        self.assertEqual(unequal(few, many), [])

    def test_the_poll_that_the_conductor_acted_on_is_compared(self):
        step = support.command(self.running, "clean.execute_clean_step")
        failed = support.result(ID + "2", "execute_clean_step", "FAILED")
        self.assertEqual(
            unequal(self.start + [step, support.poll(self.steps, self.done)], self.start + [step, support.poll(self.steps, failed)]),
            ["boot 1: poll after 2 commands"],
        )

    def test_a_poll_that_alters_an_earlier_answer_is_seen(self):
        other = support.result(ID + "1", value={})
        self.assertEqual(unequal(self.start + [support.poll(self.steps)], self.start + [support.poll(other)]), ["boot 1: poll after 1 commands"])

    def test_a_step_without_a_last_poll_is_seen(self):
        step = support.command(self.running, "clean.execute_clean_step")
        after = support.command(support.result(ID + "3", "sync"), "standby.sync")
        whole = self.start + [step, support.heartbeat(), support.poll(self.steps, self.done), after]
        self.assertEqual(unequal(whole, self.start + [step, support.heartbeat(), after]), ["boot 1: poll after 2 commands"])
        self.assertEqual(unequal(self.start + [support.poll(self.steps), after], self.start + [after]), [], "a question without a step may be polled or not")

    def test_a_missing_command_is_one_pair_without_a_partner(self):
        more = self.start + [support.command(support.result(ID + "3", "sync"), "standby.sync")]
        self.assertEqual([(pair.where, pair.ferric) for pair in pairs(more, self.start) if pair.ferric is None], [("boot 1: command standby.sync", None)])

    def test_a_heartbeat_that_differs_from_the_others_is_seen(self):
        odd = self.start + [support.heartbeat(agent_status="end")]
        self.assertEqual(unequal(self.start, odd), ["boot 1: heartbeat"])

    def test_a_lookup_that_was_repeated_does_not_count(self):
        again = [self.start[0], support.lookup(status=404)] + self.start[1:]
        self.assertEqual(unequal(self.start, again), [])

    def test_a_lookup_that_failed_for_good_does(self):
        self.assertEqual(unequal(self.start[:2], [self.start[0], support.lookup(status=404)]), ["boot 1: lookup"])

    def test_a_boot_more_at_the_beginning_is_one_difference(self):
        self.assertEqual(unequal(self.start, self.start + self.start), ["boot 1: a boot more"])
        self.assertEqual(unequal(self.start + self.start, self.start), ["boot 1: a boot more"])

    def test_boots_are_kept_apart(self):
        other = self.start[:-1] + [support.command(support.result(ID + "9", status="FAILED"))]
        self.assertEqual(unequal(self.start + self.start, self.start + other), ["boot 2: command clean.get_clean_steps"])
        self.assertEqual(unequal(self.start + self.start, other + self.start), ["boot 1: command clean.get_clean_steps"])

    def test_what_the_harness_sees_of_the_process_does_not_count(self):
        self.assertEqual(unequal(self.start, self.start + [{"dir": "machine", "event": "agent ended"}]), [])
