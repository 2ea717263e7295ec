"""Stands between Ironic and the agent, in both directions, and records every exchange.

The agent talks to the proxy as to Ironic. In its heartbeats the proxy puts its own callback URL and certificate in the place of the
agent's, so that Ironic talks to it as to the agent; the record keeps what the agent really sent. The agent's certificate is verified
against the one it announced, as Ironic would do it: an agent with a bad one fails here.
"""

import http.client
import json
import ssl
import subprocess
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import transcript as recording
from .layout import API_PORT, CALLBACK_PLAIN_PORT, CALLBACK_TLS_PORT, CONTROL_IP, PROXY_PORT

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"}
_TIMEOUT = 300


class Proxy:
    """Call `serve` in the control namespace."""

    def __init__(self, state, transcript):
        self._certificate, self._key = state / "proxy.crt", state / "proxy.key"
        self.transcript = transcript
        self.agent_url, self.agent_certificate = None, None
        self._lock = threading.Lock()
        self._servers = []

    def serve(self):
        self._make_certificate()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, self._key)
        self._servers = [
            _Server((CONTROL_IP, PROXY_PORT), _ToIronic, self, None),
            _Server((CONTROL_IP, CALLBACK_PLAIN_PORT), _ToAgent, self, None),
            _Server((CONTROL_IP, CALLBACK_TLS_PORT), _ToAgent, self, context),
        ]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []

    def take_over_heartbeat(self, data):
        """The heartbeat as Ironic gets it."""
        try:
            heartbeat = json.loads(data)
        except ValueError:
            return data
        if not isinstance(heartbeat, dict) or not heartbeat.get("callback_url"):
            return data
        with self._lock:
            self.agent_url, self.agent_certificate = heartbeat["callback_url"], heartbeat.get("agent_verify_ca")
        if heartbeat["callback_url"].startswith("https"):
            heartbeat["callback_url"] = f"https://{CONTROL_IP}:{CALLBACK_TLS_PORT}"
            if "agent_verify_ca" in heartbeat:
                heartbeat["agent_verify_ca"] = self._certificate.read_text()
        else:
            heartbeat["callback_url"] = f"http://{CONTROL_IP}:{CALLBACK_PLAIN_PORT}"
        return json.dumps(heartbeat).encode()

    def connect_to_agent(self):
        """`(connection, path prefix)` to the agent that sent the last heartbeat."""
        with self._lock:
            url, certificate = self.agent_url, self.agent_certificate
        if url is None:
            raise ConnectionError("no agent has sent a heartbeat")
        parts = urllib.parse.urlsplit(url)
        prefix = parts.path.rstrip("/")
        if parts.scheme != "https":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT), prefix
        if certificate:
            context = ssl.create_default_context(cadata=certificate)
        else:
            context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT, context=context), prefix

    def _make_certificate(self):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(self._key), "-out", str(self._certificate), "-days", "3650"]
        command += ["-subj", f"/CN={CONTROL_IP}", "-addext", f"subjectAltName=IP:{CONTROL_IP}"]
        subprocess.run(command, check=True, capture_output=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, handler, proxy, tls):
        super().__init__(address, handler)
        self.proxy, self._tls = proxy, tls

    def finish_request(self, request, client_address):
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        try:
            request = self._tls.wrap_socket(request, server_side=True)
        except OSError:
            return
        try:
            super().finish_request(request, client_address)
        finally:
            try:
                request.close()
            except OSError:
                pass

    def handle_error(self, request, client_address):
        pass  # a peer that went away: what was exchanged is in the transcript


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    direction = None

    def log_message(self, *_):
        pass

    def version_string(self):
        return "harness"

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (OSError, ssl.SSLError):
            self.close_connection = True

    def pass_on(self):
        begun = time.time()
        proxy = self.server.proxy
        data = self._read_body()
        record = {
            "dir": self.direction,
            "method": self.command,
            "path": self.path,
            "http": self.request_version,
            "req_headers": dict(self.headers.items()),
            "req_body": recording.body(data),
        }
        if isinstance(self.connection, ssl.SSLSocket):
            record["tls_in"] = _tls(self.connection)
        try:
            answer, body = self._ask(self.transform(data), record)
        except Exception as error:  # whatever it is: behave as a peer that is dead
            record.update(status=None, error=repr(error), ms=_since(begun))
            proxy.transcript.write(record)
            self.close_connection = True
            self.connection.close()
            return
        record.update(
            status=answer.status,
            reason=answer.reason,
            resp_headers=dict(answer.getheaders()),
            resp_body=recording.body(body),
            ms=_since(begun),
        )
        proxy.transcript.write(record)
        self._reply(answer, body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on

    def transform(self, data):
        """The body that is passed on."""
        return data

    def _read_body(self):
        if (self.headers.get("Transfer-Encoding") or "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            return self.rfile.read(length) if length else b""
        chunks = []
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
            if size == 0:
                return b"".join(chunks)

    def _ask(self, data, record):
        connection, prefix = self.connect()
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP_BY_HOP}
            if data or self.command in ("POST", "PUT", "PATCH"):
                headers["Content-Length"] = str(len(data))
            connection.request(self.command, prefix + self.path, body=data or None, headers=headers)
            if isinstance(connection.sock, ssl.SSLSocket):
                record["tls_out"] = _tls(connection.sock)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def _reply(self, answer, body):
        self.send_response_only(answer.status, answer.reason)
        for key, value in answer.getheaders():
            if key.lower() not in _HOP_BY_HOP and key.lower() != "content-length":
                self.send_header(key, value)
        without_body = self.command == "HEAD" or answer.status in (204, 304)
        length = answer.getheader("Content-Length") if without_body else str(len(body))
        if length:
            self.send_header("Content-Length", length)
        self.end_headers()
        if not without_body:
            self.wfile.write(body)


class _ToIronic(_Handler):
    direction = "agent->ironic"

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", API_PORT, timeout=_TIMEOUT), ""

    def transform(self, data):
        if self.command == "POST" and "/heartbeat/" in self.path and data:
            return self.server.proxy.take_over_heartbeat(data)
        return data


class _ToAgent(_Handler):
    direction = "ironic->agent"

    def connect(self):
        return self.server.proxy.connect_to_agent()


def _tls(connection):
    return [connection.version(), (connection.cipher() or [None])[0]]


def _since(begun):
    return round((time.time() - begun) * 1000)
