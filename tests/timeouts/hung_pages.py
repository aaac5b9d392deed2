"""The application of these tests: each page hangs in a way of its own. In `log` it writes what was cleaned up."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import signal
import socket
import threading
import time
from collections import deque

LOG = os.environ.get("CLEANED", os.devnull)
LOCK = threading.Lock()
LONG = 600


def note(text):
    with open(LOG, "a") as file:
        file.write(text + "\n")


# Python code, and what a signal ends.


def spin(environ):
    while True:
        pass


def sleep(environ):
    time.sleep(float(environ["QUERY_STRING"] or LONG))
    return [b"slept\n"]


def lock(environ):
    with LOCK, LOCK:
        return [b"never\n"]


def event(environ):
    threading.Event().wait()


def queue(environ):
    ends = socket.socketpair()
    ends[0].recv(1)


def search(environ):
    return [b"%r" % re.match(r"(a+)+$", "a" * 60 + "b")]


def held(environ):
    """C code that holds the interpreter, in a system call that a signal ends."""
    ctypes.PyDLL(None).sleep(LONG)


# What is returned.


def generator(environ):
    time.sleep(LONG)
    yield b"never\n"


def generator_later(environ):
    yield b"begun\n"
    time.sleep(LONG)


class Steps:
    def __iter__(self):
        return self

    def __next__(self):
        time.sleep(LONG)


def steps(environ):
    return Steps()


class File:
    def read(self, size):
        time.sleep(LONG)


def file(environ):
    return environ["wsgi.file_wrapper"](File())


class Closing:
    def __iter__(self):
        return iter([b"whole\n"])

    def close(self):
        time.sleep(LONG)


def close(environ):
    return Closing()


def body(environ):
    environ["wsgi.input"].read()
    time.sleep(LONG)


# What is to be cleaned up.


@contextlib.contextmanager
def transaction(name):
    note(f"{name}: begin")
    try:
        yield
    except BaseException as error:
        note(f"{name}: rollback by {type(error).__name__}")
        raise
    note(f"{name}: commit")


def clean(environ):
    with transaction("outer"):
        try:
            with transaction("inner"):
                time.sleep(LONG)
        except Exception:
            note("except Exception")
        finally:
            note("finally")


# What does not let itself be interrupted.


def swallow(environ):
    while True:
        try:
            time.sleep(LONG)
        except BaseException:
            pass


def unwind(environ):
    try:
        time.sleep(LONG)
    finally:
        time.sleep(LONG)


def hold(environ):
    """C code that holds the interpreter and never looks at signals."""
    deque(itertools.repeat(None), maxlen=0)


def main_only(environ):
    """In the main thread: C code that starts its wait anew, as database drivers do. Elsewhere: nothing."""
    if threading.current_thread() is threading.main_thread():
        deque(map(ctypes.CDLL(None).pause, itertools.repeat(0)), maxlen=0)
    return [b"elsewhere\n"]


def block(environ):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    time.sleep(LONG)


# What is well.


def drip(environ):
    for _ in range(int(environ["QUERY_STRING"] or 8)):
        time.sleep(0.3)
        yield b"x"


def upload(environ):
    return [b"%d\n" % len(environ["wsgi.input"].read())]


def big(environ):
    return [b"x" * int(environ["QUERY_STRING"])]


def pid(environ):
    return [b"%d\n" % os.getpid()]


def app(environ, start_response):
    result = globals()[environ["PATH_INFO"].strip("/") or "pid"](environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return result
