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
        records = bench.transcript.records()
        resets = [record for record in records if record.get("event") == "power reset"]
        need(len(resets) == 2, f"Ironic has reset the machine {len(resets)} times, not before and after")
        need(resets[1]["link"] == "down", f"the network of the locked agent is {resets[1]['link']}")
        need(not any(record.get("event") == "power off" for record in records), "Ironic has switched the machine off")
    finally:
        bench.node.patch(("replace", "/disable_power_off", False))
