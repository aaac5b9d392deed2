"""The WSGI application of the table: it answers with what it saw, or as the header X-Do asks it to.

It looks at no path, because what becomes of paths is what is in question.
"""

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FACTS = Path(os.environ["FACTS"])
TEXT = [("Content-Type", "text/plain"), ("X-Mirror", "yes")]


def application(environ: dict[str, Any], start_response: Any) -> Any:
    do, _, argument = environ.get("HTTP_X_DO", "show").partition(" ")
    return globals()[f"do_{do}"](argument, environ, start_response)


def do_show(argument: str, environ: dict[str, Any], start_response: Any) -> Any:
    seen = {name: value for name, value in environ.items() if isinstance(value, str)}
    seen["body"] = base64.b64encode(environ["wsgi.input"].read()).decode()
    answer = json.dumps(seen).encode()
    start_response("200 OK", [*TEXT, ("X-Method", environ["REQUEST_METHOD"]), ("Content-Length", str(len(answer)))])
    return [answer]


def do_status(argument: str, environ: dict[str, Any], start_response: Any) -> Any:
    """`X-Do: status 302 Found; Location: /there`: that status, those headers, the body `mirror`."""
    status, *headers = argument.split("; ")
    start_response(status, [*TEXT, *(tuple(header.split(": ", 1)) for header in headers)])
    return [] if status[:3] in ("204", "304") else [b"mirror"]


def do_long(argument: str, environ: dict[str, Any], start_response: Any) -> Any:
    """300 KB, with its length or without."""
    start_response("200 OK", [*TEXT, *([("Content-Length", "300000")] if argument == "with" else [])])
    return iter([b"x" * 100_000] * 3)


def do_cut(argument: str, environ: dict[str, Any], start_response: Any) -> Any:
    """300 KB were announced."""
    start_response("200 OK", [*TEXT, ("Content-Length", "300000")])
    return iter([b"x" * 100_000])


def do_head(argument: str, environ: dict[str, Any], start_response: Any) -> Any:
    """A head of 12 KB."""
    start_response("200 OK", [*TEXT, *((f"X-Large-{number}", "x" * 4000) for number in range(3))])
    return [b"mirror"]


def do_refuse(argument: str, environ: dict[str, Any], start_response: Any) -> Any:
    """Without a look at the body."""
    start_response("413 Content Too Large", TEXT)
    return [b"mirror"]


def do_stream(argument: str, environ: dict[str, Any], start_response: Any) -> Any:
    """A block; another once the file is there."""
    start_response("200 OK", TEXT)

    def blocks() -> Iterator[bytes]:
        yield b"first"
        deadline = time.monotonic() + 10
        while not (FACTS / argument).exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        yield b"second"

    return blocks()


class do_endless:
    """Blocks without end; its file is there once the server has closed it."""

    def __init__(self, argument: str, environ: dict[str, Any], start_response: Any) -> None:
        start_response("200 OK", TEXT)
        self._file = FACTS / argument
        self._until = time.monotonic() + 20

    def __iter__(self) -> "do_endless":
        return self

    def __next__(self) -> bytes:
        if time.monotonic() > self._until:
            raise StopIteration
        return b"x" * 65536

    def close(self) -> None:
        if time.monotonic() < self._until:
            self._file.touch()
