import unittest

from tests import support

import difference

assert support


def found(ipa, ferric):
    return [(item.path, item.kind) for item in difference.compare(ipa, ferric)]


class Compare(unittest.TestCase):
    def test_equal_values_have_none(self):
        for value in (None, 1, "x", [1, {"a": [None]}], {"a": {"b": 1.5}}):
            self.assertEqual(found(value, value), [])

    def test_each_kind(self):
        table = [
            ({"a": 1}, {"a": 2}, [("a", "value")]),
            ({"a": 1}, {"a": 1.0}, [("a", "type")]),
            ({"a": True}, {"a": 1}, [("a", "type")]),
            ({"a": None}, {"a": ""}, [("a", "type")]),
            ({"a": None}, {}, [("a", "missing")]),
            ({}, {"a": None}, [("a", "extra")]),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}, [("(keys)", "order")]),
            ({"x": {"a": 1, "b": 2}}, {"x": {"b": 2, "a": 1}}, [("x", "order")]),
            ([1, 2], [1], [("[1]", "missing")]),
            ([1], [1, 2], [("[1]", "extra")]),
        ]
        for ipa, ferric, expected in table:
            self.assertEqual(found(ipa, ferric), expected, (ipa, ferric))

    def test_a_missing_step_is_one_difference(self):
        steps = [{"interface": "deploy", "step": name, "priority": 0} for name in ("a", "b", "c", "d")]
        self.assertEqual(found({"s": steps}, {"s": steps[:1] + steps[2:]}), [("s[deploy/b]", "missing")])

    def test_steps_in_another_order_are_one_difference(self):
        steps = [{"interface": "deploy", "step": name} for name in ("a", "b", "c")]
        self.assertEqual(found(steps, steps[::-1]), [("(list)", "order")])

    def test_items_of_one_name_are_told_apart_by_place(self):
        steps = [{"step": "a", "x": 1}, {"step": "a", "x": 2}]
        self.assertEqual(found(steps, steps[::-1]), [("[0].x", "value"), ("[1].x", "value")])
