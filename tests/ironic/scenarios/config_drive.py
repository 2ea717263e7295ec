"""Config drives beside whole-disk images."""

import base64
import gzip
import json
import subprocess

from harness.failure import need
from harness.node import UUID

from .deploy import check_whole_disk, deploy
from .registry import scenario

LABEL = "config-2"
_META_DATA = {"uuid": UUID, "hostname": "h", "instance-id": UUID}
_USER_DATA = "#cloud-config\n{}\n"


def iso_config_drive(bench):
    """`(as the API takes it: gzip and base64, as it has to be on the disk)`."""
    folder, iso = bench.layout.state / "config-drive", bench.layout.state / "config-drive.iso"
    latest = folder / "openstack/latest"
    latest.mkdir(parents=True, exist_ok=True)
    (latest / "meta_data.json").write_text(json.dumps(_META_DATA))
    (latest / "user_data").write_text(_USER_DATA)
    subprocess.run(["mkisofs", "-quiet", "-R", "-V", LABEL, "-o", iso, folder], check=True, capture_output=True)
    raw = iso.read_bytes()
    return base64.b64encode(gzip.compress(raw, mtime=0)).decode(), raw


def json_config_drive():
    """The parts; Ironic makes the ISO 9660 file system of them."""
    return {"meta_data": _META_DATA, "user_data": _USER_DATA, "network_data": {"links": [], "networks": [], "services": []}}


def check_config_drive(bench, raw=None):
    """There is one, and where `raw` is given it is that, byte for byte. Returns what is in the partition."""
    found = bench.disk.partition(fs="iso9660", label=LABEL)
    need(found, f"no config drive: {bench.disk.partitions()}")
    content = bench.disk.read(found["start"], found["size"])
    need(raw is None or content[: len(raw)] == raw, "the config drive differs from what was given")
    return content


@scenario
def deploy_configdrive(bench):
    """a raw image with an ISO config drive beside it"""
    encoded, raw = iso_config_drive(bench)
    deploy(bench, "whole.raw", encoded, image_disk_format="raw")
    check_whole_disk(bench)
    check_config_drive(bench, raw)


@scenario
def deploy_configdrive_json(bench):
    """a qcow2 image with a config drive that Ironic makes of JSON"""
    deploy(bench, "whole.qcow2", json_config_drive())
    check_whole_disk(bench)
    content = check_config_drive(bench)
    need(_USER_DATA.encode() in content, "the user data is not in the config drive")
