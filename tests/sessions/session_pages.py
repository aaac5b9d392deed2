"""A session server whose pages say which process answered, and how many it has answered for this session."""

import os
import sys
import time

from scgi.session_server import SCGIHandler, SCGIServer


class Handler(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        path = env.get("REQUEST_URI", "")
        if path == "/slow":
            time.sleep(0.3)
        if path == "/die":
            os.kill(os.getpid(), 9)
        output.write(f"Content-Type: text/plain\n\n{os.getpid()} {path}")


SCGIServer(Handler, port=int(sys.argv[1]), max_children=int(sys.argv[2])).serve()
