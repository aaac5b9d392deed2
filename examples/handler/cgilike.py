# cgilike.py
import os
import sys

from scgi.scgi_server import SCGIHandler, SCGIServer


class Guests(SCGIHandler):
    def produce_cgilike(self, env, bodysize):
        name = sys.stdin.buffer.read(bodysize).decode() or "nobody"
        print("Content-Type: text/plain; charset=utf-8")
        print()
        print(f"{os.environ['REQUEST_METHOD']}: hello {name}")


if __name__ == "__main__":
    SCGIServer(handler_class=Guests, port=4000).serve()
