"""TCP beyond loopback needs an explicit allow-list or an explicit "any"; refused peers are closed and counted."""

from __future__ import annotations

import socket
import time

from support import build_request, free_port, parse_response
from support.room import Room


def ask_from(source: str, port: int) -> bytes:
    """What a peer with this address is answered; nothing if it is turned away."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0)) as peer:
            peer.sendall(build_request(path="/pid"))
            return b"".join(iter(lambda: peer.recv(65536), b""))
    except ConnectionResetError:
        return b""


def test_an_address_beyond_loopback_is_not_listened_at_without_a_list(tcp_room: Room) -> None:
    for host in ("0.0.0.0", "[::]"):
        server = tcp_room.start("pages.py", listen=f"{host}:{free_port()}", wait=False)
        assert server.wait() > 1
        assert len(server.log().splitlines()) == 1 and "--allow" in server.log(), server.log()


def test_peers_that_the_list_does_not_name_are_closed_at_once_and_counted(tcp_room: Room) -> None:
    tcp_room.address = f"0.0.0.0:{(port := free_port())}"
    server = tcp_room.serve("pages.py", "--allow", "127.0.0.2", "--allow", "10.0.0.0/8", workers=2)
    for _ in range(3):
        assert parse_response(ask_from("127.0.0.2", port)).status == 200
        began = time.monotonic()
        assert ask_from("127.0.0.1", port) == b"" == ask_from("127.0.0.3", port)
        assert time.monotonic() - began < 1
    assert tcp_room.status(server)["counters"]["refused_peers"] == 6
    assert tcp_room.reload(server)[0] == 0  # what is counted stays counted
    assert ask_from("127.0.0.1", port) == b""
    assert tcp_room.status(server)["counters"]["refused_peers"] == 7


def test_any_is_said_by_name(tcp_room: Room) -> None:
    tcp_room.address = f"0.0.0.0:{(port := free_port())}"
    tcp_room.serve("pages.py", "--allow", "any")
    assert parse_response(ask_from("127.0.0.1", port)).status == 200
