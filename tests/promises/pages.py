"""The application of these tests: each page does something to the process that answers."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time


def app(environ, start_response):
    page, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    text = PAGES[page](argument, environ)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(text).encode()]


def pid(argument, environ):
    return os.getpid()


def sleep(seconds, environ):
    time.sleep(float(seconds))
    return os.getpid()


def doze(seconds, environ):
    """For tests that have to know who has taken the request."""
    print(f"dozing: {os.getpid()}", file=sys.stderr, flush=True)
    return sleep(seconds, environ)


def stubborn(seconds, environ):
    """As C code that restarts what a signal interrupts."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        time.sleep(0.01)
    return os.getpid()


def blocked(seconds, environ):
    """As C code that never lets a signal's handler run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    return stubborn(seconds, environ)


def raise_it(name, environ):
    if name == "RecursionError":
        return raise_it(name, environ)
    raise {error.__name__: error for error in (SystemExit, KeyboardInterrupt, MemoryError, ValueError)}[name]("secret")


def leave(status, environ):
    os._exit(int(status))


def kill(number, environ):
    os.kill(os.getpid(), int(number))
    time.sleep(10)


def crash(argument, environ):
    ctypes.string_at(0)


def zombies(count, environ):
    for _ in range(int(count)):
        if not os.fork():
            os._exit(0)
    return os.getpid()


def fork_and_go(argument, environ):
    """A careless fork: the child goes its own way for a while and then ends without a word."""
    if not os.fork():
        time.sleep(0.2)
        os._exit(0)
    return os.getpid()


def orphan(argument, environ):
    """A process whose parent is gone: a daemon that ends soon."""
    if not os.fork():
        if not os.fork():
            time.sleep(0.1)
        os._exit(0)
    os.wait()
    return os.getpid()


def threads(count, environ):
    for _ in range(int(count)):
        threading.Thread(target=time.sleep, args=(3600,)).start()
    return os.getpid()


def close_all(argument, environ):
    os.closerange(3, 1000)
    return "never seen"


def chdir(where, environ):
    os.chdir("/" + where)
    return os.getcwd()


def ignore_signals(argument, environ):
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD, signal.SIGURG):
        signal.signal(number, signal.SIG_IGN)
    return os.getpid()


def descriptors(argument, environ):
    """What a program has open that the application starts carelessly."""
    code = "import os; [print(n, os.readlink(f'/proc/self/fd/{n}')) for n in os.listdir('/proc/self/fd') if int(n) > 2"
    code += " and os.path.exists(f'/proc/self/fd/{n}')]"
    done = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def climb(argument, environ):
    """Whoever this is tries to become root again, in every way that there is."""
    said = []
    for name, arguments in (
        ("setuid", (0,)), ("seteuid", (0,)), ("setgid", (0,)), ("setegid", (0,)),
        ("setgroups", ([0],)), ("setresuid", (0, 0, 0)), ("setresgid", (0, 0, 0)),
    ):  # fmt: skip
        try:
            getattr(os, name)(*arguments)
            said.append(f"{name}: done")
        except PermissionError:
            said.append(f"{name}: refused")
    return "\n".join(said)


def status(argument, environ):
    with open("/proc/self/status") as file:
        return file.read()


PAGES = {name: page for name, page in list(globals().items()) if callable(page) and name != "app"}
PAGES[""] = pid
