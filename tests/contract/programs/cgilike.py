"""A CGI script moved into `produce_cgilike`; the query says which part of it runs."""

import os
import subprocess
import sys

from scgi.scgi_server import SCGIHandler, SCGIServer


class Script(SCGIHandler):
    def produce_cgilike(self, env, bodysize):
        print("Content-Type: text/plain; charset=utf-8")
        print()
        part = os.environ["QUERY_STRING"]
        if part == "stdin":
            print(f"{bodysize} bytes: {sys.stdin.read()}", end="")
        elif part == "lines":
            print(list(sys.stdin), end="")
        elif part == "getenv":
            print(os.getenv("REQUEST_METHOD"), os.environ["REQUEST_METHOD"], env["REQUEST_METHOD"], end="")
        elif part == "inherited":  # what the process had before it served anything
            print(os.environ.get("ALREADY_THERE"), end="")
        elif part == "subprocess":
            names = [line.partition("=")[0] for line in subprocess.check_output(["env"], text=True).splitlines()]
            print("REQUEST_METHOD" in names, end="")
        elif part == "buffer":
            sys.stdout.flush()
            sys.stdout.buffer.write(b"raw \xff bytes")
        elif part == "raise":
            raise RuntimeError("raised on purpose")
        elif part == "path":
            print(os.environ.get("PATH"), end="")


SCGIServer(handler_class=Script, port=int(sys.argv[1])).serve()
