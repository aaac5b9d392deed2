"""Five children; a request says so when it has begun and waits until it may end, both by a file in this folder."""

import os
import sys
import time

from scgi.scgi_server import SCGIHandler, SCGIServer


class Busy(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        number = env["QUERY_STRING"]
        open("begun-" + number, "w").close()
        until = time.monotonic() + 20
        while not os.path.exists("go-" + number) and time.monotonic() < until:
            time.sleep(0.005)
        output.write(b"Content-Type: text/plain\r\n\r\n%d" % os.getpid())


SCGIServer(Busy, port=int(sys.argv[1]), max_children=5).serve()
