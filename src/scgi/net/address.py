"""One grammar for addresses, whoever reads them: command line, file, client, gateway.

========================  =============================================
``4000`` ``:4000``        TCP on 127.0.0.1
``host:port``             TCP, the host by name or number
``[::1]:4000``            TCP over IPv6
``unix:/run/app.sock``    a unix socket
``/run/app.sock``         the same (anything with a slash)
``systemd``               the sockets that systemd hands over
========================  =============================================

Imports `errors` only.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Literal

from scgi.errors import ConfigError

_GRAMMAR = "a port (4000), HOST:PORT, [IPV6]:PORT, unix:PATH, a path, or 'systemd'"
_HOST = re.compile(r"[A-Za-z0-9._-]+\Z")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]\Z")
_PATH_LIMIT = 107  # sockaddr_un on Linux; 103 on macOS and the BSDs, where bind says so


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens or is called: ``str(address)`` is its canonical text."""

    kind: Literal["tcp", "unix", "systemd"]
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "systemd":
            return "systemd"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def connect(self, timeout: float) -> socket.socket:
        """A connected blocking socket; `timeout` seconds for connecting and every later operation. OSError if not."""
        if self.kind == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            try:
                sock.connect(self.path)
            except OSError:
                sock.close()
                raise
            return sock
        return socket.create_connection((self.host, self.port), timeout)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody beyond this machine can reach it."""
        if self.kind != "tcp" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, *, default_host: str = "127.0.0.1") -> Address:
    """Read one address; raises `ConfigError` with a sentence for anything else."""
    if text == "systemd":
        return Address("systemd")
    if text.startswith("unix:") or "/" in text:
        return _unix(text.removeprefix("unix:"), text)
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or int(port[:9]) > 65535:
        raise ConfigError(f"address: expected {_GRAMMAR}, got {text!r}")
    if not host:
        return Address("tcp", default_host, int(port))
    if bracketed := _IPV6.match(host):
        return Address("tcp", bracketed[1], int(port))
    if not _HOST.match(host):
        hint = f" (an IPv6 address goes into brackets: [{host}]:{port})" if ":" in host else ""
        raise ConfigError(f"address: expected {_GRAMMAR}, got {text!r}{hint}")
    return Address("tcp", host, int(port))


def _unix(path: str, text: str) -> Address:
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigError(f"address: expected a path to a unix socket, got {text!r}")
    if len(path.encode()) > _PATH_LIMIT:
        raise ConfigError(
            f"address: a unix socket's path has at most {_PATH_LIMIT} bytes, got {len(path.encode())}: {path!r}"
        )
    return Address("unix", path=path)
