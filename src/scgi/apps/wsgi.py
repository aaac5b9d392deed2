"""WSGI applications: PEP 3333 (https://peps.python.org/pep-3333/), whole.

The common answer, a list of one block, goes out as one `writev` of head and body. Everything else goes through
`Answer`, block by block as the application yields.

Imports `net`, `status`, `protocol`, `errors` and its neighbours.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO

from scgi.apps.answer import Answer, Outcome
from scgi.apps.paths import split
from scgi.errors import MisuseError
from scgi.net.stream import Patience, send_all
from scgi.protocol.response import error_page
from scgi.status.scoreboard import Slot

log = logging.getLogger("scgi.request")

WsgiApplication = Callable[..., Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class FileWrapper:
    """`wsgi.file_wrapper`: a file-like object to send; a real file goes out through `os.sendfile`."""

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        while block := self.filelike.read(self.block_size):
            yield block

    def span(self) -> tuple[int, int, int] | None:
        """(descriptor, offset, bytes) of what is left of a regular file; None for anything else."""
        try:
            descriptor = self.filelike.fileno()
            facts = os.fstat(descriptor)
            offset = self.filelike.tell()
        except (AttributeError, OSError, ValueError):
            return None
        if not stat.S_ISREG(facts.st_mode) or not isinstance(offset, int):
            return None
        return descriptor, offset, max(0, facts.st_size - offset)


class WsgiAdapter:
    """Runs one WSGI application; `mount` is the path it is mounted at, None to take the web server's word."""

    def __init__(
        self,
        application: WsgiApplication,
        *,
        mount: str | None = None,
        multithread: bool = False,
        multiprocess: bool = True,
        patience: Patience | None = None,
    ) -> None:
        self.application = application
        self.mount = mount
        self.patience = patience or Patience()
        self._constant: dict[str, Any] = {
            "wsgi.version": (1, 0),
            "wsgi.errors": ErrorStream(),
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "wsgi.url_scheme": "http",
        }

    def __call__(self, slot: Slot, fd: int, variables: dict[str, Any], length: int, body: BinaryIO) -> Outcome:
        method = variables.get("REQUEST_METHOD")
        if not method:
            return self._refuse(slot, fd, "the variable REQUEST_METHOD is missing")
        if "SERVER_PORT" not in variables or "SERVER_NAME" not in variables:
            variables.setdefault("SERVER_NAME", "localhost")
            variables.setdefault("SERVER_PORT", "80")
        split(variables, self.mount)
        variables.update(self._constant)
        variables["wsgi.input"] = body
        if variables.get("HTTPS", "off") not in ("off", "", "0") or variables.get("REQUEST_SCHEME") == "https":
            variables["wsgi.url_scheme"] = "https"

        answer = Answer(slot, fd, method == "HEAD", self.patience)
        result: Any = None
        try:
            result = self.application(variables, StartResponse(answer))
            if type(result) is list and len(result) == 1 and type(block := result[0]) is bytes:
                answer.set_length(len(block))
                answer.write(block)
            elif type(result) is FileWrapper and (span := result.span()) is not None and answer.started:
                answer.write_file(*span)
            else:
                self._send_blocks(answer, result)
            outcome = answer.finish()
        except BaseException as error:
            outcome = answer.fail(error)
        finally:
            if type(result) is not list:
                self._close(slot, result)
        return outcome

    def _send_blocks(self, answer: Answer, result: Any) -> None:
        for block in result:
            if not isinstance(block, (bytes, bytearray, memoryview)):
                raise MisuseError(
                    f"the application's iterable must give bytes, found {type(block).__name__}", code="not-bytes"
                )
            answer.write(block)
            if answer.bodiless and answer.begun:
                break  # HEAD, 204, 304: the head is out, nothing else will follow

    def _close(self, slot: Slot, result: Any) -> None:
        """PEP 3333: `close()` is called whatever happened, once the response is out or given up."""
        try:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        except BaseException:
            log.exception("close() of the application's iterable raised")

    def _refuse(self, slot: Slot, fd: int, sentence: str) -> Outcome:
        slot.status = 400
        log.warning("refused with 400: %s", sentence)
        send_all(fd, [error_page(400, sentence)], self.patience.send)
        return Outcome.WHOLE


class StartResponse:
    """The `start_response` callable of one request; also remembers whether the head may still be replaced."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        answer = self._answer
        if answer.started:
            if exc_info is None:
                raise MisuseError("start_response was called twice without exc_info", code="started-twice")
            if answer.begun:
                try:
                    raise exc_info[1].with_traceback(exc_info[2])
                finally:
                    exc_info = None
        answer.start(status, headers)
        return answer.write


class ErrorStream:
    """`wsgi.errors`: text lines that become log records, so that they carry the request's id and cannot forge any."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                log.error("%s", line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing is held back."""
        sys.stderr.flush()
