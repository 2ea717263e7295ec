"""The one node, through Ironic's API."""

import json
import time
import urllib.error
import urllib.request

from .failure import ScenarioFailed
from .layout import API_PORT, DISK_SERIAL, NODE_MAC

NAME = "node-0"
UUID = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123"
_REQUEST_SECONDS = 120
_LOCKED_TRIES = 20
_LOOK_PAUSE = 0.5


class Node:
    def __init__(self, images):
        self._images = images
        self.phases = []
        """States and steps seen by `wait`, each with its time."""

    def enroll(self):
        """IPMI hardware, PXE boot, direct deploy; the disk is chosen by its serial number."""
        kernel, ramdisk = (f"file://{self._images.path(f'deploy.{part}')}" for part in ("kernel", "ramdisk"))
        driver_info = {"ipmi_address": "127.0.0.2", "ipmi_username": "u", "ipmi_password": "p"}
        driver_info.update(deploy_kernel=kernel, deploy_ramdisk=ramdisk, rescue_kernel=kernel, rescue_ramdisk=ramdisk)
        properties = {
            "cpu_arch": "x86_64",
            "capabilities": "boot_mode:bios",
            "root_device": {"serial": DISK_SERIAL},
        }
        node = {"uuid": UUID, "name": NAME, "driver": "ipmi", "resource_class": "baremetal"}
        call("POST", "/v1/nodes", {**node, "driver_info": driver_info, "properties": properties})
        call("POST", "/v1/ports", {"node_uuid": UUID, "address": NODE_MAC, "pxe_enabled": True})

    def get(self):
        return call("GET", f"/v1/nodes/{NAME}")

    @property
    def state(self):
        return self.get()["provision_state"]

    def inventory(self):
        return call("GET", f"/v1/nodes/{NAME}/inventory")

    def ports(self):
        return call("GET", f"/v1/ports?node={NAME}&fields=address,pxe_enabled")["ports"]

    def power(self, target):
        call("PUT", f"/v1/nodes/{NAME}/states/power", {"target": target})
        begun = time.monotonic()
        while self.get()["power_state"] != target:
            if time.monotonic() - begun > 60:
                raise ScenarioFailed(f"no {target} within 60 s")
            time.sleep(_LOOK_PAUSE)

    def provision(self, target, **arguments):
        call("PUT", f"/v1/nodes/{NAME}/states/provision", {"target": target, **arguments})

    def patch(self, *changes):
        """Each change is (operation, path, value), the value left out for `remove`."""
        call("PATCH", f"/v1/nodes/{NAME}", [dict(zip(("op", "path", "value"), change)) for change in changes])

    def clean_automatically(self, wanted):
        self.patch(("replace", "/automated_clean", wanted))

    def set_image(self, url, digest, algorithm="sha256", **more):
        source = {"image_source": url, "image_os_hash_algo": algorithm, "image_os_hash_value": digest}
        self.patch(("replace", "/instance_info", {**source, **more}))

    def wait(self, *wanted, timeout=600):
        """Waits for a provision state, and fails in any other that nothing leads out of. Returns the node."""
        begun, last = time.monotonic(), None
        while True:
            node = self.get()
            state, error = node["provision_state"], (node.get("last_error") or "")[:1500]
            step = node.get("clean_step") or node.get("deploy_step") or node.get("service_step") or {}
            if (state, step.get("step")) != last:
                last = (state, step.get("step"))
                self.phases.append({"t": time.time(), "state": state, "step": step.get("step")})
            if state in wanted:
                if node["target_provision_state"] is None or state.endswith(("failed", "wait")):
                    return node
            elif state.endswith("failed") or state == "error" or _came_to_rest(node, begun):
                raise ScenarioFailed(f"the node is {state}, not {' or '.join(wanted)}: {error}")
            if time.monotonic() - begun > timeout:
                raise ScenarioFailed(f"the node is still {state} (step {step.get('step')}) after {timeout} s: {error}")
            time.sleep(_LOOK_PAUSE)

    def to_manageable(self):
        """From wherever the last scenario left the node."""
        node = self.get()
        state = node["provision_state"]
        if state == "manageable":
            return
        if state == "clean wait":
            self.provision("abort")
            self.wait("clean failed")
            return self.to_manageable()
        if node["maintenance"]:
            call("DELETE", f"/v1/nodes/{NAME}/maintenance")
        if state in ("enroll", "available", "inspect failed", "clean failed"):
            self.provision("manage")
        elif state == "inspect wait":
            self.provision("abort")
            self.wait("inspect failed")
            self.provision("manage")
        else:
            self.clean_automatically(False)
            self.provision("deleted")
            self.wait("available")
            self.provision("manage")
        self.wait("manageable")

    def to_available(self):
        """Without cleaning."""
        if self.state != "available":
            self.to_manageable()
            self.clean_automatically(False)
            self.provision("provide")
            self.wait("available")


def _came_to_rest(node, begun):
    """Whether nothing goes on any more. A moment is allowed for a request to take effect."""
    return (
        node["target_provision_state"] is None
        and not node.get("reservation")
        and time.monotonic() - begun > 10
        and not node["provision_state"].endswith(("ing", "wait", "call-back"))
    )


def call(method, path, body=None):
    """Ironic's answer to a request. Waits while the node is locked."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{API_PORT}{path}",
        method=method,
        headers={
            "X-OpenStack-Ironic-API-Version": "latest",
            "Accept": "application/json",
            "Content-Type": "application/json",
        },
        data=None if body is None else json.dumps(body).encode(),
    )
    for attempt in range(1, _LOCKED_TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as answer:
                data = answer.read()
                return json.loads(data) if data else None
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if error.code == 409 and attempt < _LOCKED_TRIES:
                time.sleep(1)
                continue
            raise ScenarioFailed(f"{method} {path} -> {error.code} {text[:500]}") from None
