"""The article's style for old versions: `handle_connection` with text files."""

import sys

import scgi.scgi_server


class TextHandler(scgi.scgi_server.SCGIHandler):
    def handle_connection(self, conn):
        input = conn.makefile("r")
        output = conn.makefile("w")
        try:
            env = self.read_env(input)
            bodysize = int(env.get("CONTENT_LENGTH", 0))
            body = input.read(bodysize)
            output.write("Content-Type: text/plain\r\n\r\n")
            output.write(f"{len(body)} characters for {bodysize} bytes\r\n{body}")
        finally:
            output.close()
            input.close()
            conn.close()


scgi.scgi_server.SCGIServer(handler_class=TextHandler, port=int(sys.argv[1])).serve()
