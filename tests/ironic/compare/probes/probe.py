"""One question, as data."""

import dataclasses
import json

COMMANDS = "/v1/commands/"


@dataclasses.dataclass(frozen=True)
class Probe:
    """`token` is `good`, `wrong` or `None`; `raw` (bytes with `{token}` and `{host}`) takes the place of everything else.

    `wait_for_result` polls the command that this one started until it has ended, so that the next is not refused.
    """

    name: str
    method: str = "GET"
    path: str = COMMANDS
    query: tuple = ()
    headers: tuple = (("Accept", "*/*"),)
    body: bytes = b""
    token: str = "good"
    raw: bytes = None
    wait_for_result: bool = False


def command(name, body, wait="true", label=None, **more):
    """A command as the conductor posts it. `body` is its parameters."""
    data = json.dumps({"name": name, "params": body}).encode()
    return post(label or name, data, (("wait", wait),), **more)


def post(label, data, query=(("wait", "true"),), headers=(("Accept", "*/*"), ("Content-Type", "application/json")), **more):
    """Any body to the commands' address."""
    return Probe(label, "POST", query=query, headers=headers, body=data, **more)
