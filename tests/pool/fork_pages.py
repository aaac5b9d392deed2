"""Applications whose pages fork: as WSGI, and as a handler that is lent the connection."""

from __future__ import annotations

import multiprocessing
import os
import signal

from scgi.scgi_server import SCGIHandler


def forked(child):
    """`child` runs in the forked process; the page is answered once that has ended, so that it would speak first."""
    if not (pid := os.fork()):
        return child()
    return f"{pid} {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"


def comes_back():
    return forked(lambda: "a second answer")


def exits():
    def leave():
        raise SystemExit(7)

    return forked(leave)


def fails():
    return forked(lambda: 1 / 0)


def ends_well():
    return forked(lambda: os._exit(9))


def helper():
    """One that runs on beside the worker."""
    if not (pid := os.fork()):
        signal.pause()
        os._exit(0)
    return pid


def multi():
    """A helper of the standard library's making, which answers over a pipe of its own, and is asked to end."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: (theirs.send(os.getpid()), signal.pause()))
    process.start()
    said = ours.recv() == process.pid
    process.terminate()
    process.join()
    return f"{said} {process.exitcode}"


def pid():
    return os.getpid()


def page(path):
    return str(globals()[path.strip("/")]()).encode()


def app(environ, start_response):
    body = page(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def streamed(environ, start_response):
    """What is forked after the last block has nothing left to send."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"all"
    page(environ["PATH_INFO"])


class Handler(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        body = page(env["PATH_INFO"])
        output.write("Content-Type: text/plain\n\n")
        output.write(body)


class Lent(SCGIHandler):
    def handle_connection(self, conn):
        file = conn.makefile("rb")
        body = page(self.read_env(file)["PATH_INFO"])
        conn.sendall(b"Content-Type: text/plain\n\n" + body)
