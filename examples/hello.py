"""Any WSGI application will do: scgi serve examples/hello.py"""

import os


def application(environ, start_response):
    text = f"Hello, this is process {os.getpid()}.\n"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]
