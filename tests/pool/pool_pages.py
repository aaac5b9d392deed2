"""The application of these tests: each page does something to the process that answers."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

STARTED = time.monotonic()


def app(environ, start_response):
    page, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    text = PAGES[page](argument, environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text if isinstance(text, bytes) else str(text).encode()]


def pid(argument, environ):
    return os.getpid()


def sleep(seconds, environ):
    time.sleep(float(seconds))
    return os.getpid()


def doze(seconds, environ):
    """For tests that have to know who has taken the request."""
    os.write(2, f"dozing: {os.getpid()}\n".encode())  # in one piece: others write there too
    return sleep(seconds, environ)


def say_and_doze(seconds, environ):
    print("dozing", file=environ["wsgi.errors"])
    return sleep(seconds, environ)


def stubborn(seconds, environ):
    """As a C library that restarts what a signal interrupts."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid()


def read(argument, environ):
    return len(environ["wsgi.input"].read())


def big(size, environ):
    return b"x" * int(size)


def leave(status, environ):
    os._exit(int(status))


def raise_exit(argument, environ):
    raise SystemExit(3)


def crash(argument, environ):
    ctypes.string_at(0)


def kill(number, environ):
    os.kill(os.getpid(), int(number))
    time.sleep(10)


def descriptors(argument, environ):
    """What a program sees that the application starts carelessly."""
    lister = "import os; print(*[(n, os.readlink(f'/proc/self/fd/{n}')) for n in map(int, os.listdir('/proc/self/fd'))"
    lister += " if os.path.exists(f'/proc/self/fd/{n}')], sep='\\n')"
    return subprocess.run([sys.executable, "-c", lister], close_fds=False, capture_output=True, check=True).stdout


def zombies(count, environ):
    for _ in range(int(count)):
        if not os.fork():
            os._exit(0)
    return os.getpid()


def fork_and_serve_on(argument, environ):
    """A careless fork: the child goes its own way for a while and then ends without a word."""
    if not os.fork():
        time.sleep(0.2)
        os._exit(0)
    return os.getpid()


def close_all(argument, environ):
    os.closerange(3, 1000)
    return "never seen"


def chdir(where, environ):
    os.chdir("/" + where)
    return os.getcwd()


def endless_thread(argument, environ):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return os.getpid()


def catch_signals(argument, environ):
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    return os.getpid()


def blocked(seconds, environ):
    """C code that never lets a signal's handler run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGURG})
    time.sleep(float(seconds))
    return os.getpid()


PAGES = {name: page for name, page in list(globals().items()) if callable(page) and name not in ("app", "STARTED")}
PAGES[""] = pid
