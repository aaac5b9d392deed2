"""flup's SCGI server of processes, as `scgi serve` and the reference have them. For its own environment: HOST PORT."""

import sys

from flup.server.scgi_fork import WSGIServer
from hello import application

WSGIServer(application, bindAddress=(sys.argv[1], int(sys.argv[2]))).run()
