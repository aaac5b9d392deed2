"""The other end of the control socket: give a server an order, hear its answers, see it end.

Imports `errors`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from scgi.errors import ScgiError

_CONNECT: Final = 5.0  # seconds
_PAUSE: Final = 0.02  # seconds between tries while its queue is full
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid


def ask(path: Path, order: str, timeout: float | None = None, **arguments: Any) -> Iterator[dict[str, Any]]:
    """Give an order; the messages of the answer as they come, until the server closes. After "stop" it has ended then.

    `timeout`: how long it may be silent. Raises `ScgiError` with a sentence where it does not answer, or refuses.
    """
    with _connect(path) as server, _process_of(server) as process:
        server.settimeout(timeout)
        with contextlib.suppress(BrokenPipeError):  # it may have refused us already, and says why
            server.sendall(json.dumps({**arguments, "order": order}).encode() + b"\n")
        yield from _messages(server, path)
        if order == "stop" and process is not None:
            select.select([process], [], [])


def _connect(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.settimeout(_CONNECT)
    deadline = time.monotonic() + _CONNECT
    while True:
        try:
            server.connect(os.fspath(path))
            return server
        except BlockingIOError:  # its queue is full
            if time.monotonic() < deadline:
                time.sleep(_PAUSE)
                continue
            reason = f"the server at {path} does not answer"
        except (FileNotFoundError, ConnectionRefusedError):
            reason = f"no server listens at {path}"
        except PermissionError:
            reason = f"{path}: only root and the user who runs the server may give it orders"
        except OSError as error:
            reason = f"cannot connect to {path}: {error.strerror or error}"
        server.close()
        raise ScgiError(reason)


def _messages(server: socket.socket, path: Path) -> Iterator[dict[str, Any]]:
    with server.makefile("rb") as lines:
        while line := _next_line(lines, path):
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                raise ScgiError(f"what listens at {path} is no SCGI server's control socket: it said {line[:80]!r}")
            if "refused" in message:
                raise ScgiError(f"the server refused: {message['refused']}")
            yield message


def _next_line(lines: Any, path: Path) -> bytes:
    try:
        line: bytes = lines.readline()
    except TimeoutError:
        raise ScgiError(f"the server at {path} stopped answering") from None
    except ConnectionResetError:
        return b""
    if line and not line.endswith(b"\n"):
        raise ScgiError(f"the server at {path} ended in the middle of its answer")
    return line


@contextlib.contextmanager
def _process_of(server: socket.socket) -> Iterator[int | None]:
    """A descriptor that turns readable when the server's process ends; None where the system has none to give."""
    process = None
    # Not on another system, with an old kernel, or where the process is of another container.
    with contextlib.suppress(AttributeError, OSError):
        credentials = server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        process = os.pidfd_open(_CREDENTIALS.unpack(credentials)[0])
    try:
        yield process
    finally:
        if process is not None:
            os.close(process)
