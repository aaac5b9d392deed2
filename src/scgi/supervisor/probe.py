"""The probe: before a generation serves, its application answers one request that the server makes itself.

The request goes over a socket pair to a process that is forked for it, so that nothing it does stays behind.
Imports `workers`, `net`, `status`, `protocol`.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import time

from scgi.errors import MalformedResponse, ScgiError
from scgi.protocol.request import build_head, parse_head
from scgi.protocol.response import parse_head as parse_response
from scgi.status.scoreboard import Scoreboard, Slot
from scgi.supervisor.child import describe_end, fork
from scgi.workers.blocking import WorkerPlan


class ProbeFailed(ScgiError):
    """The application did not answer, or with a status of 500 or more."""


def ask(plan: WorkerPlan, target: str, timeout: float) -> None:
    """Request `target`, a path with its query perhaps. Raises `ProbeFailed`."""
    ours, theirs = socket.socketpair()
    out, into = os.pipe()
    try:
        pid = fork(lambda: _answer(plan, theirs, target, out), (ours.fileno(), into), out)
    except OSError as error:
        raise ProbeFailed(f"the probe {target} could not be made: cannot fork: {error.strerror}") from None
    finally:
        theirs.close()
        os.close(out)
    try:
        with ours:
            head = _read(ours, time.monotonic() + timeout)
            response = parse_response(head)
    except MalformedResponse as error:
        raise ProbeFailed(f"the probe {target} was answered with what is no response: {error}") from None
    finally:
        os.close(into)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    if response is None:
        ended = f" (it {describe_end(status)})" if status not in (0, signal.SIGKILL) else ""
        raise ProbeFailed(f"the probe {target} was not answered{ended}; the log may say why")
    if response.status >= 500:
        raise ProbeFailed(f"the probe {target} was answered with {response.status} {response.reason}; see the log")


def _answer(plan: WorkerPlan, sock: socket.socket, target: str, lifeline: int) -> int:
    """In the child: the request, as a web server on this machine would send it."""
    path, _, query = target.partition("?")
    variables = {
        "REQUEST_METHOD": "GET", "REQUEST_URI": target, "DOCUMENT_URI": path, "SCRIPT_NAME": "", "PATH_INFO": path,
        "QUERY_STRING": query, "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "localhost", "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "0", "HTTP_HOST": "localhost", "HTTP_USER_AGENT": "scgi-probe",
    }  # fmt: skip
    head = parse_head(build_head(variables.items(), 0))
    assert head is not None
    slot = Slot(Scoreboard(1), 0)
    slot.variables = {**plan.base, **head.variables}
    plan.make_adapter(lifeline)(slot, sock.fileno(), slot.variables, 0, io.BytesIO())
    return 0


def _read(sock: socket.socket, deadline: float) -> bytes:
    """What came until the head was whole; the rest is of no interest."""
    data = b""
    with contextlib.suppress(OSError):
        while parse_response(data) is None:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            if not (more := sock.recv(65536)):
                break
            data += more
    return data
