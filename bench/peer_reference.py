"""The reference package's server, scgi 2.2, with the smallest handler it allows. For its own environment: HOST PORT.

It writes a line for each request, which cannot be switched off.
"""

import sys

from scgi.scgi_server import SCGIHandler, SCGIServer


class Hello(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        output.write(b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n")


SCGIServer(Hello, host=sys.argv[1], port=int(sys.argv[2])).serve()
