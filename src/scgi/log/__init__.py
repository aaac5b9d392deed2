"""The one place that sets up logging: text or JSON; no line can be forged, no write waits or raises.

Our own lines go through the logger ``scgi``, which gets a handler of its own and cannot be silenced by an
application's ``disable_existing_loggers``. An application's lines, as long as it has not set up logging
itself, go the same way: the handler takes the place of `logging.lastResort`, so the root logger stays
untouched, and `logging.basicConfig` and `dictConfig` of the application do what they always do. One call
differs: a `basicConfig()` that asks for nothing changes nothing; `logging.error` and its like make it.

A line is one write of one descriptor, without a lock: it is safe between threads, after a fork, and in a
signal handler. A pipe that nobody empties costs its lines, never a request's time; they are counted, and how many are
missing is said as soon as there is room again.

Every floor may import this folder, which imports the standard library only. `sink` is where lines go to.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from scgi.log.sink import Sink

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
CONTINUATION: Final = "    | "  # before each line of a traceback: no record begins so

# C0, DEL, C1, line and paragraph separators, marks that turn the direction of what follows, surrogates
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NAMED: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_request_lookup: Callable[[], str] = str  # gives ""


def set_request_lookup(lookup: Callable[[], str]) -> None:
    """`lookup()` gives the id of the request that this thread serves, or "". Asked when a line is written."""
    global _request_lookup
    _request_lookup = lookup


def escape(text: str) -> str:
    """The text with everything escaped that could end a line, move a cursor, or hide."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    code = ord(char)
    return _NAMED.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


class TextFormatter(logging.Formatter):
    """``2026-11-22 17:30:01.123 [pid] LEVEL logger [request id]: message``, then any traceback, marked."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        head = f"{when}.{int(record.msecs):03d} [{record.process}] {record.levelname} {record.name}"
        if request := _current_request():
            head += f" [request {request}]"
        lines = [escape(f"{head}: {record.getMessage()}")]
        if trace := _trace(self, record):
            lines += [CONTINUATION + escape(line) for line in trace.split("\n")]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, pid, message; request and exc where there are such."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if request := _current_request():
            entry["request"] = request
        if trace := _trace(self, record):
            entry["exc"] = trace
        return json.dumps(entry).replace("\x7f", "\\u007f")  # the one control that JSON leaves alone


def _current_request() -> str:
    try:
        return _request_lookup()
    except Exception:  # a line without an id is better than none
        return ""


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [record.exc_text or ""]  # exc_text: another handler has formatted it already
    if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
        parts = [formatter.formatException(record.exc_info)]
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(part for part in parts if part)


class _Handler(logging.Handler):
    """Writes to a sink, without the lock that logging would take: a line is one write."""

    def __init__(self, sink: Sink, formatter: logging.Formatter, level: int) -> None:
        super().__init__(level)
        self.sink = sink
        self.setFormatter(formatter)

    def handle(self, record: logging.LogRecord) -> bool:
        found: bool | logging.LogRecord = self.filter(record)
        if found:
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            try:
                line = self.format(record)
            except Exception as error:  # arguments that do not fit the message: say so, keep what there is
                record = logging.makeLogRecord(record.__dict__)
                record.msg = f"{record.msg!r} {record.args!r} (cannot be formatted: {error!r})"
                record.args = None
                line = self.format(record)
            self.sink.write(line)
        except Exception:
            self.sink.drop()


class _OurLogger(logging.Logger):
    """A logger that `disable_existing_loggers`, the default of `dictConfig`, does not reach."""

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass


@functools.wraps(logging.basicConfig)
def _basic_config(**asked: Any) -> None:
    if asked:
        _python_basic_config(**asked)


_python_basic_config: Final = logging.basicConfig
_handler: _Handler | None = None
_access: Sink | None = None


def setup(level: str = "info", format: Literal["text", "json"] | str = "text", file: str | None = None) -> None:
    """Send our log, and that of an application without a set-up of its own, to `file`, or standard error.

    `level` holds for our own lines; an application's loggers keep Python's default, warnings and above.
    Call it when the modules of ours that log are imported, and the application is not. Called again, it
    replaces what it did before. Raises OSError if the file cannot be opened.
    """
    global _handler
    before = _handler
    formatter = JsonFormatter() if format == "json" else TextFormatter()
    _handler = _Handler(Sink(file or None), formatter, LEVELS[level])
    logger = logging.getLogger("scgi")
    logger.handlers = [one for one in logger.handlers if one is not before] + [_handler]
    logger.setLevel(LEVELS[level])
    logger.propagate = False
    for name, one in logging.root.manager.loggerDict.items():
        if isinstance(one, logging.Logger) and (name == "scgi" or name.startswith("scgi.")):
            one.__class__ = _OurLogger
    logging.lastResort = _handler
    logging.basicConfig = _basic_config
    if before is not None:
        before.sink.close()


def open_access_log(path: str) -> Callable[[str], None]:
    """Open the access log, "-" for standard output; what is returned writes a line. Raises OSError."""
    global _access
    before, _access = _access, Sink(descriptor=1) if path == "-" else Sink(path)
    if before is not None:
        before.close()
    return _access.write


def error_with_trace(logger: logging.Logger, message: str, trace: str) -> None:
    """An error whose traceback comes as text, from another process perhaps; "" for none."""
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "%s", (message,), None)
    record.exc_text = trace.rstrip()
    logger.handle(record)


def reopen() -> bool:
    """Open the log files anew, for log rotation; False if one could not be, which stays in use.

    Made for a SIGUSR1 handler: no lock, no line of its own, and no moment without an open file.
    """
    return not [sink for sink in _sinks() if not sink.reopen()]


def dropped() -> int:
    """How many lines this process could not write."""
    return sum(sink.dropped for sink in _sinks())


def descriptor() -> int:
    """The log's descriptor, for those who write without Python (faulthandler)."""
    return _handler.sink.descriptor if _handler else sys.__stderr__.fileno() if sys.__stderr__ else 2


