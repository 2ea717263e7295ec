"""Speaks HTTP to an agent, byte by byte if need be, over the certificate that it announced."""

import http.client
import json
import socket
import ssl
import urllib.parse


class Agent:
    """One agent at `https://host:port`, trusted by the certificate of its heartbeats."""

    def __init__(self, callback_url, certificate):
        url = urllib.parse.urlsplit(callback_url)
        self.host, self.port = url.hostname, url.port
        self.authority = url.netloc
        self._context = ssl.create_default_context(cadata=certificate)

    def connect(self, seconds=120):
        plain = socket.create_connection((self.host, self.port), timeout=seconds)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(plain, server_hostname=self.host)

    def raw(self, data, method="GET", seconds=120):
        """Sends bytes as they are and reads one answer; `None` where the connection just ends."""
        with self.connect(seconds) as connection:
            connection.sendall(data)
            answer = http.client.HTTPResponse(connection, method=method)
            try:
                answer.begin()
                return answer.status, answer.reason, answer.getheaders(), answer.read()
            except (http.client.HTTPException, ConnectionError, ssl.SSLError, TimeoutError):
                return None


def request_bytes(method, target, headers, body):
    """A request as a plain client writes it."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_or_text(data):
    """A body as transcripts hold it: JSON where it is JSON, else text, `None` where there is none."""
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError:
        return data.decode("utf-8", "replace")
