"""Whole-disk images, written where they belong."""

from harness.failure import need
from harness.images import MEBIBYTE, ROOT_UUID, WHOLE_BYTES

from .registry import scenario


def check_whole_disk(bench):
    """The disk is the image, byte for byte. The agent moves the backup GPT to the end of the disk and may add a config drive:
    the first and the last MiB of the image may differ."""
    head, tail = (0, MEBIBYTE), (WHOLE_BYTES - MEBIBYTE, WHOLE_BYTES)
    differences = bench.disk.differences(bench.images.path("whole.raw"), skip=(head, tail))
    need(not differences, f"the disk differs from the image at {differences[:5]}")
    need(bench.disk.partition(uuid=ROOT_UUID), f"no root file system: {bench.disk.partitions()}")


@scenario
def deploy_raw(bench):
    """a raw image, streamed to the disk"""
    bench.node.to_available()
    bench.disk.blank()
    bench.set_image("whole.raw", image_disk_format="raw")
    bench.node.provision("active")
    bench.node.wait("active")
    check_whole_disk(bench)
    need("write_image" in bench.transcript.steps(), f"no step write_image: {bench.transcript.steps()}")
