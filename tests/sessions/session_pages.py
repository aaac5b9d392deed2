"""A session server whose pages say which process answered, and what it was asked before in this session."""

import os
import sys
import time

from scgi.session_server import SCGIHandler, SCGIServer


class Server(SCGIServer):
    CHILD_TIMEOUT = float(sys.argv[3]) if len(sys.argv) > 3 else 600


class Handler(SCGIHandler):
    seen = {}  # of this child: by session, in order

    def produce(self, env, bodysize, input, output):
        path = env["PATH_INFO"]
        size = len(input.read())
        if path.startswith("/slow"):
            time.sleep(0.3)
        if path == "/killed":
            os.kill(os.getpid(), 9)
        if path == "/exits":
            os._exit(0)
        if path == "/closes":
            os.closerange(3, 100)
        if path == "/bails":
            output.write("Content-Type: text/plain\n\nbye")
            sys.exit(0)
        before = self.seen.setdefault(env.get("HTTP_COOKIE", ""), [])
        before.append(path)
        output.write(f"Content-Type: text/plain\n\n{os.getpid()} {size} {' '.join(before)}")


Server(Handler, port=int(sys.argv[1]), max_children=int(sys.argv[2])).serve()
