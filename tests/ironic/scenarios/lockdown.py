"""Nodes whose power must not be switched off."""

from harness.failure import need

from .deploy import check_whole_disk
from .registry import scenario


@scenario
def lockdown(bench):
    """at the end of a deployment the agent cuts itself off instead of switching the machine off"""
    bench.node.to_available()
    bench.disk.blank()
    bench.node.power("power on")
    bench.node.patch(("replace", "/disable_power_off", True))
    try:
        bench.set_image("whole.raw", image_disk_format="raw")
        bench.node.provision("active")
        bench.node.wait("active")
        check_whole_disk(bench)
        need("system.lockdown" in bench.transcript.commands(), f"commands: {bench.transcript.commands()}")
        power = [record for record in bench.transcript.records() if record.get("event", "").startswith("power ")]
        begun = max(number for number, record in enumerate(power) if record["event"] == "power on")
        resets = power[begun + 1 :]
        names = [record["event"] for record in resets]
        need(names == ["power reset", "power reset"], f"Ironic has not just reset the machine before and after: {names}")
        need(resets[1]["link"] == "down", f"the network of the locked agent is {resets[1]['link']}")
    finally:
        bench.node.patch(("replace", "/disable_power_off", False))
