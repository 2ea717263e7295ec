"""Commands after which the agent is not what it was: each has a boot of its own. Only their answers are looked at."""


from .commands import step
from .probe import Probe, command

BUSY = [
    step("clean", "erase_devices", wait="false", label="start a long step"),
    command("standby.get_partition_uuids", {}, label="busy"),
    command("nosuch.command", {}, label="unknown extension while busy"),
    command("standby.nosuch", {}, label="unknown command while busy"),
    command("nodot", {}, label="no dot while busy"),
    Probe("list while busy"),
    Probe("status while busy", path="/v1/status", token=None),
]
RESCUE = {
    "rescue hashed": [command("rescue.finalize_rescue", {"rescue_password": "$5$DTBqgtUNYATCy3wo$28kO.s6FuWnNiQmH2eHT54W9bahjwZbh99njhRjU6Z4", "hashed": True}, wait="false")],
    "rescue plain": [command("rescue.finalize_rescue", {"rescue_password": "secret"}, wait="false")],
    "rescue with one more": [command("rescue.finalize_rescue", {"rescue_password": "secret", "more": 1}, wait="false")],
}
ENDINGS = {
    **RESCUE,
    "lockdown": [command("system.lockdown", {}, wait="false")],
    "power off": [command("standby.power_off", {}, wait="false")],
    "run image": [command("standby.run_image", {}, wait="false")],
}

