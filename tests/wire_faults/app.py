"""The application behind the wire-fault tests: each path misbehaves, or reports, in its own way."""

import hashlib
import json
import os
import sys
from pathlib import Path

SECRET = "the-word-that-only-the-log-may-hold"


class Unheard(BaseException):
    """Not an Exception, as in some test frameworks and event loops."""


def pid(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def variables(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()]


def read(environ, start_response):
    data = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()]


def beyond(environ, start_response):
    body = environ["wsgi.input"]
    found = [
        body.read(1 << 20),
        body.read(10),
        body.read(),
        body.readline(),
        b"".join(body.readlines()),
        b"".join(body),
    ]
    start_response("200 OK", [])
    return [b"|".join(found)]


def report(environ, start_response):
    """Reads, and leaves a note of what came of it in the file that the request names."""
    note = Path(environ["QUERY_STRING"])
    try:
        data = environ["wsgi.input"].read()
    except BaseException as error:
        note.with_suffix(".new").write_text(f"{type(error).__name__} {isinstance(error, OSError)}")
        note.with_suffix(".new").rename(note)
        raise
    note.write_text(f"complete: {len(data)}")
    start_response("200 OK", [])
    return [b"complete"]


def deaf(environ, start_response):
    """Answers without having read anything."""
    start_response("413 Content Too Large", [("Content-Type", "text/plain")])
    return [b"no" * 50_000]


def half_deaf(environ, start_response):
    environ["wsgi.input"].read(1000)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"yes" * 50_000]


def header(environ, start_response):
    """Sends back what the request's body says, as JSON: [status, [[name, value], …]]."""
    status, headers = json.load(environ["wsgi.input"])
    start_response(status, [(name, value) for name, value in headers])
    return [b"body"]


def raising(error):
    def raise_it(environ, start_response):
        raise error(SECRET)

    return raise_it


def recursion(environ, start_response):
    return recursion(environ, start_response)


def raise_late(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    raise Unheard(SECRET)


def raise_in_iteration(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"12345"
    raise KeyboardInterrupt(SECRET)


def exit_in_close(environ, start_response):
    class Blocks(list):
        def close(self):
            sys.exit(SECRET)

    start_response("200 OK", [("Content-Length", "2")])
    return Blocks([b"o", b"k"])


def no_start(environ, start_response):
    return [b"body"]


def text(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


def text_later(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"12345"
    yield "67890"


def nothing(environ, start_response):
    start_response("200 OK", [])
    return None


def number(environ, start_response):
    start_response("200 OK", [])
    return [5]


def started_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b"body"]


def short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return [b"12345"]


def long(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"123", b"456", b"789"]


def status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("X-A", "b")])
    return [b"a ", b"body"]


def big(environ, start_response):
    start_response("200 OK", [("Content-Length", str(50 << 20))])
    return [b"x" * (1 << 20)] * 50


def wait(environ, start_response):
    """Answers once the file is there that the request names, and says by another that it has begun."""
    gate = Path(environ["QUERY_STRING"])
    gate.with_name("begun").touch()
    while not gate.exists():
        os.sched_yield()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"patience" * (1 << 17)]


def wait_short(environ, start_response):
    return [next(iter(wait(environ, start_response)))[:8]]


PAGES = {
    **{
        f"/raise/{error.__name__}": raising(error)
        for error in (ValueError, SystemExit, KeyboardInterrupt, MemoryError, GeneratorExit, Unheard, OSError, EOFError)
    },
    **{f"/{page.__name__.replace('_', '-')}": page
       for page in (pid, variables, read, beyond, report, deaf, half_deaf, header, recursion, raise_late,
                    raise_in_iteration, exit_in_close, no_start, text, text_later, nothing, number, started_twice,
                    short, long, status, big, wait, wait_short)},
}  # fmt: skip


def application(environ, start_response):
    return PAGES[environ["PATH_INFO"]](environ, start_response)
