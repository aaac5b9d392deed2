"""The application that `load.py` asks: its answers are known beforehand, but for its version and its process.

Copied, with another version, it is the new code of a reload; see `load.write_application`.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

VERSION = "1"


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Path `/0.002`: it takes two milliseconds. Query `number-length`: so much text is wanted."""
    pause = float(environ["PATH_INFO"].strip("/") or 0)
    if pause:
        time.sleep(pause)
    body = environ["wsgi.input"].read()
    number, _, length = (environ["QUERY_STRING"] or "0-0").partition("-")
    first = f"{VERSION} {os.getpid()} {number} {zlib.crc32(body)} {environ.get('HTTP_COOKIE')}\n"
    text = (first + number * (int(length) // len(number) + 1))[: len(first) + int(length)]
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text.encode()]
