"""Puts the probes to one agent and writes what it answered as transcripts, one a group."""

import time
import urllib.parse

from . import client
from .catalogue import GROUPS, scenario
from .endings import ENDINGS
from .probe import Probe
from .stub import TOKEN

AFTERWARDS = Probe("afterwards", path="/v1/status", token=None)
SECONDS_TO_END = 8

TOKENS = {"good": TOKEN, "wrong": "x" * len(TOKEN)}


def ask(agent, probe):
    """The record of one probe. Where the agent answers nothing at all, `status` is null."""
    query = list(probe.query)
    if probe.token:
        query.append(("agent_token", TOKENS[probe.token]))
    target = probe.path + ("?" + urllib.parse.urlencode(query) if query else "")
    headers = {"Host": agent.authority, **dict(probe.headers)}
    if probe.body or probe.method == "POST":
        headers["Content-Length"] = str(len(probe.body))
    if probe.raw is not None:
        data = probe.raw.replace(b"{token}", TOKEN.encode()).replace(b"{host}", agent.authority.encode())
        target, headers = "(raw)", {}
    else:
        data = client.request_bytes(probe.method, target, headers, probe.body)
    begun = time.time()
    try:
        answer = agent.raw(data, probe.method)
    except OSError:
        answer = None
    record = {
        "t": round(begun, 3), "dir": "probe", "probe": probe.name, "method": probe.method, "path": target, "http": "HTTP/1.1",
        "req_headers": headers, "req_body": (data if probe.raw is not None else probe.body).decode("latin-1"),
    }
    if answer is None:
        return {**record, "status": None, "error": "the connection ended without an answer"}
    status, reason, answer_headers, body = answer
    return {
        **record, "status": status, "reason": reason, "resp_headers": dict(answer_headers), "resp_body": client.json_or_text(body),
        "ms": round((time.time() - begun) * 1000),
    }


def _see_it_end(machine, agent):
    """Waits until the machine goes off or starts again, or, where only the agent ends, until it does not serve; asks once more if the
    machine is still the same."""
    boot, deadline = machine.bmc.boots, time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline and machine.bmc.power == "on" and machine.bmc.boots == boot:
        time.sleep(0.5)
    if machine.bmc.boots == boot:
        machine.transcript.write(ask(agent, AFTERWARDS))


def drive(machine, groups, say):
    """All groups named, each with a fresh agent."""
    for group in groups:
        machine.transcript.begin(scenario(group))
        begun = time.monotonic()
        with machine.running() as (_, agent):
            ready = time.monotonic()
            for probe in GROUPS[group]:
                machine.transcript.write(ask(agent, probe))
            if group in ENDINGS:
                _see_it_end(machine, agent)
        say(f"{machine.name:7} {group:44} {len(GROUPS[group]):3} probes, started in {ready - begun:.1f} s, asked in {time.monotonic() - ready:.1f} s")
