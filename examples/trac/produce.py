# produce.py
import os
import sys

from trac.web.main import dispatch_request
from trac.web.wsgi import WSGIGateway

from scgi.scgi_server import SCGIHandler

os.environ["TRAC_ENV"] = os.path.abspath("project")


class Gateway(WSGIGateway):
    """Writes what Trac answers in the form of a CGI response."""

    wsgi_multithread = False

    def __init__(self, env, input, output):
        WSGIGateway.__init__(self, env, input, sys.stderr)
        self.output = output

    def _write(self, data):
        if not self.headers_sent:
            status, headers = self.headers_sent = self.headers_set
            self.output.write(f"Status: {status}\r\n")
            for name, value in headers:
                self.output.write(f"{name}: {value}\r\n")
            self.output.write("\r\n")
        self.output.write(data)


class Trac(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        Gateway(env, input, output).run(dispatch_request)
