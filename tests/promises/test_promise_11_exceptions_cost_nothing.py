"""Every exception of the application gives 500 and costs no worker; its traceback is the log's, never the client's."""

from __future__ import annotations

from support import scgi_request
from support.room import Room


def test_every_exception_gives_500_costs_no_worker_and_is_in_the_log_with_its_request(tcp_room: Room) -> None:
    server = tcp_room.serve("pages.py")
    worker = scgi_request(server.address).text
    for number, error in enumerate(("SystemExit", "KeyboardInterrupt", "MemoryError", "RecursionError", "ValueError")):
        answer = scgi_request(server.address, {"HTTP_X_REQUEST_ID": f"order-{number}"}, path=f"/raise_it/{error}")
        assert answer.status == 500
        assert b"secret" not in answer.raw and b"Traceback" not in answer.raw
        log = server.log()
        assert f"GET /raise_it/{error}" in log and f"[request order-{number}]" in log
        assert f"\n  {error}" in log or f"\n{error}" in log or f"{error}: " in log, log
    assert scgi_request(server.address).text == worker
