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

LANES = ("conductor", "machine", "start", "command", "images", "heartbeat", "probe")
FINISHED = ("SUCCEEDED", "FAILED", "CLEAN_VERSION_MISMATCH")
# Before the first boot: whether the machine had to be switched off first is what the scenario before has left.
LANES_BEFORE = ("conductor",)
# How the harness sees the program start and end, which depends on whether it is a process or the init of its ramdisk.
OF_THE_HARNESS = ("agent started", "agent ended")
# What `Pair.where` ends with for a boot that one side alone has.
BOOT_MORE = ": a boot more"
RETRIED = {"lookup": (404, 409), "heartbeat": (409,)}


@dataclasses.dataclass
class Pair:
    """Two views of what should be the same exchange; one of them is `None` if the other side has no such exchange."""

    where: str
    ipa: object
    ferric: object


def exchanges(records):
    """Exchanges of one boot, without the attempts that were repeated."""
    found = [exchange.of(record) for record in records if record.get("event") not in OF_THE_HARNESS]
    kept = []
    for index, item in enumerate(found):
        status = item.view.get("response", {}).get("status")
        again = any(later.name == item.name for later in found[index + 1 :])
        if status in RETRIED.get(item.name, ()) and again:
            continue
        kept.append(item)
    return kept


def _listed(view, answers, known):
    """The view of a list of commands in which one that stands as it was answered says just that. With `known`, ids that are not in it
    are left out: the other agent refused that command, which has been said already."""
    body = view.get("response", {}).get("body")
    if not isinstance(body, dict) or not isinstance(body.get("commands"), list):
        return view
    listed = [
        {"id": entry.get("id"), "stands": "as it was answered"} if entry in answers else entry
        for entry in body["commands"]
        if known is None or entry.get("id") in known
    ]
    return {**view, "response": {**view["response"], "body": {**body, "commands": listed}}}


def _answers(exchanges, lane):
    """Results of the commands of a lane that were waited for, in order."""
    waited = [item for item in exchanges if item.lane == lane and item.view.get("query", {}).get("wait", "").lower() != "false"]
    bodies = [item.view.get("response", {}).get("body") for item in waited]
    return [body for body in bodies if isinstance(body, dict) and "command_status" in body]


def _ids(exchanges):
    """Ids of the commands that an agent took."""
    bodies = [item.view.get("response", {}).get("body") for item in exchanges if item.lane == "probe"]
    return {body["id"] for body in bodies if isinstance(body, dict) and "command_status" in body}


def _polls(exchanges):
    """`{commands so far: last poll}`"""
    polls, commands = {}, 0
    answers = [answer for answer in _answers(exchanges, "command") if answer["command_status"] in FINISHED]
    for item in exchanges:
        if item.lane == "command":
            commands += 1
        elif item.lane == "poll":
            polls[commands] = exchange.Exchange("poll", "poll", _listed(item.view, answers, None))
    return polls


def _steps(exchanges):
    """Numbers of the commands that are steps: the conductor goes on only after a poll has shown the end of one."""
    commands = [item for item in exchanges if item.lane == "command"]
    return {number for number, item in enumerate(commands, 1) if ".execute_" in item.name}


def _probes(exchanges, others):
    """Probes, with the lists among them freed of what only one of the two took."""
    answers = _answers(exchanges, "probe")
    known = _ids(exchanges) & _ids(others)
    return [exchange.Exchange("probe", item.name, _listed(item.view, answers, known)) for item in exchanges if item.lane == "probe"]


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
    ipa, ferric = exchanges(ipa), exchanges(ferric)
    for lane in LANES if number else LANES_BEFORE:
        left = [item for item in ipa if item.lane == lane]
        right = [item for item in ferric if item.lane == lane]
        if lane == "heartbeat":
            left, right = _distinct(left), _distinct(right)
        elif lane == "probe":
            left, right = _probes(ipa, ferric), _probes(ferric, ipa)
        yield from _lane(boot, left, right)
    left, right = _polls(ipa), _polls(ferric)
    steps = _steps(ipa)
    for commands in sorted(set(left) & set(right) | set(left) & steps):
        theirs = right[commands].view if commands in right else None
        yield Pair(f"{boot}poll after {commands} commands", left[commands].view, theirs)


def _paired_boots(ipa, ferric):
    """Boots in pairs, from the last one backwards: what a scenario finds is what the one before it left, so where that ended
    differently one side may have to start with a boot more. Yields `(number, IPA's part, Ferric's)`, or one of the two and `None`."""
    surplus = len(ipa) - len(ferric)
    longer, shorter = (ipa, ferric) if surplus > 0 else (ferric, ipa)
    count = abs(surplus)
    if count:
        for number in range(1, count + 1):
            yield number, *((longer[number], None) if surplus > 0 else (None, longer[number]))
        longer, shorter = [[]] + longer[count + 1 :], [[]] + shorter[1:]
    ipa, ferric = (longer, shorter) if surplus > 0 else (shorter, longer)
    for number in range(len(ipa)):
        yield number + count if number else 0, ipa[number], ferric[number]


def pairs(ipa_records, ferric_records):
    """All pairs of two normalised transcripts."""
    for number, ipa, ferric in _paired_boots(transcript.boots(ipa_records), transcript.boots(ferric_records)):
        if ipa is None or ferric is None:
            names = [item.name for item in exchanges(ipa or ferric)]
            yield Pair(f"boot {number}{BOOT_MORE}", names if ipa else None, names if ferric else None)
        else:
            yield from _boot(number, ipa, ferric)
