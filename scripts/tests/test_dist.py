"""dist/: the programs that a user takes away hold nothing of the machine that built them."""

import os
import pathlib
import unittest

_ROOT = pathlib.Path(__file__).resolve().parents[2]


class DistTest(unittest.TestCase):
    def test_no_program_holds_a_folder_of_the_building_machine(self):
        home = pathlib.Path.home()
        folders = {
            f"{_ROOT}/",
            f"{home}/.",  # the ramdisk has a /root, too: only hidden folders are this machine's
            f"{os.environ.get('CARGO_HOME', home / '.cargo')}/",
            f"{os.environ.get('RUSTUP_HOME', home / '.rustup')}/",
        }
        for name in ("ferric-agent", "ferric-image", "ferric"):
            path = _ROOT / "dist" / name
            if not path.exists():
                self.skipTest(f"no {path}; `make build` makes it")
            program = path.read_bytes()
            found = {folder: program.count(folder.encode()) for folder in folders}
            self.assertEqual({folder: count for folder, count in found.items() if count}, {}, name)
