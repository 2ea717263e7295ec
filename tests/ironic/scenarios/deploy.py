"""Whole-disk images, written where they belong."""

from harness.failure import ScenarioSkipped, need
from harness.images import MEBIBYTE, ROOT_UUID, WHOLE_BYTES

from .registry import scenario


def deploy(bench, image, configdrive=None, **image_arguments):
    """Deploys to an empty disk, from wherever the node is."""
    bench.node.to_available()
    bench.disk.blank()
    bench.set_image(image, **image_arguments)
    arguments = {} if configdrive is None else {"configdrive": configdrive}
    bench.node.provision("active", **arguments)
    bench.node.wait("active")


def check_whole_disk(bench):
    """The disk is the image, byte for byte. The agent moves the backup GPT to the end of the disk and may add a config drive:
    the first and the last MiB of the image may differ."""
    head, tail = (0, MEBIBYTE), (WHOLE_BYTES - MEBIBYTE, WHOLE_BYTES)
    differences = bench.disk.differences(bench.images.path("whole.raw"), skip=(head, tail))
    need(not differences, f"the disk differs from the image at {differences[:5]}")
    need(bench.disk.partition(uuid=ROOT_UUID), f"no root file system: {bench.disk.partitions()}")


def check_left_by_itself(bench):
    """The agent was asked to switch the machine off, and did; nobody had to pull the plug."""
    events = [record.get("event") for record in bench.transcript.records()]
    need("power off requested by the machine" in events, f"the agent did not switch the machine off: {events}")


@scenario
def deploy_raw(bench):
    """a raw image, streamed to the disk"""
    deploy(bench, "whole.raw", image_disk_format="raw")
    check_whole_disk(bench)
    check_left_by_itself(bench)
    need("write_image" in bench.transcript.steps(), f"no step write_image: {bench.transcript.steps()}")


@scenario
def deploy_qcow2(bench):
    """a qcow2 image, with a SHA-512 digest"""
    deploy(bench, "whole.qcow2", algorithm="sha512")
    check_whole_disk(bench)
    check_left_by_itself(bench)


@scenario
def deploy_raw_unnamed(bench):
    """a raw image whose format nobody has told"""
    if bench.agent.is_reference:
        raise ScenarioSkipped("the reference finds a GPT in it and asks qemu-img for a format of that name, which it does not know")
    deploy(bench, "whole.raw")
    check_whole_disk(bench)
