"""WSGI applications: PEP 3333 (https://peps.python.org/pep-3333/), whole.

The common answer, a list of one block, goes out with its head in one piece. Everything else goes through
`Answer`, block by block as the application yields.

Imports `net`, `status`, `protocol`, `errors` and its neighbours.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, BinaryIO

from scgi.apps.answer import Answer, Outcome
from scgi.apps.paths import split
from scgi.errors import MisuseError
from scgi.net.stream import Patience
from scgi.protocol.response import build_head
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
        """(descriptor, offset, bytes) of what is left of a regular file; None for what only `read` can tell.

        Exact types only: a `GzipFile` too has a `fileno()`, that of the compressed file.
        """
        file = self.filelike
        raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file
        if type(raw) is not io.FileIO:
            return None
        try:
            file.flush()
            facts = os.fstat(raw.fileno())
            offset = file.tell()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(facts.st_mode) or offset >= facts.st_size:  # files in /proc have a size of 0
            return None
        return raw.fileno(), offset, facts.st_size - offset


class WsgiAnswer(Answer):
    """An `Answer` as PEP 3333 has it begun and written."""

    __slots__ = ()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """The callable that the application gets; returns the `write` callable."""
        if self._status:
            self._start_again(exc_info)
        self._head, self._status, self._left, bodiless = build_head(status, headers)
        if bodiless:
            self.bodiless = True
        return self.write_block

    def _start_again(self, exc_info: ExcInfo | None) -> None:
        """An error page replaces what was begun, unless that is out: then the error goes on."""
        if exc_info is None:
            raise MisuseError("start_response was called twice without exc_info", code="started-twice")
        if self.begun:
            try:
                raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        self.bodiless = self.head_request

    def write_block(self, block: bytes) -> None:
        """The `write` callable."""
        self.write(block if type(block) is bytes else _as_bytes(block))

    def send(self, result: Any) -> None:
        """Send what the application returned, as it comes."""
        if type(result) is FileWrapper and (span := result.span()) is not None:
            self.set_length(span[2])
            self.write_file(*span)
            return
        if type(result) is list:
            result = [_as_bytes(block) for block in result]
            self.set_length(sum(map(len, result)))
        for block in _blocks(result):
            self.write_block(block)
            if self.bodiless and self.begun:
                break  # HEAD, 204, 304: the head is out, nothing else will follow


def _blocks(result: Any) -> Iterator[bytes]:
    try:
        if not isinstance(result, (bytes, str)):
            return iter(result)
    except TypeError:
        pass
    raise MisuseError(
        f"the application must return an iterable of bytes, such as a list, found {type(result).__name__}",
        code="not-iterable",
    )


def _as_bytes(block: Any) -> bytes:
    if isinstance(block, (bytes, bytearray, memoryview)):
        return bytes(block)
    raise MisuseError(f"the application's blocks must be bytes, found {type(block).__name__}", code="not-bytes")


class WsgiAdapter:
    """Runs one WSGI application; `mount` is the path it is mounted at, None to take the web server's word.

    The variables that it is given are those of `base` and the request's.
    """

    def __init__(
        self,
        application: WsgiApplication,
        *,
        mount: str | None = None,
        multithread: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.application = application
        self.mount = mount
        self.patience = patience or Patience()
        self.errors = ErrorStream()
        self.base: dict[str, Any] = {
            "wsgi.version": (1, 0),
            "wsgi.errors": self.errors,
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": True,  # even of one worker there are two while SIGHUP replaces it
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
            "wsgi.url_scheme": "http",
        }

    def answer(self, slot: Slot, fd: int, variables: dict[str, Any], length: int, body: BinaryIO) -> Outcome:
        try:
            method = variables["REQUEST_METHOD"]
        except KeyError:
            method = ""
        answer = WsgiAnswer(slot, fd, method == "HEAD", self.patience)
        if not method:
            log.warning("refused with 400: the variable REQUEST_METHOD is missing")
            return answer.refuse(400, "The variable REQUEST_METHOD is missing.")
        variables["wsgi.input"] = body
        try:
            path = variables["PATH_INFO"]
            usual = (
                not variables["SCRIPT_NAME"]
                and path[0] == "/"
                and "//" not in path
                and "%" not in path
                and variables["REQUEST_SCHEME"] == "http"
                and "HTTPS" not in variables
                and variables["SERVER_NAME"]
                and variables["SERVER_PORT"]
                and variables["SERVER_PROTOCOL"]
                and "QUERY_STRING" in variables
                and self.mount is None
            )
        except (KeyError, IndexError):
            usual = False
        if not usual:
            split(variables, self.mount)
            _complete(variables)

        try:
            result = self.application(variables, answer.start_response)
            if type(result) is not list:
                outcome = _send_on(answer, result)
            elif len(result) == 1 and type(result[0]) is bytes:
                outcome = answer.send_whole(result[0])
            else:
                answer.send(result)
                outcome = answer.finish()
        except BaseException as error:
            outcome = answer.fail(error)
        if self.errors.begun:
            self.errors.flush()
        return outcome


def _send_on(answer: WsgiAnswer, result: Any) -> Outcome:
    """Send what may come in pieces; PEP 3333 has it closed whatever happens."""
    try:
        answer.send(result)
        return answer.finish()
    except BaseException as error:
        return answer.fail(error)
    finally:
        _close(result)


def _complete(environ: dict[str, Any]) -> None:
    """What PEP 3333 wants to be there, or not to be empty, and minimal clients leave out.

    (nginx sends an empty SERVER_PORT when it listens on a unix socket, lighttpd an empty SERVER_NAME without Host.)
    """
    https = environ.get("REQUEST_SCHEME") == "https" or environ.get("HTTPS", "") not in ("off", "", "0")
    environ["wsgi.url_scheme"] = "https" if https else "http"
    environ.setdefault("QUERY_STRING", "")
    environ["SERVER_NAME"] = environ.get("SERVER_NAME") or "localhost"
    environ["SERVER_PORT"] = environ.get("SERVER_PORT") or ("443" if https else "80")
    environ["SERVER_PROTOCOL"] = environ.get("SERVER_PROTOCOL") or "HTTP/1.0"


def _close(result: Any) -> None:
    """PEP 3333: `close()` is called whatever happened, once the response is out or given up."""
    try:
        close = getattr(result, "close", None)
        if close is not None:
            close()
    except BaseException:
        log.exception("close() of the application's iterable raised")


class ErrorStream:
    """`wsgi.errors`: text lines that become log records, so that they carry the request's id and cannot forge any.

    `print` writes a line in pieces: the pieces of a thread's line are kept until it is whole, or the request ends.
    """

    def __init__(self) -> None:
        self.begun: dict[int, str] = {}  # the line that a thread has begun

    def write(self, text: str) -> int:
        thread = threading.get_ident()
        *lines, rest = (self.begun.pop(thread, "") + text).split("\n")
        if rest:
            self.begun[thread] = rest
        for line in lines:
            if line.strip():
                log.error("%s", line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """End the line that this thread has begun."""
        if line := self.begun.pop(threading.get_ident(), ""):
            log.error("%s", line)
