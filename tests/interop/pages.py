"""The WSGI application behind real web servers."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

FACTS = Path(os.environ["FACTS"])
TEXT = [("Content-Type", "text/plain")]


def application(environ: dict[str, Any], start_response: Any) -> Any:
    return globals()[environ["PATH_INFO"].strip("/").partition("/")[0] or "environ"](environ, start_response)


def environ(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()]


def echo(environ: dict[str, Any], start_response: Any) -> Any:
    """The method, and the SHA-256 of the body, read in pieces."""
    digest, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(65536):
        digest.update(piece)
        size += len(piece)
    start_response("200 OK", [*TEXT, ("X-Method", environ["REQUEST_METHOD"]), ("X-PID", str(os.getpid()))])
    return [f"{size} {digest.hexdigest()}".encode()]


def _valid(environ: dict[str, Any], start_response: Any) -> Any:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


valid = validator(_valid)


def headers(environ: dict[str, Any], start_response: Any) -> Any:
    own = [
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2"),
        ("X-Own", "caf\xe9"),
        ("Server", "mine"),
        ("ETag", '"1"'),
    ]
    start_response("404 Nothing Here", [*TEXT, *own])
    return [b"nothing"]


def redirect(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("302 Found", [*TEXT, ("Location", environ["QUERY_STRING"])])
    return [b"elsewhere"]


def created(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("201 Created", [*TEXT, ("Location", "/there")])
    return [b"made"]


def empty(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("204 No Content", [("X-Own", "yes")])
    return []


def unchanged(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("304 Not Modified", [("ETag", '"1"')])
    return []


def too_large(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("413 Too Large For Us", TEXT)
    return [b"not read"]


def fail(environ: dict[str, Any], start_response: Any) -> Any:
    raise ValueError("for the log")


def cookie(environ: dict[str, Any], start_response: Any) -> Any:
    """A head of 12 KB."""
    start_response("200 OK", [*TEXT, *((f"X-Own-{number}", "x" * 4000) for number in range(3))])
    return [b"large head"]


def stream(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("X-Accel-Buffering", "no")])

    def blocks() -> Any:
        yield b"first"
        deadline = time.monotonic() + 20
        while not (FACTS / environ["QUERY_STRING"]).exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield b"second"

    return blocks()


def file(environ: dict[str, Any], start_response: Any) -> Any:
    source = (FACTS / "large").open("rb")
    start_response("200 OK", [*TEXT, ("X-PID", str(os.getpid()))])
    return environ["wsgi.file_wrapper"](source)
