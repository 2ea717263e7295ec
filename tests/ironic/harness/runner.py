"""Chooses what to run, runs it, and counts."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback

import scenarios

from . import syscalls, venv
from .agents import find_agent
from .bench import Bench, remove_state
from .failure import CannotRun, ScenarioFailed, ScenarioSkipped
from .images import Images
from .layout import Layout
from .memory import MemoryWatch
from .network import Network
from .process import exclusively
from .versions import NEWEST, RELEASES

_PROGRAMS = ("ip", "losetup", "partx", "sfdisk", "sgdisk", "blkdiscard", "blkid", "mkfs.ext4", "debugfs", "qemu-img")
_PROGRAMS += ("mkisofs", "openssl", "busybox", "unshare")


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Tally:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, [], 0

    def __str__(self):
        return f"{self.passed} passed, {len(self.failed)} failed, {self.skipped} skipped"


def main(arguments=None):
    """Exit code 0: nothing failed; 1: something did; 2: the harness could not run. The last line always counts."""
    options = _options(arguments)
    if options.list:
        for scenario in scenarios.ALL:
            print(f"{scenario.name:24} {scenario.title}")
        return 0
    tally, code = Tally(), 0
    try:
        _run(options, Layout.from_environment(), tally)
    except CannotRun as error:
        print(f"error: {error}", file=sys.stderr)
        tally.failed.append("start")
        code = 2
    except Exception:
        traceback.print_exc()
        tally.failed.append("the harness")
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        tally.failed.append("interrupted")
    if tally.failed:
        say("failed: " + " ".join(tally.failed))
    print(tally, flush=True)
    return code or (1 if tally.failed else 0)


def _options(arguments):
    environment = os.environ.get
    parser = argparse.ArgumentParser(
        prog="tests/ironic/run", description="Walks a node of a real Ironic through its life, with an agent of your choice."
    )
    parser.add_argument("scenarios", nargs="*", help="names (default: all; see --list)")
    parser.add_argument("--ironic", default=environment("IRONIC") or "all", help="release, several separated by commas, or all")
    parser.add_argument("--agent", default=environment("AGENT") or "ferric", help="ipa, ferric, or the path of a program")
    parser.add_argument("--list", action="store_true", help="list the scenarios and leave")
    options = parser.parse_args(arguments)
    options.scenarios = options.scenarios or (environment("SCENARIOS") or "").split()
    return options


def _run(options, layout, tally):
    versions = list(RELEASES) if options.ironic == "all" else options.ironic.split(",")
    for version in versions:
        if version not in RELEASES:
            raise CannotRun(f"Ironic {version} is not known here; there are: {', '.join(RELEASES)}")
    chosen = scenarios.choose(options.scenarios)
    agent = find_agent(options.agent)
    _check_machine()
    with exclusively(layout.cache / f".lock{layout.suffix}", busy=_BUSY.format(layout.instance or "without a name")):
        for version in versions:
            venv.prepare_ironic(layout, version, say)
        if agent.is_reference:
            venv.prepare_reference_agent(layout, say)
        Images(layout.images).prepare(say)
        with _namespaces(layout) as network:
            for version in versions:
                _run_version(layout, network, version, agent, chosen, tally)


_BUSY = "the instance {} is in use by another run; wait for it, or set FERRIC_IRONIC_INSTANCE to another name"


def _check_machine():
    if os.geteuid() != 0:
        raise CannotRun("this needs root, for namespaces and loop devices: run it with sudo, or in a container that has them")
    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    if missing:
        raise CannotRun(f"missing: {', '.join(missing)}; `scripts/setup.sh ironic` installs them")


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(*_):
    """Ends the run in an orderly way; what ends it is not to be interrupted again."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextlib.contextmanager
def _namespaces(layout):
    """Moves this process into the control namespace, and takes everything away at the end, however it comes."""
    for number in _ENDING:
        signal.signal(number, _interrupt)
    network = Network(layout)
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            network.up()
            syscalls.enter_network_namespace(layout.control_namespace)
        except Exception as error:
            raise CannotRun(f"network namespaces can not be made here: {error}") from None
        Bench.serve_addresses()
        yield network
    finally:
        network.down()
        os.close(home)


def _run_version(layout, network, version, agent, chosen, tally):
    begun = time.monotonic()
    bench = Bench(layout, network, version, agent)
    try:
        bench.start()
        say(f"Ironic {version} is up after {time.monotonic() - begun:.0f} s; agent: {agent.name} {agent.program or ''}")
        for scenario in chosen:
            if not bench.conductor.is_running():
                raise CannotRun(f"Ironic {version} died; see {layout.log}")
            _run_scenario(bench, scenario, tally)
    finally:
        bench.stop()


def _run_scenario(bench, scenario, tally):
    bench.transcript.begin(scenario.name)
    bench.node.phases.clear()
    begun = time.time()
    with MemoryWatch(bench.bmc) as memory:
        verdict, why = _verdict(bench, scenario)
    seconds = time.time() - begun
    if verdict == "pass":
        tally.passed += 1
    elif verdict == "skip":
        tally.skipped += 1
    else:
        tally.failed.append(f"{bench.version}/{scenario.name}")
    say(f"{verdict.upper()} {bench.version} {bench.agent.name} {scenario.name:24} {seconds:6.1f} s  {why or scenario.title}")
    result = {
        "scenario": scenario.name,
        "machine": "box",
        "boot_mode": "bios",
        "ironic": bench.version,
        "agent": bench.agent.name,
        "ok": verdict == "pass",
        "verdict": verdict,
        "why": why,
        "seconds": round(seconds, 1),
        "mem": memory.figures,
        "phases": [{**phase, "t": round(phase["t"] - begun, 1)} for phase in bench.node.phases],
    }
    bench.transcript.result_path(scenario.name).write_text(json.dumps(result, indent=1) + "\n")
    if verdict == "fail":
        say(f"     transcript: {bench.transcript.path(scenario.name)}; agent: {bench.bmc.log}; Ironic: {bench.layout.log}/ironic.log")


def _verdict(bench, scenario):
    try:
        scenario.run(bench)
    except ScenarioFailed as failure:
        return "fail", str(failure)
    except ScenarioSkipped as reason:
        return "skip", str(reason)
    except Exception as error:
        traceback.print_exc()
        return "fail", repr(error)
    return "pass", ""
