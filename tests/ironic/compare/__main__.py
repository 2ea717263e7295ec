"""Is Ferric, seen by an unmodified Ironic, the same as ironic-python-agent?

    python3 tests/ironic/compare IPA-DIRECTORY FERRIC-DIRECTORY [SCENARIO...]

compares the transcripts (`SCENARIO.jsonl`, also with `.gz`) of both, prints every difference that is not documented in
docs/ipa-differences.md, and exits with 0 only if there is none. 1: there are some; 2: it could not compare.
"""

import argparse
import pathlib
import sys

import expected
import report
import scenarios

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "ipa-differences.md"


def arguments(argv):
    parser = argparse.ArgumentParser(prog="compare", description="compare transcripts of two agents")
    parser.add_argument("ipa", type=pathlib.Path, help="directory of the transcripts of ironic-python-agent")
    parser.add_argument("ferric", type=pathlib.Path, help="directory of the transcripts of Ferric")
    parser.add_argument("scenario", nargs="*", help="scenarios to compare; all that both have if none is named")
    parser.add_argument("--other-machine", action="store_true", help="the two were recorded on different machines: blur its facts")
    parser.add_argument("--complete", action="store_true", help="every scenario was run: complain about rules that explain nothing")
    parser.add_argument("--explained", action="store_true", help="print the documented differences too")
    return parser.parse_args(argv)


def main(argv=None):
    options = arguments(argv)
    rules, outcome = expected.read(), report.Outcome()
    outcome.complaints += expected.undocumented(rules, PAGE.read_text())
    scenarios.directories(
        options.ipa, options.ferric, options.scenario, rules, outcome, same_machine=not options.other_machine
    )
    if not outcome.compared:
        print(f"nothing to compare: {options.ipa} and {options.ferric} have no scenario in common", file=sys.stderr)
        return 2
    outcome.complaints += rules.stale(set(outcome.compared) | ({None} if options.complete else set()))
    print(outcome.text(options.explained))
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
