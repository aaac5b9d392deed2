"""flup's `WSGIServer`, so that a flup script changes one import; nothing inside imports this file.

It is `scgi.serve` with flup's words. HUP reloads within `run()`, which therefore returns False at its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from scgi.config.fork import require_fork

require_fork("scgi.flup")

from scgi.config.build import serve
from scgi.errors import ConfigError

__all__ = ["WSGIServer"]

# Taken and not needed: our pool decides by itself, or our defaults do the same.
_UNUSED: Final = frozenset(
    "multiprocess debug timeout minSpare maxSpare sockTimeout jobClass jobArgs maxThreads loggingLevel".split()
)


class WSGIServer:
    """`WSGIServer(app, bindAddress=("localhost", 4000), …).run()`, of flup's scgi, scgi_fork and scgi_threaded.

    `multithreaded=True` asks for one process with threads, `maxThreads` of them at most.
    Beside flup's arguments, `user` and `allow_root` say as whom root runs the application: it refuses to otherwise.
    """

    def __init__(
        self,
        application: Callable[..., Iterable[bytes]],
        scriptName: str | None = None,
        environ: Mapping[str, Any] | None = None,
        multithreaded: bool = False,
        bindAddress: str | tuple[str, int] = ("localhost", 4000),
        umask: int | None = None,
        allowedServers: Iterable[str] | None = None,
        maxChildren: int = 50,
        maxRequests: int = 0,
        **others: Any,
    ) -> None:
        settings: dict[str, Any] = {name: others.pop(name) for name in ("user", "allow_root") if name in others}
        if unknown := sorted(others.keys() - _UNUSED):
            raise ConfigError(f"WSGIServer: {unknown[0]} is not an argument of flup's SCGI servers")
        self.application = application
        self.environ = dict(environ or {})
        settings |= {"max_requests": maxRequests, "max_workers": 1 if multithreaded else maxChildren}
        if multithreaded:
            settings["threads"] = others.get("maxThreads", 10)
        if isinstance(bindAddress, str):
            settings["listen"] = f"unix:{bindAddress}"
            if umask is not None:
                settings["socket_mode"] = f"{0o777 & ~umask:04o}"
        else:
            host, port = bindAddress
            settings["listen"] = f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"
        if scriptName:
            settings["mount"] = scriptName
        if allowedServers:
            settings["allow"] = tuple(allowedServers)
        if others.get("loggingLevel", logging.INFO) <= logging.DEBUG:
            settings["log_level"] = "debug"
        self.settings = settings

    def run(self) -> bool:
        """Serve until TERM or INT."""
        application, extra = self.application, self.environ

        def with_environ(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            environ.update(extra)
            return application(environ, start_response)

        serve(with_environ if extra else application, **self.settings)
        return False
