"""Compares the two transcripts of one scenario, or of every scenario that two directories have in common."""

import align
import counts
import difference
import forms
import hostfacts
import normalise
import transcript

# A conductor's own words are alike by nature; the order of keys counts in what the agent says.
AGENT_SPEAKS = {"ironic->agent": "response", "agent->ironic": "request"}
# Scenarios that the reference fails by design, and what Ferric then has to do as: the reference in that scenario.
SUCCEEDS_AS = {"deploy_raw_unnamed": "deploy_raw"}


def differences(ipa, ferric, same_machine=True, inventory=None):
    """Yields `(where, Difference)`, and at last the number of exchanges as `(None, count)`. `inventory`: what Ferric's inventories must
    hold, where that is known."""
    count = 0
    ipa_records, ferric_records = normalise.records(ipa.records), normalise.records(ferric.records)
    if not same_machine:
        ipa_records, ferric_records = hostfacts.blur(ipa_records), hostfacts.blur(ferric_records)
    boots_before = _is_prepared(ipa.result, ferric.result)
    for pair in align.pairs(ipa_records, ferric_records):
        if boots_before and pair.where.endswith(align.BOOT_MORE):
            continue
        count += 1
        if pair.ipa is None:
            yield pair.where, difference.Difference("", "extra", None, pair.ferric)
        elif pair.ferric is None:
            yield pair.where, difference.Difference("", "missing", pair.ipa, None)
        else:
            for found in _of_pair(pair.ipa, pair.ferric):
                yield pair.where, found
    for where, found in counts.differences(ipa_records, ferric_records):
        yield where, found
    for where, found in forms.faults(ferric.records, inventory):
        yield where, found
    for found in _verdicts(ipa.result, ferric.result):
        yield "verdict", found
    yield None, count


def _of_pair(ipa, ferric):
    """Differences of two views. Where the two agents answered differently as a whole, by status or by a command's outcome, that is
    one difference, and not one for every key in which the answers then differ."""
    left, right = dict(ipa.get("response") or {}), dict(ferric.get("response") or {})
    if left.get("status") != right.get("status"):
        yield difference.Difference("response.status", "value", _outline(left), _outline(right))
        left, right = {}, {}
    elif _is_race(ipa, left, right):
        left["body"], right["body"] = _lasting(left["body"]), _lasting(right["body"])
    elif _outcome(left) != _outcome(right):
        yield difference.Difference("response.body.command_status", "value", _outline(left), _outline(right))
        left["body"] = right["body"] = None
    for found in difference.compare({**ipa, "response": left}, {**ferric, "response": right}):
        if found.kind == "order" and "headers" in found.path:
            continue  # HTTP gives the order of different headers no meaning
        yield found


def _is_race(ipa, left, right):
    """Whether a command that nobody waited for had ended in one run before the answer went out. The poll after it is compared."""
    outcomes = {_outcome(left), _outcome(right)}
    ended = outcomes - {"RUNNING"}
    return (ipa.get("query") or {}).get("wait") == "false" and len(outcomes) == 2 and len(ended) == 1 and ended <= set(align.FINISHED)


def _lasting(body):
    """What the answer to a command says whether or not the command has ended."""
    return {key: value for key, value in body.items() if key not in ("command_status", "command_error", "command_result")}


def _outcome(response):
    body = response.get("body")
    return body.get("command_status") if isinstance(body, dict) else None


def _outline(response):
    """Status and body; of a command's result what tells its outcome."""
    body = response.get("body")
    if isinstance(body, dict) and "command_status" in body:
        body = {key: body[key] for key in ("command_name", "command_status", "command_error", "command_result") if body.get(key) is not None}
    return {"status": response.get("status"), "body": body}


def _is_prepared(ipa, ferric):
    """Whether one side had to deploy first, and the other one found the node deployed by the scenario before: then the states of the
    longer run, after it has become `active`, begin as the other one's begin."""
    ways = [[phase.get("state") for phase in (result or {}).get("phases") or []] for result in (ipa, ferric)]
    shorter, longer = sorted(ways, key=len)
    if not shorter or shorter[0] in ("available", "deploying"):
        return False
    return any(state == "active" and following == shorter[0] for state, following in zip(longer, longer[1:]))


def _verdicts(ipa, ferric):
    """The harness's word on the scenario: whether it passed, and the state in which the node ended."""
    def view(result):
        phases = (result or {}).get("phases") or [{}]
        return {"passed": (result or {}).get("ok"), "last state": phases[-1].get("state")}

    return difference.compare(view(ipa), view(ferric)) if ipa and ferric else []


def directories(ipa_dir, ferric_dir, names, rules, outcome, same_machine=True, prefix="", inventory=None):
    """Compares all scenarios that both sides have, or those named, into `outcome`, where `prefix` stands before their names."""
    ipa, ferric = transcript.directory(ipa_dir), transcript.directory(ferric_dir)
    for name in names or sorted(set(ipa) | set(ferric)):
        for side, found in (("IPA", ipa), ("Ferric", ferric)):
            if name not in found:
                outcome.missing.append(f"{prefix}{name} has no transcript of {side}")
        if name not in ipa or name not in ferric:
            continue
        pair = transcript.read(ipa.get(SUCCEEDS_AS.get(name), ipa[name])), transcript.read(ferric[name])
        for where, found in differences(*pair, same_machine=same_machine, inventory=inventory):
            if where is None:
                outcome.compared[prefix + name] = found
            else:
                outcome.add(prefix + name, where, found, rules.explain(prefix + name, where, found))
    return outcome
