"""licences.py: which licence expressions pass, and what the notices hold."""

import pathlib
import sys
import tempfile
import unittest

_SCRIPTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_SCRIPTS))

import licences  # noqa: E402


def crate(folder, name, licence="MIT", source=licences.REGISTRY, **files):
    """A package of `cargo metadata`, and its files."""
    home = pathlib.Path(folder, name)
    for path, text in {"Cargo.toml": "", **files}.items():
        path = home / path.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {"id": name, "name": name, "version": "1.0.0", "license": licence, "license_file": None, "source": source,
            "authors": ["A. Person <a@example.org>"], "repository": None, "manifest_path": str(home / "Cargo.toml")}


class Expressions(unittest.TestCase):
    def test_an_expression_is_met_by_licences_that_are_allowed(self):
        allowed = {"MIT", "ISC", "Apache-2.0 WITH LLVM-exception"}
        for expression, met in (
            ("MIT", True), ("GPL-3.0", False), ("GPL-3.0 OR MIT", True), ("MIT/Apache-2.0", True), ("MIT AND GPL-3.0", False),
            ("(GPL-3.0 OR MIT) AND ISC", True), ("GPL-3.0 OR MIT AND ISC", True), ("Apache-2.0", False),
            ("Apache-2.0 WITH LLVM-exception", True), ("ISC AND (MIT OR GPL-3.0) AND (GPL-3.0 OR ISC)", True),
        ):
            self.assertEqual(licences.allows(expression, allowed), met, expression)

    def test_an_expression_that_cannot_be_read_is_refused(self):
        for expression in ("MIT OR", "(MIT", "MIT ISC", "", "AND MIT", "MIT WITH"):
            with self.assertRaises(licences.Unreadable, msg=expression):
                licences.allows(expression, {"MIT"})

    def test_what_is_not_allowed_is_named_with_its_package(self):
        with tempfile.TemporaryDirectory() as folder:
            packages = [
                crate(folder, "good"), crate(folder, "own", None, source=None), crate(folder, "odd", "GPL-3.0"), crate(folder, "bare", None),
                crate(folder, "foreign", source="git+https://example.org/x"), crate(folder, "broken", "MIT OR"),
            ]
            found = licences.faults(packages, {"MIT"})
        self.assertEqual([sentence.split()[0].rstrip(":") for sentence in found], ["odd", "bare", "foreign", "broken"])

    def test_the_list_of_the_repository_is_read(self):
        allowed = licences.allowed((licences.ROOT / "deny.toml").read_text())
        self.assertLessEqual({"MIT", "Apache-2.0 WITH LLVM-exception", "bzip2-1.0.6"}, allowed)
        self.assertNotIn("GPL-3.0", allowed)


class Notices(unittest.TestCase):
    def test_every_text_is_there_once_with_all_who_bring_it(self):
        with tempfile.TemporaryDirectory() as folder:
            packages = [
                crate(folder, "a", LICENSE="the same"), crate(folder, "b", **{"LICENSE-MIT": "the same  \n", "c__lib__COPYING": "of the C part"}),
                crate(folder, "c"), crate(folder, "d", tests__LICENSE="not linked", **{"LICENSE": "own"}),
            ]
            text = licences.notices(packages)
            self.assertEqual(text, licences.notices(packages))
            self.assertNotIn(folder, text)
        self.assertEqual(text.count("the same"), 1)
        for part in ("of a 1.0.0, b 1.0.0:", "of the C part", "Copyright (c) A. Person", "musl", "Rust standard library", "GNU General Public License"):
            self.assertIn(part, text)
        self.assertNotIn("not linked", text)

    def test_a_crate_without_any_text_is_an_error(self):
        with tempfile.TemporaryDirectory() as folder, self.assertRaises(SystemExit):
            licences.notices([crate(folder, "x", "Zlib")])

    def test_only_what_is_linked_in_counts(self):
        with tempfile.TemporaryDirectory() as folder:
            packages = [crate(folder, name) for name in ("run", "build", "deep", "test")] + [crate(folder, "ferric", source=None)]
        kinds = {"ferric": [("run", None), ("build", "build"), ("test", "dev")], "run": [("deep", None)]}
        nodes = [
            {"id": package["id"], "deps": [{"pkg": name, "dep_kinds": [{"kind": kind}]} for name, kind in kinds.get(package["id"], [])]}
            for package in packages
        ]
        found = licences.linked({"packages": packages, "resolve": {"nodes": nodes}})
        self.assertEqual([package["name"] for package in found], ["deep", "run"])
