"""The same page both ways: a CGI program that ends with its answer, or a WSGI application that stays.

It imports nothing but `os` and `sys`, which Python has imported by then: no program in Python starts sooner.
"""

import os
import sys


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "13")])
    return [b"Hello, world\n"]


def print_head(status, headers):
    lines = [f"Status: {status}", *(f"{name}: {value}" for name, value in headers), "", ""]
    sys.stdout.buffer.write("\r\n".join(lines).encode("latin-1"))


if __name__ == "__main__":
    sys.stdout.buffer.writelines(application(os.environ, print_head))
