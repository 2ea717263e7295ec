"""Measures ironic-python-agent and Ferric in turns and prints the table of docs/performance.md.

    bench [--rounds N] [FERRIC-PROGRAM]

Needs root and `wrk`. The figures of every round are kept in `.cache/ironic/figures.json`.
"""

import argparse
import json
import os
import shutil
import sys
import time

from probes import machine

from . import load, measure, table

LOAD_SECONDS = 4
IDLE_FOR = (6, 12)
JUST_AFTER = (0.5, 1.5)


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def one_round(made, number):
    """All figures of one agent."""
    figures = {"start": measure.start(made), "memory": measure.idle_memory(made)}
    if number < 3:
        figures["news, idle"] = measure.news(made, IDLE_FOR, 3)
        figures["news, just after a heartbeat"] = measure.news(made, JUST_AFTER, 3)
        figures["load"] = measure.requests(made, LOAD_SECONDS)
    return figures


def main(argv):
    parser = argparse.ArgumentParser(prog="compare bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ferric", nargs="?", default="ferric", help="a release build (default: dist/ferric-agent)")
    parser.add_argument("--rounds", type=int, default=7, help="starts of each agent; load is measured in the first three (default: %(default)s)")
    options = parser.parse_args(argv)
    if not shutil.which("wrk"):
        print("error: `wrk` is missing; install it (Debian: apt-get install wrk)", file=sys.stderr)
        return 2
    rounds = {"ipa": [], "ferric": []}
    with machine.namespaces(say) as (layout, network):
        for number in range(options.rounds):
            for name, choice in (("ipa", "ipa"), ("ferric", options.ferric)):
                with machine.machine(layout, network, choice, machine.transcripts() / "figures", debug=0) as made:
                    rounds[name].append(one_round(made, number))
                say(f"round {number + 1} of {options.rounds}: {name} {json.dumps(rounds[name][-1]['start'])} {rounds[name][-1]['memory']}")
        (layout.cache / "figures.json").write_text(json.dumps({"load average": os.getloadavg(), **rounds}, indent=1))
    print(table.text(rounds, load.CLIENTS))
    return 0


