"""An application that answers at once, or only when the file `gate` is there."""

from __future__ import annotations

import os
import time

GATE = os.environ.get("GATE", "gate")


def application(environ, start_response):
    while environ["PATH_INFO"] == "/wait" and not os.path.exists(GATE):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"version 1\n"]