def _sinks() -> list[Sink]:
    return [sink for sink in (_handler and _handler.sink, _access) if sink]


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# what a word, or a quoted text, of the access log does not hold as it is
_BARE: Final = re.compile(r"[^\x21\x23-\x5b\x5d-\x7e]")
_QUOTED: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")


def access_line(environ: Mapping[str, str], status: int, sent_bytes: int, seconds: float, request_id: str = "") -> str:
    """A line in the web servers' "combined" format, then the seconds it took and the request's id.

    Plain ASCII, whatever the request holds: other bytes are escaped as Apache does, ``\\xhh``.
    """
    get = environ.get
    target = get("REQUEST_URI") or get("SCRIPT_NAME", "") + get("PATH_INFO", "")
    if "REQUEST_URI" not in environ and get("QUERY_STRING"):
        target += "?" + environ["QUERY_STRING"]
    request = f"{_bare(get('REQUEST_METHOD'))} {_bare(target)} {_bare(get('SERVER_PROTOCOL'))}"
    who = f"{_bare(get('REMOTE_ADDR'))} - {_bare(get('REMOTE_USER'))}"
    whence = f'"{_quote(get("HTTP_REFERER"))}" "{_quote(get("HTTP_USER_AGENT"))}"'
    return f'{who} [{_now()}] "{request}" {status} {sent_bytes} {whence} {seconds:.3f} {_bare(request_id)}'


def _bare(text: str | None) -> str:
    return _BARE.sub(_hex, text) if text else "-"


def _quote(text: str | None) -> str:
    return _QUOTED.sub(_hex, text) if text else "-"


def _hex(found: re.Match[str]) -> str:
    char = found[0]
    return "\\" + char if char in '"\\' else "".join(f"\\x{byte:02x}" for byte in _bytes(char))


def _bytes(char: str) -> bytes:
    """A character of the environ is a byte; one that cannot be is not from there."""
    return char.encode("latin-1") if char < "\u0100" else char.encode("utf-8", "surrogatepass")


def _now() -> str:
    now = time.localtime()
    sign, offset = ("-", -now.tm_gmtoff) if now.tm_gmtoff < 0 else ("+", now.tm_gmtoff)
    month = _MONTHS[now.tm_mon - 1]  # strftime would write it in the application's language
    return time.strftime(f"%d/{month}/%Y:%H:%M:%S {sign}{offset // 3600:02d}{offset // 60 % 60:02d}", now)
