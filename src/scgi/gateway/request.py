"""An HTTP request's head as the variables of RFC 3875, and nothing that the client could forge.

What the client says arrives under ``HTTP_`` or in the request's own target; who it is comes from the
socket. Two spellings that would become one variable (``X-A`` and ``X_A``) cannot meet, because a name
outside ``[A-Za-z0-9-]`` is dropped. This file sees plain values; it may import protocol.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from scgi.protocol.response import HOP_BY_HOP

# HTTP_PROXY would be taken for a setting by HTTP libraries ("httpoxy"); the two CONTENT headers have
# variables of their own; the expectation has been met when the application runs.
_NOT_PASSED: Final = HOP_BY_HOP | {"proxy", "content-length", "content-type", "expect"}

_NAME: Final = re.compile(r"[a-z0-9-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_PATH: Final = re.compile(rb"/(?:[!\"$&-~]|%[0-9A-Fa-f]{2})*")
_QUERY: Final = re.compile(rb"[!\"$-~]*")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/]*)(.*)", re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?)?")


class BadRequest(Exception):
    """The request cannot be passed on. The text is for the client."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Request(NamedTuple):
    """``length`` None: the body is chunked, its length is known when it has ended."""

    variables: list[tuple[str, str]]
    length: int | None


def read_request(scope: Mapping[str, Any]) -> Request:
    """The variables for an ASGI scope, without CONTENT_LENGTH and SCGI. Raises BadRequest."""
    method: str = scope["method"]
    if method == "CONNECT":
        raise BadRequest("This is not a proxy.", 405)
    headers = collect_headers(scope["headers"])
    length = body_length(headers, scope["http_version"])
    raw_path, authority = split_target(scope["raw_path"])
    query: bytes = scope["query_string"]
    path = unquote_to_bytes(raw_path)
    if not _PATH.fullmatch(raw_path) or b"\0" in path or not _QUERY.fullmatch(query):
        raise BadRequest("The request's target is not a path.")
    hosts = headers.get("host", [])
    if authority is not None and hosts not in ([], [authority]):
        raise BadRequest("The request's target and its Host header differ.")
    if authority is not None:
        hosts = headers["host"] = [authority]
    if len(hosts) > 1 or not all(_AUTHORITY.fullmatch(host) for host in hosts):
        raise BadRequest("The Host header is not valid.")

    target = raw_path + b"?" + query if query else raw_path
    variables = [
        ("REQUEST_METHOD", method),
        ("REQUEST_URI", target.decode("latin-1")),
        ("QUERY_STRING", query.decode("latin-1")),
    ]
    if "content-type" in headers:
        variables.append(("CONTENT_TYPE", only("Content-Type", headers["content-type"])))
    variables += [
        ("DOCUMENT_URI", path.decode("latin-1")),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", path.decode("latin-1")),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "scgi-gateway"),
        ("SERVER_PROTOCOL", "HTTP/" + scope["http_version"]),
    ]
    variables += ends_of_connection(scope)
    variables += client_headers(headers)
    return Request(variables, length)


def collect_headers(raw: list[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """All values of each header, in order of arrival, by lower-case name."""
    headers: dict[str, list[str]] = {}
    for name, value in raw:
        text = value.decode("latin-1")
        if not _VALUE.fullmatch(text):
            raise BadRequest("A header holds a control character.")
        headers.setdefault(name.decode("latin-1").lower(), []).append(text)
    return headers


def body_length(headers: dict[str, list[str]], http_version: str) -> int | None:
    """One way only to say how long the body is: two that differ are how requests are smuggled."""
    lengths = headers.get("content-length", [])
    codings = headers.get("transfer-encoding", [])
    if codings:
        if lengths or http_version == "1.0":
            raise BadRequest("A chunked body needs HTTP/1.1 and has no Content-Length.")
        if only("Transfer-Encoding", codings).lower() != "chunked":
            raise BadRequest("The only transfer coding understood is chunked.", 501)
        return None
    if not lengths:
        return 0
    text = only("Content-Length", lengths)
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest("Content-Length is not a whole number.")
    return int(text)


def only(name: str, values: list[str]) -> str:
    """The value of a header that may be repeated but not contradicted."""
    if len(set(values)) != 1:
        raise BadRequest(f"There are several {name} headers, and they differ.")
    return values[0]


def split_target(raw_path: bytes) -> tuple[bytes, str | None]:
    """The path, and the authority where the target is a whole URL (``GET http://host/path``)."""
    absolute = _ABSOLUTE.fullmatch(raw_path)
    if absolute is None:
        return raw_path, None
    return absolute[2] or b"/", absolute[1].decode("latin-1")


def ends_of_connection(scope: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who talks to whom, as the sockets say; the client's Host has no part in it."""
    scheme: str = scope.get("scheme", "http")
    server_host, server_port = scope.get("server") or ("", None)
    if server_port is None:  # a unix socket: a name and a port there must be all the same
        server_host, server_port = "localhost", 443 if scheme == "https" else 80
    found = [
        ("SERVER_NAME", f"[{server_host}]" if ":" in server_host else server_host),
        ("SERVER_PORT", str(server_port)),
    ]
    client = scope.get("client")
    if client:
        found += [("REMOTE_ADDR", client[0]), ("REMOTE_PORT", str(client[1]))]
    else:
        found.append(("REMOTE_ADDR", "unix:"))  # what nginx says
    found.append(("REQUEST_SCHEME", scheme))
    if scheme == "https":
        found.append(("HTTPS", "on"))
    return found


def client_headers(headers: dict[str, list[str]]) -> list[tuple[str, str]]:
    """The headers that are passed on, repeated ones joined."""
    dropped = _NOT_PASSED | (named_by_connection(headers.get("connection", [])) - {"host"})
    return [
        ("HTTP_" + name.upper().replace("-", "_"), ("; " if name == "cookie" else ", ").join(values))
        for name, values in headers.items()
        if name not in dropped and _NAME.fullmatch(name)
    ]


def named_by_connection(values: Iterable[str]) -> set[str]:
    """The headers that a ``Connection`` header declares to concern this connection only, lower-case."""
    return {token.strip().lower() for value in values for token in value.split(",")}


def stays_open(scope: Mapping[str, Any]) -> bool:
    """Whether the HTTP connection may be used again after this request."""
    values = (value.decode("latin-1") for name, value in scope["headers"] if name == b"connection")
    return scope["http_version"] != "1.0" and "close" not in named_by_connection(values)
