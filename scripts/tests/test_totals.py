"""The last lines: what scripts/lib.sh adds up, and what .ci/run makes of commands that fail or count nothing."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_LINES = """\
test result: ok. 5 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out
Ran 4 tests in 0.1s
FAILED (failures=1, errors=1, skipped=1)
SKIPPED: needs root
"""


def _totals(log, status=0):
    library = (_ROOT / "scripts/lib.sh").read_text()
    function = library[library.index("totals()"):]
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(log)
        file.flush()
        return subprocess.run(["bash", "-c", f"{function}\ntotals {file.name} {status}"], capture_output=True, text=True, check=True).stdout.strip()


class TotalsTest(unittest.TestCase):
    def test_tests_of_rust_and_python_and_those_left_out_are_added_up(self):
        self.assertEqual(_totals(_LINES), "5 passed, 3 failed, 4 skipped")

    def test_a_command_that_fails_without_a_failed_test_is_a_failure(self):
        self.assertEqual(_totals("test result: ok. 5 passed; 0 failed; 0 ignored;\n", 1), "5 passed, 1 failed, 0 skipped")
        self.assertEqual(_totals("error: could not compile\n", 1), "0 passed, 1 failed, 0 skipped")

    def test_a_failed_test_is_counted_once(self):
        self.assertEqual(_totals("test result: FAILED. 5 passed; 2 failed; 0 ignored;\n", 1), "5 passed, 2 failed, 0 skipped")


class CiTest(unittest.TestCase):
    """.ci/run in a folder of its own, with a `make` that prints and returns what a test says."""

    def _run(self, targets, setup=0):
        with tempfile.TemporaryDirectory() as folder:
            home = pathlib.Path(folder)
            for name in (".ci", "scripts", "bin"):
                (home / name).mkdir()
            shutil.copy(_ROOT / ".ci/run", home / ".ci/run")
            cases = "".join(f"{name}) echo '{text}'; exit {code} ;;\n" for name, (text, code) in targets.items())
            make = f"#!/bin/sh\ncase $1 in\n{cases}*) echo '3 passed, 0 failed, 0 skipped' ;;\nesac\n"
            for path, text in ((home / "bin/make", make), (home / "scripts/setup.sh", f"#!/bin/sh\nexit {setup}\n")):
                path.write_text(text)
                path.chmod(0o755)
            done = subprocess.run(
                ["bash", home / ".ci/run"], env={**os.environ, "PATH": f"{home}/bin:{os.environ['PATH']}"},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )
        passed, _, failed, _, skipped, _ = done.stdout.splitlines()[-1].replace(",", "").split()
        return done.returncode, int(passed), int(failed), int(skipped)

    def test_a_run_without_a_failure_is_green(self):
        code, passed, failed, _ = self._run({})
        self.assertEqual((code, failed), (0, 0))
        self.assertGreater(passed, 0)

    def test_whatever_fails_shows_in_the_last_line(self):
        for name, fate in (
            ("lint", ("lint: failed: clippy", 2)),
            ("test", ("error: could not compile", 2)),
            ("test", ("5 passed, 0 failed, 0 skipped", 2)),
            ("test", ("5 passed, 2 failed, 0 skipped", 0)),
            ("test-ironic", ("no line", 0)),
        ):
            code, _, failed, _ = self._run({name: fate})
            self.assertNotEqual(code, 0, fate)
            self.assertGreater(failed, 0, fate)

    def test_a_command_that_left_out_everything_is_a_failure(self):
        code, _, failed, skipped = self._run({"test-ironic": ("0 passed, 0 failed, 14 skipped", 0)})
        self.assertNotEqual(code, 0)
        self.assertGreater(failed, 0)
        self.assertGreater(skipped, 0)

    def test_a_run_that_ends_before_its_time_is_a_failure(self):
        code, _, failed, _ = self._run({}, setup=1)
        self.assertNotEqual(code, 0)
        self.assertEqual(failed, 1)
