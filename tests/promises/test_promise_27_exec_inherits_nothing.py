"""No descriptor of the server survives `exec` in the application."""

from __future__ import annotations

from support import free_port, scgi_request, wait_until
from support.room import Room


def test_no_descriptor_of_the_server_survives_exec_not_even_after_a_reload(either_room: Room) -> None:
    folder = either_room.folder
    server = either_room.serve(
        "pages.py",
        *("--listen", f"unix:{folder}/second", "--listen", f"127.0.0.1:{free_port()}", "--threads", "2"),
        *("--log-file", f"{folder}/log", "--access-log", f"{folder}/access", "--pid-file", f"{folder}/pid"),
        *("--max-requests", "1000", "--probe", "/pid"),
    )
    for _ in range(2):
        answer = scgi_request(server.address, path="/descriptors")
        assert (answer.status, answer.text) == (200, "")
        assert either_room.reload(server)[0] == 0
    wait_until(lambda: scgi_request(server.address, path="/descriptors").text == "")
