"""The complete list of what may differ between two runs of the same scenario, and what takes its place.

Every rule is a row of `STRINGS`, `KEYS`, `OBJECTS` or `HEADERS` below; nothing else is altered. Where a value has to agree with
another one the replacement keeps that: a token is `<token>` only if it is the one that lookup gave, a command's id is
`<command 2>` only if the second command of this boot answered with it.

Normalising twice changes nothing, so a normalised transcript can be kept and compared with a fresh one.
"""

import re

import certificate
import transcript

UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I)
REQUEST_ID = re.compile(r"\breq-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
ISO_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?")
HTTP_DATE = re.compile(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\b")
GZIP_BASE64 = re.compile(r"^H4sI[A-Za-z0-9+/=\n]{40,}(<clipped: .*>)?$")
CRYPT = re.compile(r"^\$[56]\$[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{40,}$")
BOOT_REQUEST = re.compile(r"ipa-global-request-id=(\S+)")
# Ports are drawn in the harness's own range, so they are the same for both agents and stay as they are.

# The harness chose these itself, so they have to come back unchanged.
CONSTANT_UUIDS = re.compile(r"^(1be26c0b-03f2-4d2e-ae87-c02d7f33c123|11111111-2222-4333-8444-[0-9]{12}|0{8}(-0{4}){3}-0{12})$")

# (name, what it is about, pattern, replacement): on every string of a record, in this order.
STRINGS = (
    ("certificate", "a key, a serial number and times; the facts that matter stay", certificate.PEM, certificate.describe),
    ("archive", "gzip in base64: log archives and config drives, whose sizes and times differ", GZIP_BASE64, "<gzip in base64>"),
    ("crypt", "a password under a random salt", CRYPT, "<crypt>"),
    ("request", "request ids that the conductor draws", REQUEST_ID, "<request>"),
    ("time", "times of day", ISO_TIME, "<time>"),
    ("date", "dates in headers", HTTP_DATE, "<date>"),
    ("uuid", "ids, unless the harness chose them", UUID, lambda match: match if CONSTANT_UUIDS.match(match) else "<uuid>"),
)

# (name, what it is about, path to a value as key names from the inside out, replacement): on values of JSON bodies.
KEYS = (
    ("version", "the release whose protocol is spoken, by which a conductor decides", ("agent_version",), "<version>"),
    ("version", "the same, in the status document", ("version", "<status>"), "<version>"),
    ("started", "when the agent started", ("started_at",), "<time>"),
    ("details", "free text by the protocol", ("details", "command_error"), "<text>"),
    ("size", "of the harness's disk, which is the harness's choice", ("size", "[]", "disks"), "<size of the disk>"),
    ("digest", "digests of images, which each machine makes of its own noise", ("os_hash_value",), "<digest of {} digits>"),
    ("digest", "the same, in the older field", ("checksum",), "<digest of {} digits>"),
)

# (name, what it is about, key, what stays of it): objects that the conductor sends.
OBJECTS = (
    ("node", "the conductor's record of the node: its history and the harness's folders", "node", ("uuid",)),
    ("ports", "the same of its ports", "ports", ("address",)),
)

# (name, what it is about, header, replacement)
HEADERS = (
    ("length", "follows from bodies that are compared", "content-length", "<length>"),
    ("date", "when the answer was given", "date", "<date>"),
    ("allow", "methods are a set; IPA's order changes from start to start", "allow", lambda value: ", ".join(sorted(re.split(r",\s*", value)))),
)

# Fields of a record that say when, by whom and where the harness kept it.
RECORD_FIELDS = ("t", "ms", "scenario", "peer", "log", "boot", "pxe_config")

DIGEST = re.compile(r"^[0-9a-f]{32,128}$")
# The release of ironic-python-agent that the reference was recorded with. Any other version stays, and differs.
VERSION = "13.0.0"
# As oslo.utils draws them. An id of another form stays, and differs.
COMMAND_ID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")


class Facts:
    """What one boot of the machine chose at random: its token, its request id, the ids of its commands."""

    def __init__(self, records):
        self.exact = {}
        self.inside = {}
        number = 0
        for record in records:
            match = BOOT_REQUEST.search(record.get("cmdline") or "")
            if match:
                self.inside[match.group(1)] = "<boot-request>"
            answer = record.get("resp_body")
            if not isinstance(answer, dict):
                continue
            token = (answer.get("config") or {}).get("agent_token") if isinstance(answer.get("config"), dict) else None
            if isinstance(token, str) and len(token) >= 32:
                self.inside[token] = "<token>"
            if record.get("method") == "POST" and "/commands" in record.get("path", "") and answer.get("id"):
                number += 1
                if not (isinstance(answer["id"], str) and COMMAND_ID.match(answer["id"])):
                    continue
                # A probe's id bears the probe's name: where one agent refuses, the numbers of the two would part.
                self.exact[answer["id"]] = f"<command {record['probe']}>" if "probe" in record else f"<command-{number}>"

    def string(self, text):
        """The boot's own values, put under their names."""
        if text in self.exact:
            return self.exact[text]
        for value, name in self.inside.items():
            text = text.replace(value, name)
        return text


def _string(text, facts, seen_at):
    text = facts.string(text)
    for name, _, pattern, replacement in STRINGS:
        if name == "certificate":
            text = pattern.sub(lambda match: replacement(match.group(0), seen_at), text)
        elif callable(replacement):
            text = pattern.sub(lambda match: replacement(match.group(0)), text)
        else:
            text = pattern.sub(replacement, text)
    return text


def _key_rule(value, inside_out):
    """A rule of `KEYS` keeps the type and the form in sight: only what looks as it should is replaced."""
    for name, _, names, replacement in KEYS:
        if inside_out[: len(names)] != names:
            continue
        if name == "version" and value == VERSION:
            return replacement
        if name == "started" and isinstance(value, float):
            return replacement
        if name == "details" and isinstance(value, str) and value:
            return replacement
        if name == "size" and type(value) is int and value % (1 << 20) == 0 and value > 1 << 30:
            return replacement
        if name == "digest" and isinstance(value, str) and DIGEST.match(value):
            return replacement.format(len(value))
    return value


def _value(value, facts, seen_at, inside_out=()):
    if isinstance(value, dict):
        return {key: _value(item, facts, seen_at, (key,) + inside_out) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item, facts, seen_at, ("[]",) + inside_out) for item in value]
    value = _key_rule(value, inside_out)
    return _string(value, facts, seen_at) if isinstance(value, str) else value


def _headers(headers, facts, seen_at):
    replaced = {header: replacement for _, _, header, replacement in HEADERS}
    result = {}
    for name, value in headers.items():
        replacement = replaced.get(name.lower())
        if replacement is None:
            result[name] = _string(value, facts, seen_at)
        else:
            result[name] = replacement(value) if callable(replacement) else replacement
    return result


def _conductors_words(body):
    """A body that the conductor sent, with only what `OBJECTS` keeps of its records. They stand in lookup's answer and in the
    parameters of a command; a step's arguments and results are not looked into."""
    if not isinstance(body, dict):
        return body
    result = dict(body)
    for holder in (result, dict(body["params"])) if isinstance(body.get("params"), dict) else (result,):
        for _, _, key, kept in OBJECTS:
            value = holder.get(key)
            if isinstance(value, dict) and "uuid" in value:
                holder[key] = {name: value[name] for name in kept if name in value}
            elif isinstance(value, list):
                holder[key] = [{name: item[name] for name in kept if name in item} for item in value if isinstance(item, dict)]
        if holder is not result:
            result["params"] = holder
    return result


def _record(record, facts):
    seen_at = record.get("t")
    status_document = isinstance(record.get("resp_body"), dict) and "started_at" in record["resp_body"]
    conductors = {"ironic->agent": "req_body", "agent->ironic": "resp_body"}.get(record["dir"])
    result = {}
    for field, value in record.items():
        if field in RECORD_FIELDS:
            continue
        if field == conductors:
            value = _conductors_words(value)
        if field in ("req_headers", "resp_headers"):
            result[field] = _headers(value, facts, seen_at)
        else:
            result[field] = _value(value, facts, seen_at, ("<status>",) if status_document else ())
    return result


def records(raw):
    """A whole transcript, boot by boot. The first part (before any boot) has no facts of its own."""
    result = []
    for part in transcript.boots(raw):
        facts = Facts(part)
        result += [_record(record, facts) for record in part]
    return result
