"""The reference API: `SCGIHandler`, whose subclasses override one of its methods, and the adapter that runs them.

Programs written for any version of the reference `scgi` package run unchanged. What differs is on purpose:
`output` takes str and bytes and is judged as a CGI response before it goes out, `input` ends where the body ends,
and the environment of `produce_cgilike()` is the process's real one for as long as the request lasts. The whole list
is in docs/explanation/reference-differences.md.

Imports `net`, `status`, `protocol`, `errors` and its neighbours.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from scgi.apps.answer import Answer, Outcome, log, request_line
from scgi.apps.connection import Connection
from scgi.apps.output import Output
from scgi.errors import MalformedRequest, MisuseError, ProtocolError
from scgi.net.stream import Patience
from scgi.protocol.netstring import ns_reads
from scgi.protocol.request import build_head
from scgi.status.scoreboard import Slot


def parse_env(headers: bytes) -> dict[str, str]:
    """Names and values, each ended by a NUL, as Latin-1 text. Raises `MalformedRequest` (a ValueError).

    Only the form is judged: what a request may hold, the server has judged before a handler sees it.
    """
    items = headers.decode("latin-1").split("\0")
    if items.pop() or len(items) % 2:
        raise MalformedRequest("malformed headers: expected pairs of name and value, each ended by NUL")
    return dict(zip(items[::2], items[1::2], strict=True))


def read_env(input: Any) -> dict[str, str]:
    """Read a request's variables from `input`, a binary or Latin-1 text file; leaves it at the body.

    Raises `MalformedRequest` (a ValueError) or `TruncatedRequest` (an OSError).
    """
    return parse_env(ns_reads(input))


class SCGIHandler:
    """Derive from this and override `produce` (or `produce_cgilike`, or `handle_connection`).

    One object is made per child process, after the fork: connect to databases in `__init__`.
    """

    def __init__(self, parent_fd: int) -> None:
        """`parent_fd`: a descriptor that reaches end of file when the server is gone. Nothing need be done with it."""
        self.parent_fd = parent_fd

    def serve(self) -> None:
        """The reference's own loop; here the server's workers run the loop."""
        raise MisuseError(
            "SCGIHandler.serve() cannot be called or replaced: the server's workers accept requests themselves. "
            "Override handle_connection() or produce() instead.",
            code="handler-serve",
        )

    def read_env(self, input: Any) -> dict[str, str]:
        """Read the request's variables from `input`, a binary or Latin-1 text file; leaves it at the body."""
        return read_env(input)

    def handle_connection(self, conn: Any) -> None:
        """Answer one request on `conn`, a socket that holds just this request. Older programs override this one."""
        input = conn.makefile("rb")
        output = conn.response if isinstance(conn, Connection) else conn.makefile("wb")
        env = self.read_env(input)
        bodysize = int(env.get("CONTENT_LENGTH") or 0)
        try:
            self.produce(env, bodysize, input, output)
        finally:
            output.close()
            input.close()

    def produce(self, env: dict[str, str], bodysize: int, input: Any, output: Any) -> None:
        """Answer one request: the method to override.

        `env` maps CGI variables to text, `bodysize` is the body's length in bytes, `input` a binary file that ends
        after so many, `output` a file that takes str (sent as UTF-8) and bytes: first headers, a blank line, the page.
        Without an override, `produce_cgilike` is called with the process dressed up as a CGI program.
        """
        with cgi_process(env, input, output):
            self.produce_cgilike(env, bodysize)

    def produce_cgilike(self, env: dict[str, str], bodysize: int) -> None:
        """Answer one request as a CGI program does: environment, standard input, standard output.

        Without an override: a text page of the request's variables, one `NAME: 'value'` a line.
        """
        print("Content-Type: text/plain; charset=utf-8")
        print()
        for name, value in env.items():
            print(f"{name}: {value!r}")


# What would change how this process or its children run, PATH and the like: never from a request.
_NEVER = frozenset("PATH IFS ENV BASH_ENV SHELLOPTS BASHOPTS CDPATH GLOBIGNORE PS4 HOME SHELL TMPDIR".split())
_NEVER_PREFIXES = tuple("LD_ DYLD_ PYTHON PERL5 RUBY NODE_ BASH_FUNC GCONV_ MALLOC_ GLIBC_ SCGI_".split())


