"""Reads what two sides said to each other: JSON lines, one record a line, as the harness in `tests/ironic` writes them.

A record is a dict. `dir` says who spoke (`agent->ironic`, `ironic->agent`, `client->images`, `ironic->bmc`, `machine`);
exchanges have `method`, `path`, `req_headers`, `req_body`, `status`, `resp_headers`, `resp_body`; the rest has `event`.
"""

import gzip
import json
import pathlib

SUFFIXES = (".jsonl", ".jsonl.gz")
# What was recorded before the first scenario.
BETWEEN = "start."


class Transcript:
    """The records of one scenario, and the verdict that the harness gave (`None` if it left none)."""

    def __init__(self, scenario, records, result=None):
        self.scenario = scenario
        self.records = records
        self.result = result


def _text(path):
    data = pathlib.Path(path).read_bytes()
    return (gzip.decompress(data) if str(path).endswith(".gz") else data).decode("utf-8")


def parse(text):
    """Records of a JSON-lines text. A line that is not a record names its number."""
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict) or "dir" not in record:
            raise ValueError(f"line {number} is not a record of the harness: it has no `dir`")
        records.append(record)
    return records


def read(path):
    """One transcript; the verdict is read from `SCENARIO.result.json` beside it."""
    path = pathlib.Path(path)
    scenario = path.name.split(".jsonl")[0]
    result_path = path.with_name(scenario + ".result.json")
    result = json.loads(result_path.read_text()) if result_path.exists() else None
    return Transcript(scenario, parse(_text(path)), result)


def directory(path):
    """`{scenario: path}` of the transcripts in a directory; empty if it does not exist."""
    path = pathlib.Path(path)
    found = {}
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.name.endswith(SUFFIXES) and not entry.name.startswith(BETWEEN):
                found[entry.name.split(".jsonl")[0]] = entry
    return found


def boots(records):
    """Records split where a machine starts its ramdisk: `[before the first boot, first boot, ...]`."""
    parts = [[]]
    for record in records:
        if record["dir"] == "machine" and record.get("event") == "boot ramdisk":
            parts.append([])
        parts[-1].append(record)
    return parts
