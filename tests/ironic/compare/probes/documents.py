"""Version documents, status, routes, methods, and oddities of HTTP. No token is needed for any of them."""

from .probe import Probe


def _get(path, method="GET", label=None, **more):
    return Probe(label or f"{method} {path}", method, path, token=None, **more)


PATHS = ("/", "/v1", "/v1/", "/v1/status", "/status", "/v1/status/", "/nosuch", "/v1/nosuch", "/v2/", "//", "/V1/")

DOCUMENTS = [
    *(_get(path) for path in PATHS),
    *(_get(path, "HEAD") for path in ("/", "/v1/", "/v1/status", "/nosuch")),
    _get("/v1", query=(("a", "b"),), label="redirect keeps the query"),
    _get("/v1", headers=(("Host", "example.org:1234"),), label="redirect to the host that was asked for"),
    _get("/", headers=(("Host", "example.org:1234"),), label="links to the host that was asked for"),
    _get("/v1/", headers=(("Host", "example.org"),), label="links without a port"),
    _get("/", headers=(("Accept", "text/html"),), label="only HTML is accepted"),
    _get("/", headers=(("Accept-Encoding", "gzip"),), label="gzip is accepted"),
    _get("/", headers=(("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "example.org")), label="forwarded headers"),
    _get("/v1/status", query=(("agent_token", "x"), ("y", "")), label="unknown query arguments"),
    *(_get(path, method) for path in ("/", "/v1/", "/v1/status") for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")),
    *(Probe(f"{method} commands", method, "/v1/commands/") for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")),
    *(Probe(f"{method} a command", method, "/v1/commands/x") for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD")),
]


def _raw(label, data):
    return Probe(label, raw=data)


HTTP = [
    _raw("HTTP/1.0", b"GET /v1/status HTTP/1.0\r\nHost: {host}\r\n\r\n"),
    _raw("HTTP/1.1 without Host", b"GET /v1/status HTTP/1.1\r\n\r\n"),
    _raw("close is asked for", b"GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
    _raw("whole URL in the request line", b"GET https://{host}/v1/status HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    _raw("not HTTP", b"hello\r\n\r\n"),
    _raw("unknown version", b"GET / HTTP/3.0\r\nHost: {host}\r\n\r\n"),
    _raw("unknown method", b"BREW / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    _raw("escaped path", b"GET /%76%31/status HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    _raw("header without colon", b"GET /v1/status HTTP/1.1\r\nHost: {host}\r\nnonsense\r\n\r\n"),
    _raw("chunked body", b"POST /v1/commands/?wait=true&agent_token={token} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
         b"35\r\n" b'{"name": "standby.get_partition_uuids", "params": {}}' b"\r\n0\r\n\r\n"),
    _raw("length that is no number", b"POST /v1/commands/?agent_token={token} HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\n\r\n"),
    _raw("POST without length", b"POST /v1/commands/?agent_token={token} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
]
