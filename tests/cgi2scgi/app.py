"""What is asked behind real web servers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

PIECE = bytes(range(256)) * 256


def pieces(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield PIECE


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """/digest: of the body. /large?N: N pieces of 64 KiB, their number announced but for /stream?N. /no: 413."""
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    plain = [("Content-Type", "text/plain")]
    if path == "/digest":
        found, length = hashlib.sha256(), 0
        while piece := environ["wsgi.input"].read(65536):
            found.update(piece)
            length += len(piece)
        start_response("200 OK", plain)
        return [f"{length} {found.hexdigest()}".encode()]
    if path in ("/large", "/stream"):
        announced = [("Content-Length", str(len(PIECE) * int(query)))] if path == "/large" else []
        start_response("200 OK", [*plain, *announced])
        return pieces(int(query))
    if path == "/no":
        start_response("413 Content Too Large", plain)
        return [b"too large"]
    if path == "/moved":
        start_response("302 Found", [("Location", "/elsewhere"), ("Content-Length", "0")])
        return []
    start_response("200 OK", plain)
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "HTTP_COOKIE", "HTTP_AUTHORIZATION")
    return [f"{name}={environ.get(name)}\n".encode("latin-1") for name in names]
