"""An SCGI server: a pool of children that answers what a web server forwards.

The map of the house; imports go downwards only, floor by floor (``tests/house`` holds them to it)::

    cli/            one file per command of ``scgi``; the only place that exits the process
    config/         one row per setting → command line, environment, ``scgi.toml``; builds what they ask for
    supervisor/     master and pool: how many children, who died, who drains
    workers/        what a child does: accept → read → application → write → close, again
    apps/           "module:attribute" → an application, and how each kind is called
    net/            the grammar of addresses; binding them
    status/         shared memory with one slot per worker
    protocol/       the wire: bytes and text, no sockets, no clock
    errors.py       the whole tree of errors
    log/            the one place that sets up logging, and where lines go to
    version.py      which one this is

    gateway/        HTTP in, SCGI out: what answers ``--http``
    client/         the other end of the wire
    fronts/         what web servers are told, and a probe that finds what they were told wrong

and the front door, faces whose names the reference API fixed; nothing inside imports them::

    scgi_server.py  SCGIServer, SCGIHandler; also runs as a script
    session_server.py  flup.py  util.py  passfd.py  systemd_socket.py

Importing ``scgi`` imports none of it: ``scgi.serve`` is looked up when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scgi.version import __version__

if TYPE_CHECKING:
    from scgi.config.build import serve

__all__ = ["__version__", "serve"]


def __getattr__(name: str) -> Any:
    if name == "serve":
        from scgi.config.fork import require_fork

        require_fork("scgi.serve")
        from scgi.config.build import serve

        return serve
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
