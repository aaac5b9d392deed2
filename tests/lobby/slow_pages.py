"""Applications that answer at length, each in its own way, or read what they are sent."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time

from scgi.scgi_server import SCGIHandler

SIZE = 16_000_000  # more than any system keeps for a peer that does not read
BLOCK = b"0123456789abcdef" * 4096


def app(environ, start_response):
    page, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    return PAGES[page](environ, start_response, argument)


def pid(environ, start_response, argument):
    return _text(start_response, os.getpid())


def read(environ, start_response, argument):
    """The length and the digest of the body."""
    digest, size = hashlib.sha256(), 0
    while block := environ["wsgi.input"].read(65536):
        digest.update(block)
        size += len(block)
    return _text(start_response, f"{size} {digest.hexdigest()}")


def read_carefully(environ, start_response, argument):
    """What happens at the end of the body, for the log."""
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        print(f"read() raised {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise
    return _text(start_response, f"then {environ['wsgi.input'].read(10)!r}")


KEPT = []


def keep(environ, start_response, argument):
    """Nothing but the beginning is read, and the input is kept."""
    KEPT.append(environ["wsgi.input"])
    return _text(start_response, len(KEPT[-1].read(1 << 21)))


def kept(environ, start_response, argument):
    """How much can be read from the input that this worker has kept; another has none."""
    return _text(start_response, len(KEPT[-1].read()) if KEPT else 0)


def nap(environ, start_response, seconds):
    print("napping", file=sys.stderr, flush=True)
    time.sleep(float(seconds))
    return _text(start_response, os.getpid())


def head(environ, start_response, argument):
    return _text(start_response, len(environ["HTTP_X_LONG"]))


def block(environ, start_response, argument):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [_all()]


def blocks(environ, start_response, argument):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [BLOCK] * (SIZE // len(BLOCK)) + [BLOCK[: SIZE % len(BLOCK)]]


def stream(environ, start_response, argument):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(SIZE))])
    for _ in range(SIZE // len(BLOCK)):
        yield BLOCK
    yield BLOCK[: SIZE % len(BLOCK)]


def broken_stream(environ, start_response, argument):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(SIZE))])
    for _ in range(SIZE // len(BLOCK) // 2):
        yield BLOCK
    raise ValueError("in the middle")


def file(environ, start_response, argument):
    file = tempfile.TemporaryFile()
    file.write(_all())
    file.seek(0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](file)


def written(environ, start_response, argument):
    """Bytes by the `write` callable, and then a file."""
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(SIZE))])
    write(BLOCK * 100)
    file = tempfile.TemporaryFile()
    file.write(_all())
    file.seek(len(BLOCK) * 100)
    return environ["wsgi.file_wrapper"](file)


def _all():
    return (BLOCK * (SIZE // len(BLOCK) + 1))[:SIZE]


def _text(start_response, text):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(text).encode()]


PAGES = {name: page for name, page in list(globals().items()) if callable(page) and not name.startswith("_")}
PAGES[""] = pid


class Handler(SCGIHandler):
    """The same at length, and the process, by a handler's output."""

    def produce(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\r\n\r\n")
        if env["PATH_INFO"] == "/output":
            for _ in range(SIZE // len(BLOCK)):
                output.write(BLOCK)
            output.write(BLOCK[: SIZE % len(BLOCK)])
        else:
            output.write(str(os.getpid()))


class OldHandler(SCGIHandler):
    """As older programs, which get a connection and close it."""

    def handle_connection(self, conn):
        input = conn.makefile("r")
        output = conn.makefile("w")
        env = self.read_env(input)
        output.write("Content-Type: text/plain\r\n\r\n")
        if env["PATH_INFO"] == "/connection":
            for _ in range(SIZE // len(BLOCK)):
                output.write(BLOCK.decode())
            output.write(BLOCK[: SIZE % len(BLOCK)].decode())
        else:
            output.write(str(os.getpid()))
        input.close()
        output.close()
        conn.close()
