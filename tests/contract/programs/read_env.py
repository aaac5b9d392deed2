"""An override of `read_env` that adds a variable."""

import sys

from scgi.scgi_server import SCGIHandler, SCGIServer


class Handler(SCGIHandler):
    def read_env(self, input):
        env = SCGIHandler.read_env(self, input)
        env["APPLICATION"] = "added on the way"
        return env

    def produce(self, env, bodysize, input, output):
        if env["QUERY_STRING"] == "raises":
            raise RuntimeError("raised on purpose")
        output.write(b"Content-Type: text/plain\r\n\r\n")
        output.write(env["APPLICATION"].encode() + b": " + input.read(bodysize))


SCGIServer(Handler, "", int(sys.argv[1]), 2).serve()
