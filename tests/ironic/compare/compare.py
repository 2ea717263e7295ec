"""The command line of the comparison. Exit code 0: all differences are documented; 1: some are not; 2: nothing to compare."""

import argparse
import pathlib
import sys

import comparison
import expected
import hostfacts
import reference
import report

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "ipa-differences.md"


def _parser(prog, description):
    parser = argparse.ArgumentParser(prog=f"compare {prog}", description=description)
    parser.add_argument("--scenario", action="append", default=[], help="compare this scenario only; may be given several times")
    parser.add_argument("--complete", action="store_true", help="everything was run: complain about what is missing and what is stale")
    parser.add_argument("--explained", action="store_true", help="print the documented differences too")
    return parser


def _finish(outcome, rules, options):
    if not outcome.compared:
        print("nothing to compare: no scenario has transcripts of both agents", file=sys.stderr)
        print("0 passed, 1 failed, 0 skipped")
        return 2
    if options.complete:
        outcome.complaints += outcome.missing
    outcome.complaints += rules.stale(set(outcome.compared) | ({None} if options.complete else set()))
    print(outcome.text(options.explained))
    return 0 if outcome.clean else 1


def main_transcripts(argv):
    """Two folders."""
    parser = _parser("transcripts", "compare two folders of transcripts, SCENARIO.jsonl or SCENARIO.jsonl.gz")
    parser.add_argument("ipa", type=pathlib.Path)
    parser.add_argument("ferric", type=pathlib.Path)
    parser.add_argument("--other-machine", action="store_true", help="they come from different machines: look at the form of a machine's facts only")
    options = parser.parse_args(argv)
    rules, outcome = expected.read(), report.Outcome()
    outcome.complaints += expected.undocumented(rules, PAGE.read_text())
    comparison.directories(options.ipa, options.ferric, options.scenario, rules, outcome, same_machine=not options.other_machine)
    return _finish(outcome, rules, options)


def main_reference(argv):
    """All folders of a run with the reference of the repository."""
    parser = _parser("reference", "compare fresh transcripts of Ferric with the reference: one folder for each release of Ironic, and `direct`")
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=REPOSITORY / ".cache/ironic/transcripts", help="default: %(default)s")
    options = parser.parse_args(argv)
    rules, outcome = expected.read(), report.Outcome()
    outcome.complaints += expected.undocumented(rules, PAGE.read_text())
    for release in reference.releases():
        fresh = options.folder / release / "ferric"
        with reference.unpacked(release) as recorded:
            one = comparison.directories(
                recorded, fresh, options.scenario, rules, report.Outcome(), same_machine=reference.is_same_machine(release), prefix=f"{release}/",
                inventory=hostfacts.of_this_machine())
        if one.compared or options.complete:
            outcome.include(one)
    return _finish(outcome, rules, options)
