"""A conductor of three answers: version, lookup, heartbeat. It notes when each call came. It also serves an image that takes its time."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NODE = "1be26c0b-03f2-4d2e-ae87-c02d7f33c123"
TOKEN = "probe-token-probe-token-probe-token-probe-t"
VERSION = {"id": "v1", "links": [], "status": "CURRENT", "min_version": "1.1", "version": "1.115"}
ROOT = {"name": "OpenStack Ironic API", "description": "stub", "default_version": VERSION, "versions": [VERSION]}
CONFIG = {
    "metrics": {"backend": "noop", "prepend_host": False, "prepend_uuid": False, "prepend_host_reverse": True, "global_prefix": None},
    "metrics_statsd": {"statsd_host": "localhost", "statsd_port": 8125},
    "agent_containers": {
        "allow_arbitrary_containers": False, "allowed_containers": [], "container_steps_file": "/etc/ironic-python-agent.d/mysteps.yaml",
        "runner": "podman", "pull_options": [], "run_options": ["--rm", "--network=host"],
    },
    "agent_token": TOKEN, "agent_token_required": True, "agent_md5_checksum_enable": True, "disable_deep_image_inspection": False,
    "permitted_image_formats": ["raw", "gpt", "qcow2", "iso"], "agent_skip_bmc_detect": False, "enable_bios_bootloader_install": False,
    "tls_min_version": "1.3", "tls_cipher_suites": None,
}


IMAGE_PATH = "/image"
IMAGE_BYTES = 1 << 30
IMAGE_BYTES_A_SECOND = 8 << 20


class Stub:
    """Serves in the background from `start` on. `calls` is `[(time, method, path, body)]`, newest last."""

    def __init__(self, address, heartbeat_timeout=300):
        self.calls = []
        self._changed = threading.Condition()
        self._config = {**CONFIG, "heartbeat_timeout": heartbeat_timeout}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                stub._answer(self, b"")

            def do_POST(self):
                stub._answer(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer(address, Handler)

    def start(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request, body):
        now = time.time()
        path = request.path.split("?")[0]
        if path == IMAGE_PATH:
            self._serve_image(request)
            return
        if path == "/":
            status, answer = 200, ROOT
        elif path == "/v1/lookup":
            node = {"uuid": NODE, "properties": {"root_device": {"serial": "HARNESS0001"}}, "instance_info": {}, "driver_internal_info": {}}
            status, answer = 200, {"node": {**node, "links": []}, "config": self._config}
        elif path.startswith("/v1/heartbeat/"):
            status, answer = 202, None
        else:
            status, answer = 404, {"error_message": json.dumps({"faultcode": "Client", "faultstring": "no such thing"})}
        data = b"" if answer is None else json.dumps(answer).encode()
        request.send_response(status)
        if data:
            request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
        with self._changed:
            self.calls.append((now, request.command, request.path, json.loads(body) if body else None))
            self._changed.notify_all()

    @staticmethod
    def _serve_image(request):
        """Zeros, slowly: what downloads it stays busy for two minutes."""
        request.send_response(200)
        request.send_header("Content-Type", "application/octet-stream")
        request.send_header("Content-Length", str(IMAGE_BYTES))
        request.end_headers()
        piece = bytes(IMAGE_BYTES_A_SECOND // 8)
        try:
            for _ in range(IMAGE_BYTES // len(piece)):
                request.wfile.write(piece)
                time.sleep(1 / 8)
        except OSError:
            request.close_connection = True

    def forget(self):
        with self._changed:
            self.calls.clear()

    def wait_for(self, word, number=1, seconds=90):
        """The `number`th call whose path contains `word`; raises `TimeoutError` if it does not come."""
        with self._changed:
            def found():
                return [call for call in self.calls if word in call[2]]

            if not self._changed.wait_for(lambda: len(found()) >= number, seconds):
                raise TimeoutError(f"the agent did not call {word} {number} times within {seconds} s")
            return found()[number - 1]
