"""What the real server says about an import that leaves things open, and that it says nothing otherwise."""

from __future__ import annotations

import re
from pathlib import Path

from support import Process, free_port, scgi_request

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"""
LEAVES = """
import socket, sqlite3, threading
listener = socket.create_server(("127.0.0.1", {port}))
client = socket.create_connection(("127.0.0.1", {port}))
server, _ = listener.accept()
database = sqlite3.connect("pizzas.db")
database.execute("create table pizzas (name)")
threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
"""


def warnings(server: Process) -> list[str]:
    return re.findall(r"WARNING scgi\.\w+: .*import.* left open (.*)", server.log())


def test_each_thing_is_named_once_and_the_server_serves(scgi_serve, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "app.py").write_text(LEAVES.format(port=port) + APP)
    server = scgi_serve("app.py", "--min-workers", "2", cwd=tmp_path)
    assert scgi_request(server.address).text == "served"
    said = warnings(server)
    for phrase in (
        "the thread 'poller'",
        f"a listening socket at 127.0.0.1:{port}",
        f"a connection to 127.0.0.1:{port}",
        f"the SQLite database {tmp_path / 'pizzas.db'}",
    ):
        assert [phrase in line for line in said].count(True) == 1, (phrase, said)
    assert len(said) == 5, said  # the connection has two ends


def test_an_import_that_leaves_nothing_open_is_passed_over(scgi_serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import decimal, json, logging, sqlite3, ssl, urllib.request\n" + APP)
    server = scgi_serve("app.py", cwd=tmp_path)
    assert scgi_request(server.address).text == "served"
    assert not warnings(server)
