# cgilike.py
import os
import sys

from trac.web.cgi_frontend import CGIGateway
from trac.web.main import dispatch_request

from scgi.scgi_server import SCGIHandler

os.environ["TRAC_ENV"] = os.path.abspath("project")


class Trac(SCGIHandler):
    def produce_cgilike(self, env, bodysize):
        gateway = CGIGateway()
        gateway.environ["wsgi.input"] = sys.stdin.buffer
        gateway.environ.update(env)
        gateway.run(dispatch_request)
