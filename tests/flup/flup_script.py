import sys

from scgi.flup import WSGIServer


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{environ['greeting']}".encode()]


where = sys.argv[1]
server = WSGIServer(
    app,
    scriptName="/app",
    environ={"greeting": "hello"},
    bindAddress=where if "/" in where else ("localhost", int(where)),
    umask=0o117,
    multithreaded="threads" in sys.argv,
    debug=False,
    minSpare=1,
    maxSpare=2,
    maxRequests=100,
)
sys.exit(4 if server.run() else 3)
