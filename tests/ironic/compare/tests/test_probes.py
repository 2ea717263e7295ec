import json
import pathlib
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests import support

import normalise
import reference
import transcript
from probes import catalogue, client, drive, stub
from probes.probe import Probe

assert support


class Catalogue(unittest.TestCase):
    def test_names_are_unique_within_a_group(self):
        for group, probes in catalogue.GROUPS.items():
            names = [probe.name for probe in probes]
            self.assertEqual(len(names), len(set(names)), group)

    def test_every_command_is_tried_with_a_parameter_too_many(self):
        labels = {probe.name for probes in catalogue.GROUPS.values() for probe in probes}
        for name in ("clean.get_clean_steps", "rescue.finalize_rescue", "system.lockdown", "standby.power_off", "flow.start_flow"):
            self.assertIn(f"{name} with one more", labels)


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen = (self.path, body)
        self.send_response(400)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


class Plain(client.Agent):
    """An agent without TLS."""

    def __init__(self, port):
        self.host, self.port, self.authority = "127.0.0.1", port, f"127.0.0.1:{port}"

    def connect(self, seconds=10):
        import socket
        return socket.create_connection((self.host, self.port), timeout=seconds)


class Ask(unittest.TestCase):
    def test_a_probe_becomes_a_request_and_a_record(self):
        server = HTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        record = drive.ask(Plain(server.server_port), Probe("p", "POST", query=(("wait", "true"),), body=b"{nonsense"))
        self.assertEqual(server.seen, (f"/v1/commands/?wait=true&agent_token={stub.TOKEN}", b"{nonsense"))
        self.assertEqual((record["status"], record["resp_body"], record["req_body"]), (400, {}, "{nonsense"))
        server.shutdown()
        server.server_close()

    def test_nobody_there_is_a_record_too(self):
        with HTTPServer(("127.0.0.1", 0), Answers) as server:
            port = server.server_port
        self.assertIsNone(drive.ask(Plain(port), Probe("p"))["status"])


class Reference(unittest.TestCase):
    def test_what_is_recorded_comes_back_normalised(self):
        run = [support.boot(), support.lookup(), support.heartbeat()]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            for name, verdict in (("one", "pass"), ("two", "skip")):
                (path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in run))
                (path / f"{name}.result.json").write_text(json.dumps({"ok": verdict == "pass", "verdict": verdict, "phases": [{"t": 1, "state": "active", "step": None}]}))
            before, reference.FOLDER = reference.FOLDER, path / "reference"
            try:
                self.assertEqual(reference.record(path, "1.0")[0], 1)
                self.assertEqual(reference.releases(), ["1.0"])
                self.assertTrue(reference.is_same_machine("1.0"))
                with reference.unpacked("1.0") as unpacked:
                    read = transcript.read(unpacked / "one.jsonl")
            finally:
                reference.FOLDER = before
        self.assertEqual(read.records, normalise.records(run))
        self.assertEqual(read.result["phases"], [{"state": "active", "step": None}])
