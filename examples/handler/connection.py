# connection.py
from scgi.scgi_server import SCGIHandler, SCGIServer


class Guests(SCGIHandler):
    def handle_connection(self, conn):
        input = conn.makefile("rb")
        output = conn.makefile("wb")
        env = self.read_env(input)
        name = input.read(int(env["CONTENT_LENGTH"])).decode() or "nobody"
        output.write(b"Content-Type: text/plain; charset=utf-8\r\n\r\n")
        output.write(f"{env['REQUEST_METHOD']}: hello {name}\n".encode())
        output.close()
        input.close()
        conn.close()


if __name__ == "__main__":
    SCGIServer(handler_class=Guests, port=4000).serve()
