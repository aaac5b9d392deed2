"""The application of these tests: its pages run for a while, and then their process ends in one way or another."""

from __future__ import annotations

import ctypes
import os
import signal
import time

LONG = 0.7  # seconds: such a request is guarded
if os.environ.get("CLOSED"):
    ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: nobody of the same user may look into this process


def say(what):
    os.write(2, f"{what} at {time.monotonic()} in {os.getpid()}\n".encode())  # in one piece: others write there too


def dying():
    say("running")
    time.sleep(LONG)
    say("dying")


def kill(environ):
    dying()
    os.kill(os.getpid(), signal.SIGKILL)


def crash(environ):
    dying()
    ctypes.string_at(0)


def leave(environ):
    dying()
    os._exit(3)


def starve(environ):
    """As C code that does not look whether it got the memory."""
    c = ctypes.CDLL(None)
    c.malloc.restype = ctypes.c_void_p
    c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    dying()
    c.memset(c.malloc(1 << 45), 1, 1 << 20)


def sleep(environ):
    say("running")
    time.sleep(float(environ["QUERY_STRING"] or 20))
    return [b"slept\n"]


def begin(environ):
    say("running")
    yield b"begun\n"
    time.sleep(20)


def shorten(environ):
    say("running")
    time.sleep(1)
    yield b"half of what was announced\n"


def fork(environ):
    """A helper that stays beside the worker, with all that the worker has open."""
    if not os.fork():
        time.sleep(LONG + 2)
        os._exit(0)
    return kill(environ)


def upload(environ):
    body = environ["wsgi.input"].read()
    dying()
    os._exit(len(body) & 1)


def pid(environ):
    return [b"%d\n" % os.getpid()]


def app(environ, start_response):
    length = [("Content-Length", "1000")] if environ["PATH_INFO"] == "/shorten" else []
    start_response("200 OK", [("Content-Type", "text/plain"), *length])
    return globals()[environ["PATH_INFO"].strip("/") or "pid"](environ)
