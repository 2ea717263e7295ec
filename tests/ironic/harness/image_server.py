"""Serves the images over HTTP, misbehaves on request, and records every request.

`/FILE` is served with ranges; `/break/N/FILE` drops the connection once after N MiB (`forget_breaks` arms it again).
"""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .layout import CONTROL_IP, IMAGE_PORT

URL = f"http://{CONTROL_IP}:{IMAGE_PORT}"
_CHUNK = 1 << 20


class ImageServer:
    """Call `serve` in the control namespace."""

    def __init__(self, folder, transcript):
        self.folder, self.transcript = folder, transcript
        self.broken = set()
        self._server = None

    def serve(self):
        self._server = ThreadingHTTPServer((CONTROL_IP, IMAGE_PORT), _Handler)
        self._server.daemon_threads = True
        self._server.images = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def forget_breaks(self):
        self.broken.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._serve(with_body=False)

    def do_GET(self):
        self._serve(with_body=True)

    def _serve(self, with_body):
        begun = time.time()
        record = {
            "dir": "client->images",
            "peer": self.client_address[0],
            "method": self.command,
            "path": self.path,
            "http": self.request_version,
            "req_headers": dict(self.headers.items()),
        }
        images = self.server.images
        parts = self.path.split("?")[0].strip("/").split("/")
        limit = None
        if parts[0] == "break":
            limit, parts = int(parts[1]) << 20, parts[2:]
        path = images.folder / os.path.basename(parts[-1])
        if len(parts) != 1 or not path.is_file():
            self._refuse(record, 404)
            return
        size = path.stat().st_size
        try:
            first, last = _range(self.headers.get("Range"), size)
        except ValueError:
            self._refuse(record, 416, ("Content-Range", f"bytes */{size}"))
            return
        partial = self.headers.get("Range") is not None
        record["status"] = 206 if partial else 200
        self.send_response(record["status"])
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        sent = self._send(path, first, last, limit, record) if with_body else 0
        record.update(sent=sent, size=size, ms=round((time.time() - begun) * 1000))
        images.transcript.write(record)

    def _send(self, path, first, last, limit, record):
        broken, sent, left = self.server.images.broken, 0, last - first + 1
        try:
            with open(path, "rb") as file:
                file.seek(first)
                while left:
                    data = file.read(min(_CHUNK, left))
                    self.wfile.write(data)
                    left -= len(data)
                    sent += len(data)
                    if limit and sent >= limit and self.path not in broken:
                        broken.add(self.path)
                        record["dropped"] = True
                        self.close_connection = True
                        break
        except OSError as error:
            record["error"] = repr(error)
            self.close_connection = True
        return sent

    def _refuse(self, record, status, *headers):
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.images.transcript.write({**record, "status": status})


def _range(header, size):
    """First and last byte of a `Range` header; a ValueError where there are none."""
    if not header or not header.startswith("bytes="):
        return 0, size - 1
    first, _, last = header[len("bytes=") :].partition("-")
    if not first:
        return max(0, size - int(last)), size - 1
    first, last = int(first), min(int(last), size - 1) if last else size - 1
    if first > last:
        raise ValueError(header)
    return first, last
