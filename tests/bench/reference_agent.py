"""Has the real ironic-python-agent write one image: its command `standby.prepare_image`, called in its own interpreter.

    reference_agent.py URL SHA256 raw|qcow2 DEVICE

Nothing of the package is changed but for the choice of the disk, which would need the machine's own disks. Prints one line `BENCH {...}`:
how long the command took, and how much of it went into bytes (`data_seconds`: download and conversion, without wiping
metadata, repairing the partition table and waiting for devices). The interpreter's start is not counted: an agent is
already running when a command arrives.
"""

import json
import sys
import time

from ironic_python_agent import config as _options  # noqa: F401  registers what the rest reads
from ironic_python_agent import disk_utils, hardware
from ironic_python_agent.extensions import standby
from oslo_config import cfg
from oslo_log import log


def main(url, digest, form, device):
    log.register_options(cfg.CONF)
    cfg.CONF([], project="ironic-python-agent", default_config_files=[])
    log.setup(cfg.CONF, "ironic-python-agent")
    dispatch = hardware.dispatch_to_managers
    hardware.dispatch_to_managers = lambda method, *args, **more: (
        device if method == "get_os_install_device" else dispatch(method, *args, **more)
    )
    other = Clock()
    for module, name in (
        (disk_utils, "destroy_disk_metadata"),
        (disk_utils, "trigger_device_rescan"),
        (disk_utils, "fix_gpt_partition"),
        (disk_utils, "wait_for_disk_to_become_available"),
        (standby, "_validate_partitioning"),
    ):
        setattr(module, name, other.around(getattr(module, name)))
    image = {
        "id": "image",
        "urls": [url],
        "os_hash_algo": "sha256",
        "os_hash_value": digest,
        "disk_format": form,
        "stream_raw_images": form == "raw",
        "image_type": "whole-disk",
    }
    begin = time.monotonic()
    result = standby.StandbyExtension().prepare_image(image_info=image)
    result.join()
    seconds = time.monotonic() - begin
    print("BENCH " + json.dumps({"seconds": seconds, "data_seconds": seconds - other.seconds}))
    if not str(result.command_status).endswith("SUCCEEDED"):
        sys.exit(f"{result.command_status}: {result.command_error}")


class Clock:
    """Time spent in some functions."""

    def __init__(self):
        self.seconds = 0.0
        self._depth = 0

    def around(self, function):
        def timed(*args, **more):
            begin = time.monotonic()
            self._depth += 1
            try:
                return function(*args, **more)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.monotonic() - begin

        return timed


if __name__ == "__main__":
    main(*sys.argv[1:5])
