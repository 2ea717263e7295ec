"""Small transcripts for the tests: records as the harness writes them."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

TOKEN = "t" * 43


def boot(request_id="req-11111111-1111-4111-8111-111111111111"):
    return {"t": 1.0, "dir": "machine", "event": "boot ramdisk", "cmdline": f"quiet ipa-global-request-id={request_id} BOOTIF=x"}


def lookup(token=TOKEN, status=200, **headers):
    return {
        "t": 2.0, "dir": "agent->ironic", "method": "GET", "path": "/v1/lookup?addresses=52%3A54", "http": "HTTP/1.1",
        "req_headers": {"Accept": "application/json", **headers}, "req_body": None, "status": status, "reason": "OK",
        "resp_headers": {"Date": "Fri, 20 Nov 2026 21:27:43 GMT"},
        "resp_body": {"node": {"uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123", "properties": {}}, "config": {"agent_token": token}},
    }


def heartbeat(token=TOKEN, **body):
    return {
        "t": 3.0, "dir": "agent->ironic", "method": "POST", "path": "/v1/heartbeat/x", "http": "HTTP/1.1", "req_headers": {},
        "req_body": {"callback_url": "https://192.0.2.7:9999", "agent_token": token, **body}, "status": 202, "reason": "Accepted",
        "resp_headers": {}, "resp_body": None,
    }


def result(identity, name="get_clean_steps", status="SUCCEEDED", value=None, error=None):
    return {"id": identity, "command_name": name, "command_status": status, "command_error": error, "command_result": value}


def command(answer, name="clean.get_clean_steps", params=None, token=TOKEN):
    return {
        "t": 4.0, "dir": "ironic->agent", "method": "POST", "path": f"/v1/commands/?wait=true&agent_token={token}",
        "http": "HTTP/1.1", "req_headers": {}, "req_body": {"name": name, "params": params or {}}, "status": 200, "reason": "OK",
        "resp_headers": {"Content-Type": "application/json", "Content-Length": "161"}, "resp_body": answer,
    }


def poll(*results, token=TOKEN):
    return {
        "t": 5.0, "dir": "ironic->agent", "method": "GET", "path": f"/v1/commands/?agent_token={token}", "http": "HTTP/1.1",
        "req_headers": {}, "req_body": None, "status": 200, "reason": "OK", "resp_headers": {}, "resp_body": {"commands": list(results)},
    }
