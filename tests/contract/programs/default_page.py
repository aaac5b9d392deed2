"""The test page: a handler that overrides nothing."""

import sys

from scgi.scgi_server import SCGIServer

SCGIServer(port=int(sys.argv[1])).serve()
