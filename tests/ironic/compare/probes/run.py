"""Puts probes to an agent: `probe AGENT [GROUP...]`, AGENT being `ipa`, `ferric` or the path of a program.

The answers go to `.cache/ironic/transcripts/direct/AGENT`, one transcript a group.
"""

import argparse
import time

from . import drive, machine
from .catalogue import GROUPS

FOLDER = "direct"


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(argv):
    parser = argparse.ArgumentParser(prog="compare probe", description=__doc__)
    parser.add_argument("agent")
    parser.add_argument("group", nargs="*", choices=[[], *GROUPS], help="groups to ask; all if none is named")
    options = parser.parse_args(argv)
    with machine.namespaces(say) as (layout, network):
        with machine.machine(layout, network, options.agent, machine.transcripts() / FOLDER) as made:
            drive.drive(made, options.group or list(GROUPS), say)
    return 0
