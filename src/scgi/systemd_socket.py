"""Sockets inherited from systemd, by the reference's names.

Nothing inside imports this file.
"""

from __future__ import annotations

import socket

from scgi.net.listen import inherited_listeners

__all__ = ["get_systemd_socket"]


def get_systemd_socket() -> socket.socket | None:
    """The listening socket that systemd hands over (sd_listen_fds(3)), or None. OSError if there are several."""
    found = inherited_listeners()
    if len(found) > 1:
        raise OSError("only one inherited socket supported")
    return found[0].sock if found else None
