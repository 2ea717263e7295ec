"""Cleaning: automatic, step by step, and thorough."""

from harness.agents import EXTRA_STEP
from harness.failure import ScenarioSkipped, need

from .registry import scenario

_METADATA = {"interface": "deploy", "step": "erase_devices_metadata"}


def _prepare(bench):
    bench.node.to_manageable()
    bench.disk.fill_with_old_system()
    need(len(bench.disk.partitions()) == 2, "the disk could not be prepared")


def _check_clean(bench):
    need(not bench.disk.partitions(), f"partitions are left: {bench.disk.partitions()}")
    need(not bench.disk.signatures(), f"signatures are left: {bench.disk.signatures()}")
    commands = bench.transcript.commands()
    for name in ("clean.get_clean_steps", "clean.execute_clean_step"):
        need(name in commands, f"no command {name} among {commands}")


@scenario
def clean_auto(bench):
    """providing a node wipes its partition tables and signatures"""
    _prepare(bench)
    bench.node.clean_automatically(True)
    bench.node.provision("provide")
    bench.node.wait("available")
    _check_clean(bench)


@scenario
def manual_clean(bench):
    """an operator asks for one clean step"""
    _prepare(bench)
    bench.node.provision("clean", clean_steps=[_METADATA])
    bench.node.wait("manageable")
    _check_clean(bench)
    need(bench.transcript.steps() == ["erase_devices_metadata"], f"steps: {bench.transcript.steps()}")


@scenario
def manual_clean_erase(bench):
    """an operator has the whole disk erased"""
    _prepare(bench)
    bench.disk.scatter_marks()
    bench.node.provision("clean", clean_steps=[{"interface": "deploy", "step": "erase_devices"}])
    bench.node.wait("manageable")
    left = bench.disk.marks_left()
    need(not left, f"data can still be read at {left}")
    _check_clean(bench)


@scenario
def clean_reboot(bench):
    """a step that asks for a reboot gets it, and cleaning goes on with the next step"""
    agent = bench.agent.with_extra_step()
    if agent is None:
        raise ScenarioSkipped("no build of the example: cargo build -p ferric-agent --example reboot_step")
    _prepare(bench)
    bench.bmc.agent = agent
    try:
        bench.node.clean_automatically(True)
        bench.node.provision("provide")
        bench.node.wait("available")
    finally:
        bench.bmc.agent = bench.agent
    _check_clean(bench)
    steps = bench.transcript.steps()
    need(steps == [EXTRA_STEP, "erase_devices_metadata"], f"steps: {steps}")
    need(len(bench.transcript.boots()) == 2, f"the ramdisk was booted {len(bench.transcript.boots())} times")
