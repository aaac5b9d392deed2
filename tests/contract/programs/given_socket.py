"""`serve_on_socket`: the program binds by itself."""

import socket
import sys

from scgi.scgi_server import SCGIHandler, SCGIServer


class Hello(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        output.write(b"Content-Type: text/plain\r\n\r\nhello")


sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("127.0.0.1", int(sys.argv[1])))
SCGIServer(handler_class=Hello).serve_on_socket(sock)
