"""Handlers of each style, each of which hangs when it is asked for /hang."""

from __future__ import annotations

import os
import time

from scgi.scgi_server import SCGIHandler


def hang(env):
    if env["PATH_INFO"] == "/hang":
        time.sleep(600)
    return f"Content-Type: text/plain\n\n{os.getpid()}\n"


class Produce(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        output.write(hang(env))


class Cgilike(SCGIHandler):
    def produce_cgilike(self, env, bodysize):
        print(hang(os.environ), end="")


class OfTheConnection(SCGIHandler):
    def handle_connection(self, conn):
        with conn.makefile("rb") as input:
            env = self.read_env(input)
        conn.sendall(hang(env).encode())
        conn.close()
