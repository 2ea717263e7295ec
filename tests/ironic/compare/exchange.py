"""Puts a record of a transcript into the form in which it is compared, and names it."""

import dataclasses
import urllib.parse

COMMANDS = ("/v1/commands", "/commands")


@dataclasses.dataclass
class Exchange:
    """One exchange or event. `lane` and `name` say what it is; `view` is what an observer sees of it, as JSON."""

    lane: str
    name: str
    view: dict


def of(record):
    """The exchange that a (normalised) record tells of."""
    if "event" in record:
        return Exchange("machine", f"{record['dir']} {_event_name(record)}", _event(record))
    lane, name = _kind(record)
    return Exchange(lane, name, _view(record))


def _event_name(record):
    return record["event"].split("=")[0] if record["dir"] == "machine" else record["event"]


def _event(record):
    return {"event": record["event"]}


def _kind(record):
    method, path = record["method"], record["path"].split("?")[0]
    if record["dir"] == "probe":
        return "probe", f"probe {record['probe']}"
    if record["dir"] == "client->images":
        # The conductor looks at every image (HEAD) before the machine is on.
        return ("conductor", f"{method} {path}") if method == "HEAD" else ("images", f"{method} {path}")
    if record["dir"] == "ironic->agent":
        if method == "GET" and path.rstrip("/") in COMMANDS:
            return "poll", "poll"
        body = record.get("req_body")
        name = body.get("name") if isinstance(body, dict) else None
        if method == "POST" and path.rstrip("/") in COMMANDS and name:
            step = ((body.get("params") or {}).get("step") or {}).get("step")
            return "command", f"command {name}" + (f" {step}" if step else "")
        return "command", f"{method} {path}"
    if "/heartbeat" in path:
        return "heartbeat", "heartbeat"
    for word in ("lookup", "continue_inspection"):
        if word in path:
            return "start", word
    return "start", f"{method} {path}"


def _view(record):
    url = urllib.parse.urlsplit(record["path"])
    headers = {name.lower(): value for name, value in (record.get("req_headers") or {}).items()}
    view = {
        "method": record["method"],
        "path": url.path,
        "query": dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True)),
        "http": record.get("http"),
        "request": {"headers": headers, "body": None if record["dir"] == "probe" else record.get("req_body")},
        "response": {"status": record.get("status"), "body": record.get("resp_body")},
    }
    if "reason" in record:
        view["response"]["reason"] = record["reason"] and record["reason"].lower()
    if "resp_headers" in record:
        view["response"]["headers"] = {name.lower(): value for name, value in record["resp_headers"].items()}
    for field in ("tls_out", "sent", "error"):
        if field in record:
            view[field] = record[field]
    return view
