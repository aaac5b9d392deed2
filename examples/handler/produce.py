# produce.py
from scgi.scgi_server import SCGIHandler, SCGIServer


class Guests(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        name = input.read(bodysize).decode() or "nobody"
        output.write("Content-Type: text/plain; charset=utf-8\r\n\r\n")
        output.write(f"{env['REQUEST_METHOD']} {env['REQUEST_URI']}: hello {name}\n")


if __name__ == "__main__":
    SCGIServer(handler_class=Guests, port=4000).serve()
