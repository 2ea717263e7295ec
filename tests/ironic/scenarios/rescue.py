"""A ramdisk into which a tenant can log in."""

import subprocess

from harness.failure import need

from .registry import scenario

_PASSWORD = "Secret.Pass1"
_PASSWORD_FILE = "etc/ipa-rescue-config/ipa-rescue-password"


@scenario
def rescue(bench):
    """the rescue password works in the ramdisk, and the instance comes back"""
    bench.to_active()
    bench.node.provision("rescue", rescue_password=_PASSWORD)
    bench.node.wait("rescue")
    need("rescue.finalize_rescue" in bench.transcript.commands(), f"commands: {bench.transcript.commands()}")
    root = bench.bmc.machine_root()
    need(root, "the machine does not run")
    hashed = _password_of_rescue(root)
    need(hashed, f"neither {_PASSWORD_FILE} nor a user rescue in the ramdisk")
    need(_matches(hashed), "the password in the ramdisk is another one")
    bench.node.provision("unrescue")
    bench.node.wait("active")
    booted = [record["event"] for record in bench.transcript.records() if record.get("event", "").startswith("boot ")]
    need(booted[-1:] == ["boot from disk"], f"the machine did not boot its instance again: {booted}")


def _password_of_rescue(root):
    """A ramdisk of a distribution makes a user of the file that the agent writes; one without makes the user itself."""
    file, shadow = root / _PASSWORD_FILE, root / "etc/shadow"
    if file.exists():
        return file.read_text().strip()
    lines = shadow.read_text().splitlines() if shadow.exists() else []
    users = {line.split(":")[0]: line.split(":")[1] for line in lines if ":" in line}
    return users.get("rescue")


def _matches(hashed):
    """Whether a crypt string ($5$ or $6$, without rounds) is that of the password."""
    kind, salt = hashed.split("$")[1:3]
    command = ["openssl", "passwd", f"-{kind}", "-salt", salt, _PASSWORD]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == hashed
