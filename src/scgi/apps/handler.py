"""The reference API: `SCGIHandler`, whose subclasses override one of its methods, and the adapter that runs them.

Programs written for any version of the reference `scgi` package run unchanged. What differs is on purpose:
`output` takes str and bytes and is judged as a CGI response before it goes out, `input` ends where the body ends,
and the environment of `produce_cgilike()` is the process's real one for as long as the request lasts.

Imports `net`, `status`, `protocol`, `errors` and its neighbours.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from scgi.apps.answer import Answer, Outcome
from scgi.apps.connection import Connection
from scgi.errors import MalformedResponse, MisuseError
from scgi.net.stream import Buffer, Patience
from scgi.protocol.netstring import ns_reads
from scgi.protocol.request import build_head, parse_block
from scgi.protocol.response import parse_head
from scgi.status.scoreboard import Slot

OUTPUT_BUFFER = 65536  # bytes held back, so that an early exception is still a clean 500


def read_env(input: Any) -> dict[str, str]:
    """Read a request's variables from `input`, a binary or Latin-1 text file; leaves it at the body.

    Raises `MalformedRequest` (a ValueError) or `TruncatedRequest` (an OSError).
    """
    return parse_block(ns_reads(input), require_scgi=False)[0]


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
        """Answer one request on `conn`, a socket; closes it. Older programs override this one."""
        input = conn.makefile("rb")
        output = conn.makefile("wb")
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
        if name not in _NEVER and not name.startswith(_NEVER_PREFIXES) and "\0" not in value
    }


@contextmanager
def cgi_process(env: Mapping[str, str], input: Any, output: Any) -> Iterator[None]:
    """For one request this process looks like a CGI program's; afterwards, come what may, as it was."""
    stdin, stdout, before = sys.stdin, sys.stdout, dict(os.environ)
    text_in = io.TextIOWrapper(input, "utf-8", "surrogateescape", newline="\n")
    text_out = io.TextIOWrapper(output, "utf-8", "surrogateescape", newline="\n", write_through=True)
    try:
        for name, value in cgi_variables(env).items():
            os.environ[name] = os.fsdecode(value.encode("latin-1"))
        sys.stdin, sys.stdout = text_in, text_out
        yield
    finally:
        sys.stdin, sys.stdout = stdin, stdout
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        for text in (text_in, text_out):
            with suppress(ValueError):  # the program has closed it
                text.detach()


class Output(io.BufferedIOBase):
    """What a handler writes its response to: headers, a blank line, the page; str (as UTF-8) and bytes.

    The head is parsed as a CGI response and goes out as a judged one. 64 KiB are held back; `flush` sends at once.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: str | Buffer) -> int:  # type: ignore[override]
        if self.closed:
            raise ValueError("write to a response that is closed")
        self._held += data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        if len(self._held) > OUTPUT_BUFFER:
            self._push()
        return len(data)

    def writelines(self, lines: Iterable[str | Buffer]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what is here, once the head is complete."""
        if not self.closed and self._held:
            self._push()
            if self._answer.started:
                self._answer.flush_head()

    def _push(self) -> None:
        if not self._answer.started and not self._start():
            return
        held, self._held = self._held, bytearray()
        self._answer.write(held)

    def _start(self) -> bool:
        head = parse_head(bytes(self._held[: OUTPUT_BUFFER + 8]), OUTPUT_BUFFER)
        if head is None:
            return False
        self._answer.start(f"{head.status} {head.reason}", head.headers)
        del self._held[: head.end]
        return True

    def finish(self) -> Outcome:
        """Send the rest. Raises `MisuseError` or `MalformedResponse` for what is no CGI response."""
        answer = self._answer
        if not answer.started:
            if not self._held:
                raise MisuseError("the handler ended without writing a response", code="no-response")
            if not self._start():
                raise MalformedResponse(
                    f"the handler's output has no blank line after its headers: {bytes(self._held[:80])!r}",
                    code="no-head",
                )
            answer.set_length(len(self._held))
        self._push()
        return answer.finish()


class HandlerAdapter:
    """Runs one handler object; made in the child, after the fork."""

    def __init__(self, handler: SCGIHandler, patience: Patience | None = None) -> None:
        self.handler = handler
        self.patience = patience or Patience()
        kind = type(handler)
        self._whole_connection = (
            kind.handle_connection is not SCGIHandler.handle_connection or kind.read_env is not SCGIHandler.read_env
        )

    def __call__(self, slot: Slot, fd: int, variables: dict[str, str], length: int, body: BinaryIO) -> Outcome:
        answer = Answer(slot, fd, variables.get("REQUEST_METHOD") == "HEAD", self.patience)
        if self._whole_connection:
            return self._lend_connection(answer, variables, length, body)
        output = Output(answer)
        leaving = False
        try:
            try:
                self.handler.produce(variables, length, body, output)
            except SystemExit:  # "bail out": answer, then let this child be replaced
                leaving = True
            outcome = output.finish()
        except MalformedResponse as error:
            outcome = answer.fail(MisuseError(str(error), code=error.code))
        except BaseException as error:
            outcome = answer.fail(error)
        return Outcome.LEAVE if leaving and outcome is Outcome.WHOLE else outcome

    def _lend_connection(self, answer: Answer, variables: dict[str, str], length: int, body: BinaryIO) -> Outcome:
        """For programs that override `handle_connection`: the request, judged and clean, on a socket of its own."""
        head = build_head([item for item in variables.items() if item[0] not in ("CONTENT_LENGTH", "SCGI")], length)
        connection = Connection(answer.fd, head, body)
        outcome = Outcome.WHOLE
        try:
            self.handler.handle_connection(connection)
        except SystemExit:
            outcome = Outcome.LEAVE
        except BaseException as error:
            answer.begun = connection.begun or connection.finished
            outcome = answer.fail(error)
        finally:
            connection.give_back(whole=outcome is not Outcome.BROKEN)
        return outcome
