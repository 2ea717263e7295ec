"""Records what is said: one JSON object a line, one file a scenario. The README documents the fields."""

import json
import threading
import time

LONGEST_TEXT = 6000
"""Longer strings (archives of logs, config drives) keep their first 1000 characters."""


class Transcript:
    """Where records go at the moment. Safe to use from every thread."""

    def __init__(self, folder):
        self._folder = folder
        self._scenario = "start"
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, scenario):
        """Starts the file of a scenario anew."""
        with self._lock:
            self._scenario = scenario
            self.path(scenario).unlink(missing_ok=True)

    def path(self, scenario):
        return self._folder / f"{scenario}.jsonl"

    def result_path(self, scenario):
        return self._folder / f"{scenario}.result.json"

    def write(self, record):
        with self._lock:
            record = {"t": round(time.time(), 3), "scenario": self._scenario, **record}
            with open(self.path(self._scenario), "a") as file:
                file.write(json.dumps(record) + "\n")

    def records(self):
        """What was recorded in the current scenario so far."""
        with self._lock:
            path = self.path(self._scenario)
            return [json.loads(line) for line in open(path)] if path.exists() else []

    def commands(self):
        """Names of the commands that Ironic sent to the agent."""
        return [(record["req_body"] or {}).get("name") for record in self._posts()]

    def steps(self):
        """Names of the steps that Ironic had the agent execute."""
        bodies = [record["req_body"] or {} for record in self._posts()]
        executed = [body for body in bodies if ".execute_" in (body.get("name") or "")]
        return [((body.get("params") or {}).get("step") or {}).get("step") for body in executed]

    def boots(self):
        """Start-ups of the ramdisk."""
        return [record for record in self.records() if record.get("event") == "boot ramdisk"]

    def _posts(self):
        return [
            record
            for record in self.records()
            if record["dir"] == "ironic->agent" and record["method"] == "POST" and "/commands" in record["path"]
        ]


def body(data):
    """A body as it is recorded: JSON where it is JSON, else text; long strings clipped."""
    if not data:
        return None
    try:
        return _clip(json.loads(data))
    except ValueError:
        return _clip(data.decode("utf-8", "replace"))


def _clip(value):
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return value[:1000] + f"<clipped: {len(value)} characters in all>"
    if isinstance(value, dict):
        return {key: _clip(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clip(item) for item in value]
    return value
