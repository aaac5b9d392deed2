"""`produce`, by the query: what it writes, how it fails, who it is."""

import os
import sys
import time

import scgi.scgi_server


class Application(scgi.scgi_server.SCGIHandler):
    def __init__(self, parent_fd):
        scgi.scgi_server.SCGIHandler.__init__(self, parent_fd)
        self.made_in = os.getpid()
        self.file = open(__file__)  # stands for a database
        self.served = 0

    def produce(self, env, bodysize, input, output):
        self.served += 1
        getattr(self, env["QUERY_STRING"].partition("=")[0])(env, bodysize, input, output)

    def text(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\r\n\r\n")
        output.write(time.ctime() + "\n")

    def bytes(self, env, bodysize, input, output):
        output.write(b"Content-Type: text/plain\r\n\r\n")
        output.write(b"as it is: \xff\x00\r\n")

    def echo(self, env, bodysize, input, output):
        output.write(b"Content-Type: text/plain\r\n\r\n")
        output.write(f"{bodysize} {env['CONTENT_LENGTH']} ".encode())
        output.write(input.read(bodysize))

    def lines(self, env, bodysize, input, output):
        output.write(b"Content-Type: text/plain\r\n\r\n")
        output.writelines([input.readline(), b"then ", input.read(3)])

    def state(self, env, bodysize, input, output):
        output.write(b"Content-Type: text/plain\r\n\r\n")
        facts = (self.made_in, os.getpid(), os.getppid(), self.served, self.file.closed)
        output.write(" ".join(map(str, facts)).encode())

    def exit(self, env, bodysize, input, output):
        output.write(b"Content-Type: text/plain\r\n\r\nlast words")
        sys.exit()

    def raises(self, env, bodysize, input, output):
        raise RuntimeError("raised on purpose")

    def breaks_off(self, env, bodysize, input, output):
        output.write(b"Content-Type: text/plain\r\n\r\n")
        output.write(b"a" * 100_000)
        raise RuntimeError("raised on purpose")

    def found(self, env, bodysize, input, output):
        output.write(b"Status: 404 Nobody Home\r\nContent-Type: text/plain\r\n\r\nno")

    def nothing(self, env, bodysize, input, output):
        pass


scgi.scgi_server.SCGIServer(handler_class=Application, port=int(sys.argv[1])).serve()
