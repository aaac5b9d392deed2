"""Names that the reference API keeps here: netstrings, the parser, the handler, a line to standard error.

Nothing inside imports this file.
"""

from __future__ import annotations

import sys
import time

from scgi.apps.handler import SCGIHandler, parse_env, read_env
from scgi.protocol.netstring import ns_read_size, ns_reads

__all__ = ["SCGIHandler", "log", "ns_read_size", "ns_reads", "parse_env", "read_env"]


def log(msg: str) -> None:
    """Write a line with the time to standard error, as the reference does."""
    sys.stderr.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {msg}\n")
