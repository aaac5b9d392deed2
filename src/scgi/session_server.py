"""The reference's other server: requests of one session go to one child, in order.

A thin face over `supervisor.sessions`; nothing inside imports it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import Final

from scgi.config.fork import require_fork

require_fork("scgi.session_server")

from scgi import log as scgi_log
from scgi import scgi_server
from scgi.apps.handler import HandlerAdapter, SCGIHandler
from scgi.apps.load import refuse_unrunnable
from scgi.config.build import warn_of_exposure
from scgi.errors import ConfigError, ScgiError
from scgi.net.listen import Listener
from scgi.supervisor.bell import Bell
from scgi.supervisor.sessions import SessionPlan, Sessions
from scgi.workers.blocking import Adapter, WorkerPlan

__all__ = ["SCGIHandler", "SCGIServer", "main"]

_MACHINERY: Final = ("extract_session_id", "hup_signal", "process_children", "prune_children", "get_waiting_sockets")


class SCGIServer(scgi_server.SCGIServer):
    """As `scgi.scgi_server.SCGIServer`, but each session's requests are answered by one child, one after the other."""

    SESSION_ID_PATTERN = r'session="(?P<id>[A-Za-z0-9\\/_=+-]+)"'
    DEFAULT_SESSION_ID = "*unknown*"
    MAX_QUEUE = 15  # requests of one session that wait; beyond, 503
    CHILD_TIMEOUT = 600  # seconds without a request, after which a child ends

    def session_id(self, env: dict[str, str]) -> str:
        """Whose request this is: by the cookie, or by the client's address."""
        found = re.search(self.SESSION_ID_PATTERN, env.get("HTTP_COOKIE", ""))
        return found.group("id") if found else env.get("REMOTE_ADDR") or self.DEFAULT_SESSION_ID

    def _run(self, listeners: list[Listener]) -> None:
        for name in _MACHINERY:
            if hasattr(type(self), name):
                raise ConfigError(
                    f"{type(self).__name__} overrides {name}(), which is not called here: "
                    "set SESSION_ID_PATTERN, or override session_id(env)"
                )
        handler_class = self.handler_class

        def make_adapter(lifeline: int) -> Adapter:
            handler = handler_class(lifeline)
            refuse_unrunnable(type(handler))
            return HandlerAdapter(handler).answer

        if not logging.getLogger("scgi").hasHandlers():
            scgi_log.setup("info")
        plan = SessionPlan(
            WorkerPlan(make_adapter, require_scgi=False),
            self.session_id, self.max_children, self.MAX_QUEUE, self.CHILD_TIMEOUT,
        )  # fmt: skip
        if os.geteuid() == 0:
            logging.getLogger("scgi.server").warning("the application runs as root")
        for listener in listeners:
            logging.getLogger("scgi.server").info(
                "serving sessions on %s with up to %d children", listener.address, self.max_children
            )
            warn_of_exposure(listener)
        try:
            with Bell() as bell:
                Sessions(plan, listeners, bell).run()
        finally:
            for listener in listeners:
                if listener.owned:
                    listener.close()


def main() -> None:
    """`python -m scgi.session_server [PORT]`."""
    try:
        SCGIServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else SCGIServer.DEFAULT_PORT).serve()
    except (ScgiError, ValueError) as error:
        sys.exit(f"scgi: {error}")


if __name__ == "__main__":
    main()
