"""Cleaning: automatic, step by step, and thorough."""

from harness.failure import need

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
