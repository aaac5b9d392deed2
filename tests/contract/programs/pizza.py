"""The article's second program, with an argument for its port and bytes for its output."""

import sys
import time

import scgi
import scgi.scgi_server


class TimeHandler(scgi.scgi_server.SCGIHandler):
    def produce(self, env, bodysize, input, output):
        arguments = {}
        for argument in env["QUERY_STRING"].split("&"):
            name, value = argument.split("=")
            arguments[name] = value
        output.write(b"Content-Type: text/plain\r\n\r\n")
        output.write(time.ctime().encode() + b"\n")
        output.write(b"One %s, one %s\n" % (arguments["pizza"].encode(), arguments["drink"].encode()))


server = scgi.scgi_server.SCGIServer(handler_class=TimeHandler, port=int(sys.argv[1]))
server.serve()
