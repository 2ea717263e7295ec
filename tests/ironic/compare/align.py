"""Which exchange of one transcript answers to which of the other.

Within each boot of the machine the exchanges run in lanes, and only the order within a lane counts, as two lanes race each
other in time:

- `start` (agent to conductor up to and with lookup), `command` (conductor to agent), `images`, `conductor`, `machine`: one to
  one, in order;
- `heartbeat`: their number is a matter of time; those that differ from their predecessors are compared, in order;
- `poll` (`GET commands`): as many as there was time for; compared is the last one before each next command, the one on which
  the conductor acted.

A lookup or a heartbeat that the conductor refused and that was tried again is left out: that is a matter of time as well.
"""

import dataclasses
import difflib

import exchange
import transcript

LANES = ("conductor", "machine", "start", "command", "images", "heartbeat")
AS_ANSWERED = {status: f"<{status} as it was answered>" for status in ("SUCCEEDED", "FAILED")}
RETRIED = {"lookup": (404, 409), "heartbeat": (409,)}


@dataclasses.dataclass
class Pair:
    """Two views of what should be the same exchange; one of them is `None` if the other side has no such exchange."""

    where: str
    ipa: object
    ferric: object


def _exchanges(records):
    """Exchanges of one boot, without the attempts that were repeated."""
    found = [exchange.of(record) for record in records]
    kept = []
    for index, item in enumerate(found):
        status = item.view.get("response", {}).get("status")
        again = any(later.name == item.name for later in found[index + 1 :])
        if status in RETRIED.get(item.name, ()) and again:
            continue
        kept.append(item)
    return kept


def _polls(exchanges):
    """`{commands so far: last poll}`, in which a command that still stands as its own answer had it says just that."""
    polls, commands, answers = {}, 0, []
    for item in exchanges:
        body = item.view.get("response", {}).get("body")
        if item.lane == "command":
            commands += 1
            answers.append(body)
        elif item.lane == "poll":
            if isinstance(body, dict) and isinstance(body.get("commands"), list):
                listed = [AS_ANSWERED.get(entry.get("command_status")) or entry if entry in answers else entry for entry in body["commands"]]
                item.view["response"]["body"] = {**body, "commands": listed}
            polls[commands] = item
    return polls


def _distinct(items):
    """Without those that equal an earlier one."""
    kept = []
    for item in items:
        if not any(item.view == other.view for other in kept):
            kept.append(item)
    return kept


def _lane(boot, ipa, ferric):
    matcher = difflib.SequenceMatcher(None, [item.name for item in ipa], [item.name for item in ferric], autojunk=False)
    for _, ipa_from, ipa_to, ferric_from, ferric_to in matcher.get_opcodes():
        mine, theirs = ipa[ipa_from:ipa_to], ferric[ferric_from:ferric_to]
        for index in range(max(len(mine), len(theirs))):
            left = mine[index] if index < len(mine) else None
            right = theirs[index] if index < len(theirs) else None
            if left and right and left.name != right.name:
                yield Pair(f"{boot}{left.name}", left.view, None)
                yield Pair(f"{boot}{right.name}", None, right.view)
            else:
                yield Pair(f"{boot}{(left or right).name}", left and left.view, right and right.view)


def _boot(number, ipa, ferric):
    boot = f"boot {number}: " if number else "before boot: "
    ipa, ferric = _exchanges(ipa), _exchanges(ferric)
    for lane in LANES:
        left = [item for item in ipa if item.lane == lane]
        right = [item for item in ferric if item.lane == lane]
        if lane == "heartbeat":
            left, right = _distinct(left), _distinct(right)
        yield from _lane(boot, left, right)
    left, right = _polls(ipa), _polls(ferric)
    for commands in sorted(set(left) & set(right)):
        yield Pair(f"{boot}poll after {commands} commands", left[commands].view, right[commands].view)


def pairs(ipa_records, ferric_records):
    """All pairs of two normalised transcripts."""
    ipa, ferric = transcript.boots(ipa_records), transcript.boots(ferric_records)
    for number in range(max(len(ipa), len(ferric))):
        yield from _boot(
            number, ipa[number] if number < len(ipa) else [], ferric[number] if number < len(ferric) else []
        )