def cgi_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Those of a request's variables that may enter a process environment."""
    return {
        name: value
        for name, value in env.items()
        if name not in _NEVER
        and not name.startswith(_NEVER_PREFIXES)
        and not name.lower().endswith("_proxy")  # http_proxy and such: where programs send their own requests
        and "\0" not in value
    }


def _in_environment(value: str) -> str:
    """The bytes that the web server sent, as `os.environ` spells them; text that a `read_env` made stays text."""
    try:
        return os.fsdecode(value.encode("latin-1"))
    except UnicodeEncodeError:
        return value


class _Lent(io.TextIOWrapper):
    """A text stream over a file that is somebody else's: it is given back as it is, neither flushed nor closed."""

    lent = True

    def flush(self) -> None:
        if self.lent:
            super().flush()

    def give_back(self) -> None:
        self.lent = False
        with suppress(ValueError):  # the program has closed it
            self.detach()


_process_in_use = threading.Lock()


@contextmanager
def cgi_process(env: Mapping[str, str], input: Any, output: Any) -> Iterator[None]:
    """For one request this process looks like a CGI program's; afterwards, come what may, as it was."""
    if not _process_in_use.acquire(blocking=False):
        raise MisuseError(
            "produce_cgilike() changes the whole process and serves another request now: "
            "it cannot be used together with threads",
            code="cgilike-threads",
        )
    stdin, stdout, environ, before = sys.stdin, sys.stdout, os.environ, dict(os.environ)
    text_in = _Lent(input, "utf-8", "surrogateescape", newline="\n")
    text_out = _Lent(output, "utf-8", "surrogateescape", newline="\n", write_through=True)
    try:
        for name, value in cgi_variables(env).items():
            os.environ[name] = _in_environment(value)
        sys.stdin, sys.stdout = text_in, text_out
        yield
    finally:
        sys.stdin, sys.stdout, os.environ = stdin, stdout, environ
        for name in environ.keys() - before.keys():
            del environ[name]
        for name, value in before.items():
            if environ.get(name) != value:
                environ[name] = value
        text_in.give_back()
        text_out.give_back()
        _process_in_use.release()


class HandlerAdapter:
    """Runs one handler object; made in the child, after the fork."""

    def __init__(self, handler: SCGIHandler, patience: Patience | None = None) -> None:
        self.handler = handler
        self.patience = patience or Patience()
        kind = type(handler)
        self._takes_connection = (
            kind.handle_connection is not SCGIHandler.handle_connection or kind.read_env is not SCGIHandler.read_env
        )

    def answer(self, slot: Slot, fd: int, variables: dict[str, str], length: int, body: BinaryIO) -> Outcome:
        answer = Answer(slot, fd, variables.get("REQUEST_METHOD") == "HEAD", self.patience)
        output = Output(answer)
        leaving = False
        try:
            if self._takes_connection:
                self._lend_connection(fd, variables, length, body, output)
            else:
                self.handler.produce(variables, length, body, output)
        except SystemExit as leave:  # "bail out": answer, then let this child be replaced
            if slot.forked:
                raise
            leaving = True
            _log_last_words(slot, leave.code)
        except BaseException as error:
            output.release()
            return answer.fail(error)
        try:
            outcome = output.finish()
        except BaseException as error:
            # What is wrong is what was written; a traceback would only show our own lines.
            outcome = answer.fail(error.with_traceback(None) if isinstance(error, ProtocolError) else error)
        finally:
            output.release()
        return Outcome(outcome | Outcome.LEAVE) if leaving else outcome

    def _lend_connection(self, fd: int, variables: dict[str, str], length: int, body: BinaryIO, output: Output) -> None:
        """For programs that override `handle_connection`: the request, judged and clean, on a socket of its own."""
        head = build_head([item for item in variables.items() if item[0] not in ("CONTENT_LENGTH", "SCGI")], length)
        connection = Connection(fd, head, body, output)
        try:
            self.handler.handle_connection(connection)
        finally:
            connection.give_back()


def _log_last_words(slot: Slot, code: Any) -> None:
    """What `sys.exit` was given, unless it means success: Python would print it, or make it the exit status."""
    if code is not None and not (isinstance(code, int) and code == 0):
        log.warning("the handler called sys.exit(%.500r) while answering %s", code, request_line(slot))
