"""The clock takes orders: ?pizza=hawaii&drink=beer. Without them it raises; the client gets a 500.

python examples/pizza.py [PORT]
"""

import sys
import time

import scgi.scgi_server


class Pizzeria(scgi.scgi_server.SCGIHandler):
    def produce(self, env, bodysize, input, output):
        order = dict(item.split("=") for item in env["QUERY_STRING"].split("&"))
        output.write("Content-Type: text/plain\r\n\r\n")
        output.write(time.ctime() + "\n")
        output.write("One {pizza} and one {drink}, coming up.\n".format(**order))


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    scgi.scgi_server.SCGIServer(handler_class=Pizzeria, port=port).serve()
