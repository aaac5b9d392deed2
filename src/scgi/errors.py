"""Every error of the project, sorted by what the catcher does about it, not by what went wrong.

::

    ScgiError
    ├── ProtocolError               bytes or headers that break the rules; knows the status to answer
    │   ├── MalformedRequest        400: what came is not an SCGI request
    │   ├── TruncatedRequest        400: the peer stopped in the middle
    │   │   └── TruncatedBody       the same while the application reads (also a ConnectionError)
    │   │       └── BodyTimeout     408: the rest of the body did not come in time
    │   ├── LimitExceeded           413 or 431: well-formed, but more than we read
    │   ├── MisuseError             500: the application (or caller) broke the interface
    │   └── MalformedResponse       502: what a server answered is not a CGI response
    ├── ConfigError                 a setting, an option, a file: exit status 78 or 2
    ├── AppLoadError                the application cannot be loaded: exit status 4
    ├── StartFailed                 the application was imported but cannot begin to serve: exit status 3
    ├── ListenError                 an address cannot be bound: exit status 3
    └── MissingExtra                an optional dependency is not installed: exit status 78

    RequestTimeout                  raised inside an application whose request has had its time: 504. A BaseException,
                                    which `except Exception` lets pass

This file imports nothing of ours.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command's exit status says; shared by those who exit and those who reap."""

    OK = 0
    FAILED = 1
    USAGE = 2
    BOOT_FAILED = 3
    APP_UNLOADABLE = 4
    CONFIG = 78


class ScgiError(Exception):
    """Base of all errors that this project raises on purpose."""


class ProtocolError(ScgiError):
    """Bytes or headers that break the rules.

    ``code`` is a stable word for logs and tests (``"length-not-digits"``); ``status_hint`` is
    the HTTP status to answer with while an answer is still possible.
    """

    status_hint = 400

    def __init__(self, message: str, *, code: str = "", status_hint: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        if status_hint is not None:
            self.status_hint = status_hint


class MalformedRequest(ProtocolError, ValueError):
    """What came is not an SCGI request."""


class TruncatedRequest(ProtocolError, OSError):
    """The peer closed or fell silent in the middle of a request."""


class TruncatedBody(TruncatedRequest, ConnectionError):
    """The body ended before CONTENT_LENGTH. Applications may catch it as ``OSError``."""

    def __init__(self, *, expected: int, received: int) -> None:
        super().__init__(f"the request body ended after {received} of {expected} bytes", code="body-truncated")
        self.expected = expected
        self.received = received


class BodyTimeout(TruncatedBody):
    """The rest of the body did not come in time."""

    status_hint = 408

    def __init__(self, *, expected: int, received: int) -> None:
        super().__init__(expected=expected, received=received)
        self.args = (f"the request body stalled after {received} of {expected} bytes",)
        self.code = "body-timeout"


class LimitExceeded(ProtocolError):
    """Well-formed, but more than the limits allow."""

    status_hint = 431


class MisuseError(ProtocolError):
    """The application broke the rules of its interface."""

    status_hint = 500


class MalformedResponse(ProtocolError):
    """What an SCGI server answered is not a CGI response."""

    status_hint = 502


class ConfigError(ScgiError):
    """A setting that cannot be: says what was expected, what was found, and where."""

    def __init__(self, message: str, *, source: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(f"{source}: {message}" if source else message)
        self.source = source
        self.problems = problems or (str(self),)


class AppLoadError(ScgiError):
    """The application cannot be loaded; ``traceback`` is that of its own code, if its code raised."""

    def __init__(self, message: str, *, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class StartFailed(ScgiError):
    """The application does not come to serve: a worker cannot start, a probe fails, time is up. ``status`` is to exit
    with; ``traceback`` is the application's own, or the stack where it was when time was up."""

    def __init__(self, message: str, *, traceback: str = "", status: ExitCode = ExitCode.BOOT_FAILED) -> None:
        super().__init__(message)
        self.traceback = traceback
        self.status = status


class ListenError(ScgiError, OSError):
    """An address cannot be bound or used."""


class MissingExtra(ScgiError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install 'scgi-server[{extra}]'")
        self.extra = extra


class RequestTimeout(BaseException):
    """The request has had its time inside the application (the setting `timeout`). Raised in the middle of the
    application's code, wherever that is; `finally` and `with` run as for any other exception."""

    def __init__(self, message: str = "this request has had the time that is allowed") -> None:
        super().__init__(message)
