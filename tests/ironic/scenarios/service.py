"""Servicing: steps on a node that has an instance."""

import base64

from harness.failure import need
from harness.images import ROOT_UUID

from .registry import scenario

_PATH, _CONTENT = "/etc/injected-by-service", b"hello from the harness\n"


@scenario
def service(bench):
    """a file is injected into a deployed file system"""
    bench.to_active()
    content = base64.b64encode(_CONTENT).decode()
    file = {"path": _PATH, "mode": 0o640, "partition": "/dev/sda2", "content": content}
    step = {"interface": "deploy", "step": "inject_files", "args": {"files": [file]}}
    bench.node.provision("service", service_steps=[step])
    bench.node.wait("active")
    commands = bench.transcript.commands()
    need("service.get_service_steps" in commands, f"commands: {commands}")
    need(bench.transcript.steps()[-1:] == ["inject_files"], f"steps: {bench.transcript.steps()}")
    found = bench.disk.read_file(ROOT_UUID, _PATH)
    need(found == _CONTENT, f"the file holds {found!r}")
    about = bench.disk.describe_file(ROOT_UUID, _PATH)
    need("Mode:  0640" in about, f"the mode is not 0640: {about}")
    need(bench.disk.read_file(ROOT_UUID, "/etc/marker") == b"harness-root\n", "the file beside it was touched")


@scenario
def service_unknown(bench):
    """a step that no agent knows fails the service, and the node can be used on"""
    bench.to_active()
    bench.node.provision("service", service_steps=[{"interface": "deploy", "step": "brew_coffee"}])
    node = bench.node.wait("service failed")
    need("brew_coffee" in node["last_error"], f"last_error does not name the step: {node['last_error']}")
    bench.node.provision("abort")
    bench.node.wait("active")
