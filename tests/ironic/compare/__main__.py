"""Is Ferric, seen by an unmodified Ironic, the same as ironic-python-agent?

    python3 tests/ironic/compare transcripts IPA-FOLDER FERRIC-FOLDER [SCENARIO...]   compare two folders of transcripts
    python3 tests/ironic/compare reference [FOLDER]                                   compare with the reference in the repository
    python3 tests/ironic/compare record                                               make that reference anew from transcripts of IPA
    python3 tests/ironic/compare probe AGENT [GROUP...]                               ask an agent directly

Each says more with --help.
"""

import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.append(str(HERE.parent))  # the harness

COMMANDS = {"transcripts": "compare", "reference": "compare", "record": "reference", "probe": "probes.run", "bench": "figures.run"}


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(__doc__.strip(), file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    module = importlib.import_module(COMMANDS[name])
    command = getattr(module, f"main_{name}", None) or module.main
    return command(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
