"""What the agent's side of a transcript must hold by itself, whatever the reference says."""

import align
import difference
import transcript


def faults(records, inventory=None):
    """Yields `(where, Difference)`. `records` as the harness wrote them; `inventory`: `{path: value}` that inventories must have."""
    for number, part in enumerate(transcript.boots(records)):
        where = f"boot {number}: " if number else "before boot: "
        yield from _silent_steps(where, part)
        for record in part:
            yield from _inventories(where, record, inventory or {})


def _silent_steps(where, records):
    """A conductor goes on after a step because the agent has sent a heartbeat; where it had to go on without one, the agent was silent."""
    step, beats = None, 0
    for item in align.exchanges(records):
        if item.lane == "heartbeat":
            beats += 1
        elif item.lane == "command":
            if step and not beats:
                yield f"{where}{step}", difference.Difference("heartbeats before the next command", "value", "1 or more", 0)
            step, beats = item.name if ".execute_" in item.name else None, 0


def _inventories(where, record, wanted):
    for body in (record.get("req_body"), record.get("resp_body")):
        for found in _find(body):
            for path, value in wanted.items():
                told = found
                for name in path:
                    told = told.get(name) if isinstance(told, dict) else None
                if told != value:
                    yield f"{where}inventory", difference.Difference(".".join(path), "value", value, told)


def _find(value):
    """Every inventory inside a body."""
    if isinstance(value, dict):
        if {"interfaces", "cpu", "memory"} <= set(value):
            yield value
        else:
            for item in value.values():
                yield from _find(item)
    elif isinstance(value, list):
        for item in value:
            yield from _find(item)
