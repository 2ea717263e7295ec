"""The token, and the body around a command's name and parameters."""

import json

from .probe import Probe, command, post

GOOD = {"name": "standby.get_partition_uuids", "params": {}}

TOKENS = [
    *(Probe(f"{label}: no token", method, path, token=None) for label, method, path in (
        ("list", "GET", "/v1/commands/"), ("command", "GET", "/v1/commands/x"), ("post", "POST", "/v1/commands/"),
        ("list without prefix", "GET", "/commands/"), ("post without prefix", "POST", "/commands/"))),
    *(Probe(f"{label}: wrong token", method, path, token="wrong") for label, method, path in (
        ("list", "GET", "/v1/commands/"), ("command", "GET", "/v1/commands/x"), ("post", "POST", "/v1/commands/"))),
    Probe("empty token", token=None, query=(("agent_token", ""),)),
    Probe("token in a header", token=None, headers=(("X-Auth-Token", "probe-token-probe-token-probe-token-probe-t"),)),
    Probe("wrong token, then the right one", query=(("agent_token", "x"),)),
    post("no token and a bad body", b"nonsense", token=None),
    post("token in the body", json.dumps({**GOOD, "agent_token": "probe-token-probe-token-probe-token-probe-t"}).encode(), token=None),
    Probe("list without slash", path="/v1/commands"),
    Probe("list without slash and token", path="/v1/commands", token=None),
    Probe("list without prefix", path="/commands/"),
    Probe("list with wait", query=(("wait", "true"),)),
    Probe("unknown command id", path="/v1/commands/nosuch"),
    Probe("unknown command id with wait", path="/v1/commands/nosuch", query=(("wait", "true"),)),
    Probe("command id with slash", path="/v1/commands/nosuch/"),
]

BODIES = {
    "no body": b"", "only blanks": b"  ", "not JSON": b"{nonsense", "half": b'{"name": ', "list": b"[]", "text": b'"x"', "number": b"1",
    "null": b"null", "true": b"true", "empty object": b"{}", "no params": b'{"name": "standby.sync"}', "no name": b'{"params": {}}',
    "params is null": b'{"name": "standby.get_partition_uuids", "params": null}', "params is a list": b'{"name": "standby.sync", "params": []}',
    "params is text": b'{"name": "standby.sync", "params": "x"}', "name is null": b'{"name": null, "params": {}}',
    "name is a number": b'{"name": 1, "params": {}}', "name is empty": b'{"name": "", "params": {}}',
    "name is a list": b'{"name": ["standby.sync"], "params": {}}', "name is a dot": b'{"name": ".", "params": {}}',
    "more after it": b'{"name": "standby.get_partition_uuids", "params": {}} x', "not UTF-8": b'{"name": "\xff", "params": {}}',
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "a key twice": b'{"name": "standby.sync", "name": "standby.get_partition_uuids", "params": {}}',
    "more keys": b'{"name": "standby.get_partition_uuids", "params": {}, "agent_token": "x", "more": [1]}',
    "not a number": b'{"name": "standby.get_partition_uuids", "params": {}, "more": NaN}',
    "a long number": b'{"name": "standby.get_partition_uuids", "params": {}, "more": ' + b"9" * 400 + b"}",
    "half a surrogate": b'{"name": "standby.get_partition_uuids", "params": {}, "more": "\\ud800"}',
    "control characters": b'{"name": "standby.get_partition_uuids", "params": {}, "more": "\n"}',
    "nested 100 deep": b'{"name": "standby.get_partition_uuids", "params": {}, "more": ' + b"[" * 100 + b"]" * 100 + b"}",
}

NAMES = ("nodot", "nosuch.command", "standby.nosuch", "standby.", ".sync", "a.b.c", "standby.get_partition_uuids.x", "Standby.sync",
         "standby.Sync", " standby.sync", "iscsi.start_iscsi_target", "standby.__init__", "standby.execute", "standby.command_map",
         "clean.get_deploy_steps", "standby.\u00e9", "poll.nosuch", "log.nosuch", "flow.nosuch", "rescue.nosuch", "system.nosuch", "image.nosuch")

ENVELOPE = [
    *(post(f"body: {label}", body) for label, body in BODIES.items()),
    *(post(f"content type {kind}", json.dumps(GOOD).encode(), headers=(("Content-Type", kind),)) for kind in
      ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "nonsense")),
    post("no content type", json.dumps(GOOD).encode(), headers=()),
    *(command(name, {}, label=f"name {name!r}") for name in NAMES),
    *(command("standby.get_partition_uuids", {}, wait=wait, label=f"wait={wait}") for wait in ("true", "TRUE", "false", "1", "", "yes")),
    post("no wait", json.dumps(GOOD).encode(), query=()),
    Probe("list after all of this"),
]
