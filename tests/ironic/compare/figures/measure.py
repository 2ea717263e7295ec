"""One measurement each, of an agent in the harness's machine."""

import json
import random
import socket
import ssl
import time

from probes.commands import HERE
from probes.stub import IMAGE_PATH, NODE, TOKEN

from harness.layout import CONTROL_IP, NODE_IP, PROXY_PORT

from . import load, memory

PORT = 9999
PAUSE = 0.002
SERVING_LIMIT = 60


def _first_answer(limit):
    """When the agent first answered `GET /v1/status`, asked again and again without a pause worth mentioning."""
    context = ssl._create_unverified_context()
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            with context.wrap_socket(socket.create_connection((NODE_IP, PORT), timeout=1)) as connection:
                connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if connection.recv(12).endswith(b"200"):
                    return time.time()
        except (OSError, ssl.SSLError):
            time.sleep(PAUSE)
    raise TimeoutError("the agent did not serve")


def start(machine):
    """Seconds from the start of the agent's process to its first lookup, to its first answer, and to its first heartbeat."""
    machine.transcript.begin("figures")
    with machine.running(at_once=True) as (stub, _):
        serving = _first_answer(SERVING_LIMIT)
        lookup = stub.wait_for("/v1/lookup")[0]
        heartbeat = stub.wait_for("/heartbeat/")[0]
        begun = next(record["t"] for record in machine.transcript.records() if record.get("event") == "agent started")
    return {"lookup": lookup - begun, "serving": serving - begun, "heartbeat": heartbeat - begun}


def idle_memory(machine, heartbeats=3, samples=5):
    """Memory after the third heartbeat, the middle of some samples a second apart."""
    with machine.running(heartbeat_timeout=10) as (stub, _):
        stub.wait_for("/heartbeat/", heartbeats)
        taken = []
        for _ in range(samples):
            time.sleep(1)
            taken.append(memory.of_machine(machine.bmc.process))
    return sorted(taken, key=lambda sample: sample["rss"])[len(taken) // 2]


def _post(agent, name, params, wait):
    body = json.dumps({"name": name, "params": params}).encode()
    head = f"POST /v1/commands/?wait={wait}&agent_token={TOKEN} HTTP/1.1\r\nHost: {agent.authority}\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = agent.raw(head.encode() + body, "POST")
    if answer is None or answer[0] != 200:
        raise RuntimeError(f"{name}: {answer}")
    return json.loads(answer[3])


def news(machine, quiet_since, rounds):
    """Seconds between the end of a step and the heartbeat by which the conductor learns of it, for a step that ends at once and
    starts `quiet_since` seconds (a range) after the last heartbeat."""
    waited = []
    with machine.running(heartbeat_timeout=300) as (stub, agent):
        for _ in range(rounds):
            last = max(call[0] for call in stub.calls if "/heartbeat/" in call[2])
            time.sleep(max(0, last + random.uniform(*quiet_since) - time.time()))
            stub.forget()
            answer = _post(agent, "clean.execute_clean_step", {"step": {"step": "nosuch", "interface": "deploy"}, **HERE}, "true")
            ended = time.time()
            if answer["command_status"] != "FAILED":
                raise RuntimeError(f"unexpected answer {answer}")
            waited.append(max(0.0, stub.wait_for("/heartbeat/")[0] - ended))
    return waited


def requests(machine, seconds):
    """`{"idle, keep-alive, 10 clients": figures, ...}` for `GET /v1/commands/`, idle and while an image is being written."""
    found = {}
    with machine.running() as (_, agent):
        _post(agent, "clean.get_clean_steps", HERE, "true")
        url = f"https://{agent.authority}/v1/commands/?agent_token={TOKEN}"
        for busy in (False, True):
            if busy:
                _post(agent, "standby.prepare_image", {"image_info": _slow_image()}, "false")
                time.sleep(3)
            for keep_alive in (True, False):
                for clients in load.CLIENTS:
                    name = f"{'writing' if busy else 'idle'}, {'keep-alive' if keep_alive else 'new connections'}, {clients}"
                    found[name] = load.measure(url, clients, keep_alive, seconds)
        listed = agent.raw(f"GET /v1/commands/?agent_token={TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        if json.loads(listed[3])["commands"][-1]["command_status"] != "RUNNING":
            raise RuntimeError(f"the step ended before the measurement did: {listed[3][-600:]}")
    return found


def _slow_image():
    return {
        "id": "slow", "urls": [f"http://{CONTROL_IP}:{PROXY_PORT}{IMAGE_PATH}"], "disk_format": "raw", "stream_raw_images": True,
        "os_hash_algo": "sha256", "os_hash_value": "0" * 64, "node_uuid": NODE,
    }
