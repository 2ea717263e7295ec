"""Requests a second and their latency, measured with `wrk` (a closed loop: each client sends its next request when it has its answer)."""

import re
import subprocess

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
CLIENTS = (1, 10, 100)


def parse(text):
    """`{"rate": requests a second, "p50": ms, "p99": ms, "errors": n}` of what wrk printed."""
    def milliseconds(percentile):
        match = re.search(rf"^\s+{percentile}%\s+([\d.]+)(us|ms|s|m)$", text, re.M)
        return float(match.group(1)) * UNITS[match.group(2)] if match else None

    rate = re.search(r"^Requests/sec:\s+([\d.]+)", text, re.M)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = sum(map(int, sockets.groups())) if sockets else 0
    return {
        "rate": float(rate.group(1)) if rate else 0.0,
        "p50": milliseconds(50),
        "p99": milliseconds(99),
        "errors": errors + (int(refused.group(1)) if refused else 0),
    }


def measure(url, clients, keep_alive, seconds):
    """One run of wrk with one thread."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    if not keep_alive:
        command += ["-H", "Connection: close"]
    run = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 60, check=False)
    if "Requests/sec" not in run.stdout:
        raise RuntimeError(f"wrk failed: {run.stdout}{run.stderr}")
    return parse(run.stdout)
