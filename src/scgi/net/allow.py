"""Who may connect over TCP. SCGI has no password: whoever connects is believed, its REMOTE_USER included.

Imports `errors` and `net.address`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from scgi.errors import ConfigError
from scgi.net.address import Address

ANY: Final = "any"
_REMEMBERED: Final = 1024  # verdicts; there are few web servers, and an attacker must not fill our memory

_Host = ipaddress.IPv4Address | ipaddress.IPv6Address


class AllowList:
    """Networks and single machines, or "any"."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Raises `ConfigError` for what is neither a network nor an address."""
        try:
            self._networks = [ipaddress.ip_network(text, strict=False) for text in networks if text != ANY]
        except ValueError as error:
            raise ConfigError(f"allow: expected a network such as 10.0.0.0/8, an address, or any: {error}") from None
        self._any = ANY in networks
        self._verdicts: dict[str, bool] = {}

    def admits(self, host: str) -> bool:
        """Whether the machine at this address, as the kernel writes it, may connect."""
        verdict = self._verdicts.get(host)
        if verdict is None:
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            verdict = self._verdicts[host] = self._any or self._names(host)
        return verdict

    def _names(self, host: str) -> bool:
        address = _plain(host)
        return address is not None and any(address in network for network in self._networks)


def needs_allow(listeners: Iterable[Address]) -> str:
    """Why these addresses, as they are bound, need an allow-list; "" if nobody beyond this machine can reach them."""
    for listener in listeners:
        if listener.kind == "tcp" and not _is_loopback(listener.host):
            return (
                f"allow: other machines can reach {listener}, and whoever connects is believed; name the web server's "
                "(--allow 192.0.2.7, or a network), or say --allow any"
            )
    return ""


def _is_loopback(host: str) -> bool:
    address = _plain(host)
    return address is not None and address.is_loopback


def _plain(host: str) -> _Host | None:
    """The address without a zone (`fe80::1%eth0`), and as IPv4 if it is that on an IPv6 socket (`::ffff:192.0.2.7`)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
