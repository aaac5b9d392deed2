"""CGI programs in any language: RFC 3875 (https://www.rfc-editor.org/rfc/rfc3875), one process for each request.

The program gets the request's meta-variables, PATH, and what `--env` adds; its standard input is exactly the body, its
standard error goes to the log. Its answer is held back until it pauses or ends, so that a short one goes out in one
piece with its length. Whatever it does, the client is told the truth: 502 for no answer or a malformed one, 504 for one
that came too late; a program that outlives its time or its client is ended with all that it has started.

Imports `net`, `protocol`, `status`, `errors` and its neighbours.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import posixpath
import re
import socket
from collections.abc import Mapping
from typing import Any, BinaryIO, Final
from urllib.parse import unquote_to_bytes

from scgi.apps.answer import Answer, Outcome, request_line
from scgi.apps.cgi_process import CgiProcess, Feed
from scgi.apps.cgi_site import NoProgram, Program, Site
from scgi.apps.handler import cgi_variables
from scgi.apps.paths import split
from scgi.errors import ProtocolError, RequestTimeout
from scgi.net.stream import Patience
from scgi.protocol.response import ResponseHead, parse_head
from scgi.status.scoreboard import Slot

log = logging.getLogger("scgi.cgi")

_HELD: Final = 65536  # bytes of an answer that are held back at most
_REDIRECTS: Final = 10  # local ones for one request
_USUAL_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_STATUS_LINE: Final = re.compile(rb"\A(?:HTTP/|(?:.*\n)*?[Ss][Tt][Aa][Tt][Uu][Ss]:)")
_NO_ROOM: Final = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class CgiAdapter:
    """Runs the programs of one site. `mount` is the path they are mounted at, None to take the web server's word;
    `timeout` the seconds that one may take without a sign of life, 0 for ever; `environ` what all of them get."""

    def __init__(
        self,
        site: Site,
        environ: Mapping[str, str],
        *,
        mount: str | None = None,
        timeout: float = 0.0,
        patience: Patience | None = None,
    ) -> None:
        self.site = site
        self.mount = mount
        self.timeout = timeout
        self.patience = patience or Patience()
        given = {"PATH": os.environ.get("PATH") or _USUAL_PATH, **environ}
        self.environ = {os.fsencode(name): os.fsencode(value) for name, value in given.items()}
        self.nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def answer(self, slot: Slot, fd: int, variables: dict[str, str], length: int, body: BinaryIO) -> Outcome:
        method = variables.get("REQUEST_METHOD", "")
        answer = Answer(slot, fd, method == "HEAD", self.patience)
        if not method:
            log.warning("refused with 400: the variable REQUEST_METHOD is missing")
            return answer.refuse(400, "The variable REQUEST_METHOD is missing.")
        environ = dict(variables)
        split(environ, self.mount)
        mounted = environ["SCRIPT_NAME"]
        try:
            for _ in range(_REDIRECTS + 1):
                program = self.site.find(environ["SCRIPT_NAME"], environ["PATH_INFO"])
                exchange = _Exchange(self, slot, fd, answer, program)
                outcome = exchange.run(environ, length, body)
                if outcome is not None:
                    return outcome
                environ, length, target = _redirected(environ, exchange.target, mounted), 0, exchange.target
                if not environ:  # it leads elsewhere than to our programs: the client is to ask for it
                    answer.start("302 Found", [("Location", target)], 0)
                    return answer.finish()
            log.error("local redirects lead to further ones without end, at last to %s", target)
            return answer.refuse(502, f"Request {slot.request_id()}")
        except NoProgram as refusal:
            log.warning("refused with %d: %s", refusal.status, refusal)
            return answer.refuse(refusal.status, f"Request {slot.request_id()}")
        except BaseException as error:
            return answer.fail(error)


class _Exchange:
    """One program answers one request."""

    def __init__(self, adapter: CgiAdapter, slot: Slot, fd: int, answer: Answer, program: Program) -> None:
        self.adapter = adapter
        self.slot = slot
        self.fd = fd
        self.answer = answer
        self.program = program
        self.target = ""  # of a local redirect
        self._held = bytearray()
        self._wrong = ""  # what is, with the head
        self._has_length = False

    def run(self, variables: dict[str, str], length: int, body: Any) -> Outcome | None:
        """The outcome; None for a redirect to `target`."""
        stdin, feed = self._input(length, body)
        program = self.program
        environ = {**meta_variables(variables, program, self.adapter.site, length), **self.adapter.environ}
        try:
            process = CgiProcess(program.path, program.folder, arguments(variables), environ, stdin)
        except OSError as error:
            status = 503 if error.errno in _NO_ROOM else 500
            log.error("cannot run %s: %s%s", program.path, error.strerror, _hint(error))
            return self.answer.refuse(status, f"Request {self.slot.request_id()}")
        try:
            return self._converse(process, feed)
        except (RequestTimeout, ProtocolError, ChildProcessError) as error:
            raise error.with_traceback(None) from None  # it would only show our own lines
        finally:
            if process.status is None:
                process.end()
            process.close()

    def _input(self, length: int, body: Any) -> tuple[int | None, Feed | None]:
        """Standard input: a descriptor, or None for what the feed brings. Raises `TruncatedBody`."""
        if not length:
            return self.adapter.nothing, None
        raw = getattr(body, "raw", None)
        if raw is None:
            return None, Feed(body.getbuffer())
        if (file := raw.as_file()) >= 0:
            return file, None
        os.set_blocking(self.fd, False)  # a client may send all of it before it reads: then the answer waits in a file
        begun = raw.take_begun()
        return None, Feed(begun, body, length - len(begun))

    def _converse(self, process: CgiProcess, feed: Feed | None) -> Outcome | None:
        answer = self.answer
        for block in process.output(feed, self.fd, self.adapter.timeout):
            if block:
                self.slot.note_step()
                self._take(process, block)
            elif answer.started:  # it pauses, or will write no more
                if block is None and not answer.begun:
                    answer.set_length(len(self._held))
                self._push()
                answer.flush_head()
                if block is None and not answer.waiting:
                    _end_our_side(self.fd)  # it is busy with something else; the client need not wait for that
        if self.target:
            return None
        ending = process.ending()
        if not answer.started:
            return self._refuse(ending or "exit status 0")
        if ending:
            log.warning("%s ended with %s, while answering %s", self.program.path, ending, request_line(self.slot))
        if process.was_killed and not self._has_length:  # nobody knows whether that was all
            if not answer.begun:
                return answer.refuse(502, f"Request {self.slot.request_id()}")
            self._push()
            raise ChildProcessError(f"{self.program.path} was killed within its answer")
        if not answer.begun:
            return answer.send_whole(bytes(self._held))
        self._push()
        return answer.finish()

    def _take(self, process: CgiProcess, block: bytes) -> None:
        if self.target or self._wrong:
            return
        self._held += block
        if not self.answer.started:
            try:
                self._start()
            except ProtocolError as error:
                self._wrong = str(error)
                process.end()
                return
        if self.answer.begun or (self.answer.started and len(self._held) >= _HELD):
            self._push()

    def _start(self) -> None:
        """Find the head in what was written, if it is complete. Raises `ProtocolError` if it is none."""
        head = parse_head(bytes(self._held))
        if head is None:
            return
        self.target = _local_target(head, bytes(self._held[: head.end]))
        if not self.target:
            self.answer.start(f"{head.status} {head.reason}", head.headers)
            self._has_length = head.get("content-length") is not None
            del self._held[: head.end]

    def _push(self) -> None:
        if self._held:
            held, self._held = self._held, bytearray()
            self.answer.write(held)

    def _refuse(self, ending: str) -> Outcome:
        """There is no head."""
        if self._wrong:
            why = f"no proper head: {self._wrong}"
        elif self._held:
            why = f"no blank line after its headers ({ending}): {bytes(self._held[:80])!r}"
        else:
            why = f"no answer ({ending})"
        log.error("%s wrote %s", self.program.path, why)
        return self.answer.refuse(502, f"Request {self.slot.request_id()}")


def _end_our_side(fd: int) -> None:
    sock = socket.socket(fileno=fd)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    sock.detach()


def meta_variables(variables: Mapping[str, str], program: Program, site: Site, length: int) -> dict[bytes, bytes]:
    """What RFC 3875 (4.1) has a program find in its environment."""
    found = cgi_variables(variables)
    for name in ("SCGI", "CONTENT_LENGTH", "PATH_TRANSLATED", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE"):
        found.pop(name, None)
    for name in ("CONTENT_TYPE", "REMOTE_USER", "AUTH_TYPE", "REMOTE_IDENT", "REMOTE_HOST", "PATH_INFO"):
        if not found.get(name, "x"):
            del found[name]  # not there and empty are two things to many programs
    if length:
        found["CONTENT_LENGTH"] = str(length)
    https = found.get("REQUEST_SCHEME") == "https" or found.get("HTTPS", "") not in ("off", "", "0")
    found["GATEWAY_INTERFACE"] = "CGI/1.1"
    found["SCRIPT_NAME"] = program.script_name
    found["SCRIPT_FILENAME"] = os.fsencode(program.path).decode("latin-1")
    found["QUERY_STRING"] = found.get("QUERY_STRING", "")
    found["SERVER_NAME"] = found.get("SERVER_NAME") or "localhost"
    found["SERVER_PORT"] = found.get("SERVER_PORT") or ("443" if https else "80")
    found["SERVER_PROTOCOL"] = found.get("SERVER_PROTOCOL") or "HTTP/1.0"
    found["SERVER_SOFTWARE"] = found.get("SERVER_SOFTWARE") or "scgi"
    if program.path_info:
        root = found.get("DOCUMENT_ROOT") or (site.place if site.is_folder else program.folder)
        found["PATH_INFO"] = program.path_info
        found["PATH_TRANSLATED"] = root.rstrip("/") + posixpath.normpath("/" + program.path_info.lstrip("/"))
    else:
        found.pop("PATH_INFO", None)
    return {name.encode("latin-1"): value.encode("latin-1") for name, value in found.items()}


def arguments(variables: Mapping[str, str]) -> list[bytes]:
    """Those of an "indexed" query, one without a "=" (RFC 3875, 4.4)."""
    query = variables.get("QUERY_STRING", "")
    if not query or "=" in query or variables.get("REQUEST_METHOD") not in ("GET", "HEAD"):
        return []
    found = [unquote_to_bytes(word.encode("latin-1")) for word in query.split("+")]
    return [] if any(b"\0" in word for word in found) else found


def _local_target(head: ResponseHead, text: bytes) -> str:
    """The path of a local redirect (RFC 3875, 6.2.2): a Location that is one, and no status."""
    location = head.get("location") or ""
    if location[:1] != "/" or location[1:2] == "/" or _STATUS_LINE.match(text):
        return ""
    return location


def _redirected(environ: dict[str, str], target: str, mounted: str) -> dict[str, str]:
    """The request that a local redirect stands for; {} if it leads elsewhere than to our programs."""
    path, _, query = target.partition("#")[0].partition("?")
    decoded = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")
    if decoded != mounted and not decoded.startswith(mounted + "/"):
        return {}
    found = {name: value for name, value in environ.items() if name not in ("CONTENT_TYPE", "CONTENT_LENGTH")}
    found |= {
        "SCRIPT_NAME": mounted,
        "PATH_INFO": decoded[len(mounted) :],
        "QUERY_STRING": query,
        "REQUEST_URI": target,
    }
    found |= {"REDIRECT_STATUS": "200", "REDIRECT_URL": environ["SCRIPT_NAME"] + environ["PATH_INFO"]}
    if environ["REQUEST_METHOD"] != "HEAD":
        found["REQUEST_METHOD"] = "GET"
    return found


def _hint(error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        return ": its first line should name its interpreter, as in #!/bin/sh"
    if error.errno == errno.ENOENT:
        return ": look at the interpreter that its first line names"
    return ""
