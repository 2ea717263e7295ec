"""One boot of the ramdisk for cleaning and deploying."""

from harness.failure import need

from .deploy import check_whole_disk
from .registry import scenario


@scenario
def fast_track(bench):
    """cleaning twice and deploying, without a reboot in between"""
    bench.node.to_manageable()
    bench.node.patch(("add", "/driver_info/fast_track", True))
    try:
        bench.node.provision("clean", clean_steps=[{"interface": "deploy", "step": "erase_devices_metadata"}])
        bench.node.wait("manageable")
        need(bench.node.get()["power_state"] == "power on", "Ironic has switched the machine off after cleaning")
        bench.node.clean_automatically(True)
        bench.node.provision("provide")
        bench.node.wait("available")
        bench.set_image("whole.raw", image_disk_format="raw")
        bench.node.provision("active")
        bench.node.wait("active")
        need(len(bench.transcript.boots()) == 1, f"the ramdisk was booted {len(bench.transcript.boots())} times")
        check_whole_disk(bench)
    finally:
        bench.node.patch(("remove", "/driver_info/fast_track"))
