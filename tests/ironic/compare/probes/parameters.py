"""Every command with parameters missing, unknown, and of the wrong type."""

from .commands import HERE, NODE
from .probe import Probe, command

STEP = {"step": "nosuch", "interface": "deploy"}

# (command, parameters that it takes, in their order). A command that would switch the machine off is called with wrong ones only.
COMMANDS = [
    ("clean.get_clean_steps", HERE),
    ("clean.execute_clean_step", {"step": STEP, **HERE}),
    ("deploy.get_deploy_steps", HERE),
    ("deploy.execute_deploy_step", {"step": STEP, **HERE}),
    ("service.get_service_steps", HERE),
    ("service.execute_service_step", {"step": STEP, **HERE}),
    ("standby.get_partition_uuids", {}),
    ("standby.sync", {}),
    ("standby.power_off", {}),
    ("standby.run_image", {}),
    ("image.install_bootloader", {"root_uuid": None, "efi_system_part_uuid": None, "prep_boot_part_uuid": None, "target_boot_mode": "bios"}),
    ("poll.get_hardware_info", {}),
    ("poll.set_node_info", {"node_info": {}}),
    ("flow.start_flow", {"flow": []}),
    ("log.collect_system_logs", {}),
    ("rescue.finalize_rescue", {"rescue_password": "$5$salt$hash", "hashed": True}),
    ("system.lockdown", {}),
]
OPTIONAL = {("image.install_bootloader", name) for name in ("efi_system_part_uuid", "prep_boot_part_uuid", "target_boot_mode")}
OPTIONAL |= {("rescue.finalize_rescue", "rescue_password"), ("rescue.finalize_rescue", "hashed"), ("poll.set_node_info", "node_info")}
WRONG = {"null": None, "a number": 1, "text": "x", "a list": [], "an object": {}, "true": True}
# Wrong types that end the agent, or that would have it rescue the machine: tried elsewhere or not at all.
LEFT_OUT = {"rescue.finalize_rescue"}


def _variants(name, good):
    for parameter in good:
        if (name, parameter) not in OPTIONAL:
            yield f"{name} without {parameter}", {key: value for key, value in good.items() if key != parameter}
    yield f"{name} with one more", {**good, "more": 1}
    if name in LEFT_OUT:
        return
    for parameter, value in good.items():
        for label, wrong in WRONG.items():
            if type(wrong) is not type(value):
                yield f"{name}, {parameter} is {label}", {**good, parameter: wrong}


# `execute_*_step` hands unknown parameters on to the step, `poll.set_node_info` without any refuses anyway.
PARAMETERS = {
    name: [*(command(name, body, label=label) for label, body in _variants(name, good)), Probe("list after wrong parameters")]
    for name, good in COMMANDS
}
NODES = [
    command("clean.get_clean_steps", {"node": {key: value for key, value in NODE.items() if key != "uuid"}, "ports": []}, label="node without uuid"),
    command("clean.get_clean_steps", HERE, label="steps after it"),
    Probe("list after a node without uuid"),
]
