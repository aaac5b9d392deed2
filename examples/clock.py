"""The shortest application: a class, a method, a server. Ask through a web server that speaks SCGI.

python examples/clock.py [PORT]
"""

import sys
import time

import scgi.scgi_server


class Clock(scgi.scgi_server.SCGIHandler):
    def produce(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\r\n\r\n")
        output.write(time.ctime() + "\n")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    scgi.scgi_server.SCGIServer(handler_class=Clock, port=port).serve()
