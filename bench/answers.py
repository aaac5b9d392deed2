"""An application that answers as its path says.

/bytes/65536 is answered with so many bytes, /slow after 50 ms, /import with the time at which this was imported, and
anything else with a greeting.
"""

import time

IMPORTED = b"%20d\n" % time.time_ns()
BODIES = {f"/bytes/{size}": b"x" * (size - 1) + b"\n" for size in (1024, 65536, 1048576)}


def application(environ, start_response):
    path = environ.get("PATH_INFO")
    if path == "/slow":
        time.sleep(0.05)
    body = IMPORTED if path == "/import" else BODIES.get(path, b"Hello, world\n")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
