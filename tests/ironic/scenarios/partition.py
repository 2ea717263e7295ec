"""Partition images: the agent makes the partition table itself, and has the image install its boot loader."""

from harness.failure import need
from harness.images import PARTITION_UUID

from .config_drive import check_config_drive, iso_config_drive, json_config_drive
from .deploy import check_left_by_itself, deploy
from .registry import scenario

_GIBIBYTE, _MEBIBYTE = 1 << 30, 1 << 20


def _check_root(bench):
    """The file system of the image, in a partition of the size that was asked for, with a boot loader for this disk."""
    root = bench.disk.partition(uuid=PARTITION_UUID)
    need(root, f"no root partition: {bench.disk.partitions()}")
    need(root["size"] == _GIBIBYTE, f"the root partition is not 1 GiB: {root}")
    need(bench.disk.read_file(PARTITION_UUID, "/etc/marker") == b"harness-root\n", "the image's files are not there")
    log = bench.disk.read_file(PARTITION_UUID, "/boot/grub-install.log") or b""
    need(b"grub-install" in log and b"/dev/sda" in log, f"grub-install was not run in the image: {log!r}")
    need("image.install_bootloader" in bench.transcript.commands(), f"commands: {bench.transcript.commands()}")


@scenario
def deploy_partition(bench):
    """a raw partition image with swap and an ISO config drive"""
    encoded, raw = iso_config_drive(bench)
    deploy(bench, "part.raw", encoded, image_type="partition", root_gb=1, swap_mb=64, ephemeral_gb=0)
    _check_root(bench)
    check_config_drive(bench, raw)
    need(bench.disk.partition(fs="swap", size=64 * _MEBIBYTE), f"no swap of 64 MiB: {bench.disk.partitions()}")
    check_left_by_itself(bench)


@scenario
def deploy_partition_qcow2(bench):
    """a qcow2 partition image with an ephemeral partition and a JSON config drive"""
    arguments = {"image_type": "partition", "root_gb": 1, "swap_mb": 0, "ephemeral_gb": 1, "ephemeral_format": "ext4"}
    deploy(bench, "part.qcow2", json_config_drive(), algorithm="sha512", **arguments)
    _check_root(bench)
    check_config_drive(bench)
    ephemeral = bench.disk.partition(fs="ext4", label="ephemeral0")
    need(ephemeral and ephemeral["size"] == _GIBIBYTE, f"no ephemeral partition of 1 GiB: {bench.disk.partitions()}")
