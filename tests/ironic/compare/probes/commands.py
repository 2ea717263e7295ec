"""Commands as a conductor sends them, in the order in which their results stand in the list."""

from .probe import Probe, command

NODE = {
    "uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123", "properties": {"root_device": {"serial": "HARNESS0001"}}, "instance_info": {},
    "driver_info": {}, "driver_internal_info": {"agent_erase_devices_iterations": 1}, "target_raid_config": {},
}
HERE = {"node": NODE, "ports": []}


def step(kind, name, interface="deploy", version=None, label=None, wait="true", more=(), **arguments):
    """`KIND.execute_KIND_step` with a step of that name."""
    body = {"step": {"step": name, "interface": interface, "priority": 0, **({"args": arguments} if arguments else {})}, **HERE}
    if version is not None:
        body[f"{kind}_version"] = version
    return command(f"{kind}.execute_{kind}_step", {**body, **dict(more)}, wait=wait, label=label or f"{kind} step {name}")


# In IPA each of these asks hardware managers and answers at once.
QUESTIONS = [
    *(command(f"{kind}.get_{kind}_steps", HERE) for kind in ("clean", "deploy", "service")),
    command("clean.get_clean_steps", {"node": {**NODE, "uuid": "22222222-2222-4222-8222-222222222222"}, "ports": [{"address": "52:54:00:20:00:02"}]},
            label="steps for another node"),
    command("standby.get_partition_uuids", {}),
    command("poll.get_hardware_info", {}),
    command("poll.set_node_info", {"node_info": {"node": NODE, "config": {"heartbeat_timeout": 300}}}),
    command("log.collect_system_logs", {}),
    command("flow.start_flow", {"flow": [{"standby.get_partition_uuids": {}}]}),
    command("flow.start_flow", {"flow": []}, label="empty flow"),
    command("flow.start_flow", {"flow": [{"standby.get_partition_uuids": {}}, {"clean.execute_clean_step": {"step": {}, **HERE}}]}, label="flow with a failure"),
    command("flow.start_flow", {"flow": [{"nosuch.command": {}}]}, label="flow with an unknown extension"),
    command("flow.start_flow", {"flow": [{"standby.nosuch": {}}]}, label="flow with an unknown command"),
    command("image.install_bootloader", {"root_uuid": None, "target_boot_mode": "bios"}, label="no root"),
    command("image.install_bootloader", {"root_uuid": "0x00000000", "efi_system_part_uuid": None, "prep_boot_part_uuid": None, "target_boot_mode": "bios"},
            label="whole disk"),
    command("image.install_bootloader", {"root_uuid": "0x00000000", "target_boot_mode": "bios", "ignore_bootloader_failure": True}, label="failure ignored"),
    Probe("list of the questions"),
]

MANAGERS = {"generic_hardware_manager": "1.2"}

STEPS = [
    *(step(kind, "nosuch") for kind in ("clean", "deploy", "service")),
    *(step(kind, "erase_devices_metadata", version={"other": "1"}, label=f"{kind} step for other managers") for kind in ("clean", "deploy", "service")),
    step("clean", "erase_devices_metadata", version=MANAGERS, label="clean step for these managers"),
    step("clean", "erase_devices_metadata", more=(("more", 1),), label="clean step with a parameter more"),
    step("deploy", "erase_devices_metadata"),
    step("clean", "write_image", label="write_image without arguments, in cleaning"),
    *(step(kind, "write_image", label=f"{kind} write_image without arguments") for kind in ("deploy", "service")),
    step("deploy", "write_image", image_info={}, label="write_image of nothing"),
    step("deploy", "inject_files", label="inject_files without arguments"),
    step("deploy", "inject_files", files=[], label="inject_files of none"),
    step("clean", "erase_pstore"),
    step("clean", "delete_configuration", interface="raid"),
    step("clean", "create_configuration", interface="raid"),
    step("deploy", "apply_configuration", interface="raid", label="apply_configuration without arguments"),
    *(step("clean", name, label=f"{name}, which is no step") for name in ("list_hardware_info", "get_clean_steps", "__class__", "evaluate_hardware_support")),
    command("clean.execute_clean_step", {"step": {"interface": "deploy"}, **HERE}, label="step without name"),
    command("clean.execute_clean_step", {"step": {}, **HERE}, label="empty step"),
    command("clean.execute_clean_step", {"step": {"step": None, "interface": "deploy"}, **HERE}, label="step named null"),
    command("clean.execute_clean_step", {"step": {"step": "nosuch", "interface": "deploy", "args": None}, **HERE}, label="arguments null"),
    Probe("list of the steps"),
]


def image(**info):
    """`standby.prepare_image` of an image that nobody serves."""
    base = {"id": "x", "urls": ["http://172.31.20.1:1/x"], "os_hash_algo": "sha256", "os_hash_value": "0" * 64, "disk_format": "raw", "stream_raw_images": True}
    return {"image_info": {key: value for key, value in {**base, **info}.items() if value is not DROP}}


DROP = object()
IMAGE_INFO = {
    "no id": {"id": DROP}, "id is null": {"id": None}, "id is a number": {"id": 1}, "no urls": {"urls": DROP}, "urls is null": {"urls": None},
    "urls is empty": {"urls": []}, "urls is text": {"urls": "http://x"}, "no digest": {"os_hash_algo": DROP, "os_hash_value": DROP},
    "algorithm without value": {"os_hash_value": DROP}, "value without algorithm": {"os_hash_algo": DROP}, "algorithm is empty": {"os_hash_algo": ""},
    "algorithm is a number": {"os_hash_algo": 1}, "value is a list": {"os_hash_value": []}, "checksum is empty": {"checksum": ""},
    "checksum is a number": {"checksum": 1}, "only MD5": {"os_hash_algo": DROP, "os_hash_value": DROP, "checksum": "0" * 32},
    "only SHA-256": {"os_hash_algo": DROP, "os_hash_value": DROP, "checksum": "0" * 64},
    "unknown algorithm": {"os_hash_algo": "whirlpool"}, "nobody serves it": {}, "id with a slash": {"id": "../x"},
}
IMAGES = [
    *(command("standby.prepare_image", image(**info), label=f"image_info: {label}") for label, info in IMAGE_INFO.items()),
    command("standby.prepare_image", {"image_info": None}, label="image_info is null"),
    command("standby.prepare_image", {"image_info": []}, label="image_info is a list"),
    command("standby.prepare_image", {"image_info": {}}, label="image_info is empty"),
    command("standby.prepare_image", {**image(), "configdrive": 1}, label="config drive is a number"),
    command("standby.execute_bootc_install", {"image_source": "oci://192.0.2.1/nosuch:1", "instance_info": {}, "pull_secret": None, "configdrive": None}),
    Probe("list of the images"),
]
