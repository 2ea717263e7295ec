import json
import unittest

from tests import support

import difference
import expected

assert support


def rules(**changes):
    rule = {"row": "server", "scenarios": ["*"], "at_most": 2, "places": [{"exchange": "command *", "path": "response.headers.server", "ferric": "ferric-agent/*"}]}
    return expected.parse(json.dumps([{**rule, **changes}]))


def server(value="ferric-agent/1"):
    return difference.Difference("response.headers.server", "value", "ironic-python-agent", value)


class Expected(unittest.TestCase):
    def test_star_is_any_text_and_the_rest_is_itself(self):
        self.assertTrue(expected.glob("a[*].b", "a[deploy/x].b"))
        self.assertFalse(expected.glob("a.b", "axb"))
        self.assertFalse(expected.glob("a*", "ba"))

    def test_a_rule_explains_what_it_names_and_nothing_else(self):
        self.assertEqual(rules().explain("s", "boot 1: command x", server()), "server")
        self.assertIsNone(rules().explain("s", "boot 1: heartbeat", server()))
        self.assertIsNone(rules().explain("s", "boot 1: command x", server("nginx")))
        self.assertIsNone(rules(scenarios=["inspect"]).explain("s", "boot 1: command x", server()))

    def test_a_rule_explains_no_more_than_it_says(self):
        rule = rules()
        self.assertEqual([rule.explain("s", "command x", server()) for _ in range(3)], ["server", "server", None])
        self.assertEqual(rule.explain("another", "command x", server()), "server")

    def test_a_rule_that_explains_nothing_is_stale(self):
        self.assertEqual(len(rules(scenarios=["inspect"]).stale({"inspect"})), 1)
        self.assertEqual(rules(scenarios=["inspect"]).stale({"rescue"}), [])
        self.assertEqual(rules().stale({"inspect"}), [], "a part of the scenarios says nothing of a rule for all")
        self.assertEqual(len(rules().stale({"inspect", None})), 1)
        used = rules()
        used.explain("inspect", "command x", server())
        self.assertEqual(used.stale({"inspect", None}), [])

    def test_a_misspelt_field_is_an_error(self):
        with self.assertRaises(ValueError):
            expected.parse('[{"row": "x", "scenarios": ["*"], "atmost": 1, "places": []}]')
        with self.assertRaises(ValueError):
            rules(places=[{"exchange": "*", "path": "*", "ferik": "x"}])

    def test_rules_and_rows_belong_together(self):
        page = "| id | what |\n| `server` | x |\n\n## Not visible here\n| `monotonic` | y |\n"
        self.assertEqual(expected.undocumented(rules(), page), [])
        self.assertEqual(expected.undocumented(rules(row="nobody"), page), ["rule `nobody` has no row in the page", "row `server` has no rule"])
        self.assertEqual(expected.undocumented(rules(), page + "| `server` | x |\n"), ["row `server` stands twice"])

    def test_the_repositorys_rules_and_page_belong_together(self):
        page = expected.HERE.parents[2] / "docs" / "ipa-differences.md"
        self.assertEqual(expected.undocumented(expected.read(), page.read_text()), [])
