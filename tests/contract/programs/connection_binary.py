"""The shape of Quixote's handler: `handle_connection` with binary files, and a connection that it closes itself."""

import sys

from scgi import scgi_server


def debug(line):
    sys.stderr.write(line + "\n")


class PublishingHandler(scgi_server.SCGIHandler):
    prefix = "/dynamic"

    def __init__(self, *args, **kwargs):
        debug(f"{self.__class__.__name__} created")
        scgi_server.SCGIHandler.__init__(self, *args, **kwargs)

    def handle_connection(self, conn):
        input = conn.makefile("rb")
        output = conn.makefile("wb")

        env = self.read_env(input)

        path = env["SCRIPT_NAME"]
        assert path[: len(self.prefix)] == self.prefix, f"path {path!r} is not below {self.prefix!r}"
        env["SCRIPT_NAME"] = self.prefix
        env["PATH_INFO"] = path[len(self.prefix) :] + env.get("PATH_INFO", "")

        size = int(env.get("CONTENT_LENGTH", 0))
        body = input.read(size).decode("latin-1")
        page = f"{env['SCRIPT_NAME']} {env['PATH_INFO']} {body}\n"
        output.write(b"Status: 200 OK\r\nContent-Type: text/html\r\n\r\n")
        output.write(page.encode("latin-1"))

        try:
            input.close()
            output.close()
            conn.close()
        except OSError as error:
            debug(f"error while closing: {error}")

        if env["QUERY_STRING"] == "run_once":
            sys.exit(0)


scgi_server.SCGIServer(PublishingHandler, host="127.0.0.1", port=int(sys.argv[1]), max_children=1).serve()
