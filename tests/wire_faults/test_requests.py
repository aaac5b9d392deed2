"""Malformed, cut, slow and overlong requests on a real server: each gets its status, and costs no worker.

Promises 1 to 8 of a server's parser. That the same worker answers afterwards is checked by the fixtures.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.malformed import REFUSED, request
from support import Reset, build_request, parse_response, raw_exchange, scgi_request, wait_until
from support.addresses import connect
from wire_faults.conftest import LogFrom, Server

# Every class of malformed request over TCP; over the unix socket one of each kind of reply.
OVER_UNIX = [
    "http",
    "length-plus",
    "comma-missing",
    "name-empty",
    "body-too-large",
    "too-many-variables",
    "head-too-large",
]
CASES = [("tcp", name) for name in REFUSED] + [("unix", name) for name in OVER_UNIX]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_each_class_of_malformed_request_gets_its_status_at_once(
    request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    server: Server = request.getfixturevalue(kind)
    data, code, status = REFUSED[name]
    log = LogFrom(server)
    answer = parse_response(raw_exchange(server.address, data, within=8))  # the head may take 10 s: not a time-out
    assert answer.status == status
    assert int(answer.header("content-length") or 0) == len(answer.body) > 0
    assert "Traceback" not in answer.text
    wait_until(lambda: f"({code})" in log(), what="a line in the log")
    assert "Traceback" not in log()


@pytest.mark.parametrize("name", ["http", "comma-missing", "content-length-plus", "too-many-variables"])
def test_a_malformed_request_that_trickles_gets_the_same_status(server: Server, name: str) -> None:
    data, _, status = REFUSED[name]
    raw = raw_exchange(server.address, data, split=max(1, len(data) // 400), pause=0, within=8)
    assert parse_response(raw).status == status


@pytest.mark.parametrize("name", ["length-plus", "scgi-absent", "body-too-large"])
def test_the_refusal_survives_what_the_peer_still_sends(server: Server, name: str) -> None:
    data, _, status = REFUSED[name]
    assert parse_response(raw_exchange(server.address, data + b"x" * 5_000_000, within=8)).status == status


def test_no_byte_of_a_request_can_forge_a_log_line(tcp: Server) -> None:
    log = LogFrom(tcp)
    raw_exchange(tcp.address, request(("X\n2026-01-01 00:00:00 error forged\x1b[2J", "y")), within=8)
    wait_until(lambda: "(bad-name)" in log())
    assert "\x1b" not in log()
    assert not [line for line in log().splitlines() if line.startswith("2026-01-01 00:00:00 error")]


# Splits


def test_every_split_of_a_request_in_two_is_understood_the_same_way(server: Server) -> None:
    data = build_request({}, b"0123456789", method="POST", path="/read")
    expected = raw_exchange(server.address, data)
    assert parse_response(expected).text == f"10 {hashlib.sha256(b'0123456789').hexdigest()}"
    for cut in range(1, len(data)):
        assert raw_exchange(server.address, data, split=[cut], pause=0.0005) == expected, f"cut at {cut}"


def test_a_request_by_single_bytes_is_understood(server: Server) -> None:
    data = build_request({}, b"0123456789", method="POST", path="/read")
    expected = raw_exchange(server.address, data)
    for pause in (0, 0.0005):
        assert raw_exchange(server.address, data, split=1, pause=pause) == expected


def test_a_large_head_in_pieces_is_understood(server: Server) -> None:
    data = build_request([(f"HTTP_X_{number}", "v" * 5000) for number in range(100)], path="/variables")
    seen = json.loads(parse_response(raw_exchange(server.address, data, split=10_007, pause=0)).text)
    assert seen["HTTP_X_99"] == "v" * 5000


# Ends


@pytest.mark.parametrize("size", [1, 3, 4, 20, -1])
@pytest.mark.parametrize("ending", ["half-closed", "closed", "reset"])
def test_an_end_in_the_middle_of_the_head_costs_nothing(server: Server, size: int, ending: str) -> None:
    data = build_request(path="/pid").partition(b",")[0][:size]
    if ending == "half-closed":
        raw = raw_exchange(server.address, data, half_close=True, within=8)
        assert parse_response(raw).status == 400
        return
    with connect(server.address) as peer:
        peer.sendall(data)
        if ending == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_a_connection_without_a_byte_is_normal(server: Server) -> None:
    log = LogFrom(server)
    for _ in range(20):
        connect(server.address).close()
        with connect(server.address) as peer:
            peer.shutdown(socket.SHUT_WR)
            assert peer.recv(1) == b""
    server.assert_same_worker()
    assert not [line for line in log().splitlines() if "WARNING" in line or "ERROR" in line]


# Time


def test_a_silent_connection_gets_408_after_the_time_for_heads(hasty: Server) -> None:
    log = LogFrom(hasty)
    started = time.monotonic()
    with connect(hasty.address, 20) as peer:
        answer = parse_response(b"".join(iter(lambda: peer.recv(65536), b"")))
    assert answer.status == 408
    assert time.monotonic() - started > 0.9
    wait_until(lambda: "(head-timeout)" in log())


@pytest.mark.parametrize("beginning", [b"1", b"70:CONTENT_LENGTH\0"])
def test_a_head_that_stops_gets_408(hasty: Server, beginning: bytes) -> None:
    assert parse_response(raw_exchange(hasty.address, beginning, within=20)).status == 408


def test_a_head_that_dribbles_gets_408_because_its_whole_time_counts(hasty: Server) -> None:
    data = build_request({"HTTP_X": "y" * 2000}, path="/pid")
    started = time.monotonic()
    assert parse_response(raw_exchange(hasty.address, data, split=1, pause=0.05, within=30)).status == 408
    assert time.monotonic() - started < 15  # where all of it would take 100 s


def test_a_body_that_stops_gets_408(hasty: Server) -> None:
    data = build_request({"CONTENT_LENGTH": "1000"}, b"begun", method="POST", path="/read")
    assert parse_response(raw_exchange(hasty.address, data, within=20)).status == 408


def test_a_body_that_dribbles_below_the_rate_gets_408(hasty: Server) -> None:
    data = build_request({}, b"x" * 10_000, method="POST", path="/read")
    started = time.monotonic()
    cuts = range(len(data) - 10_000, len(data), 2)
    assert parse_response(raw_exchange(hasty.address, data, split=cuts, pause=0.05, within=40)).status == 408
    assert time.monotonic() - started < 30  # where all of it would take 250 s


# Bodies


@pytest.mark.parametrize("sent", [0, 1, 99_999])
@pytest.mark.parametrize("ending", ["half-closed", "closed"])
def test_a_cut_body_raises_in_the_application_and_never_looks_complete(
    server: Server, tmp_path: Path, sent: int, ending: str
) -> None:
    note = tmp_path / "note"
    data = build_request({"CONTENT_LENGTH": "100000"}, b"x" * sent, method="POST", path="/report", query=str(note))
    if ending == "closed":
        with connect(server.address) as peer:
            peer.sendall(data)
    else:
        answer = parse_response(raw_exchange(server.address, data, half_close=True, within=8))
        assert answer.status == 400
        assert answer.body != b"complete"
    wait_until(note.exists, 10)
    assert note.read_text() == "TruncatedBody True"


def test_an_application_that_reads_beyond_the_body_gets_end_of_file(server: Server) -> None:
    for body in (b"", b"short\nlines\n", b"x" * 200_000):
        found = scgi_request(server.address, {}, body, method="POST", path="/beyond", within=8)
        assert found.body == body + b"|" * 5


@pytest.mark.parametrize("path", ["/deaf", "/half-deaf"])
def test_the_answer_survives_a_body_that_nobody_reads(server: Server, path: str) -> None:
    data = build_request({"CONTENT_LENGTH": str(20 << 20)}, b"", method="POST", path=path)
    answer = parse_response(raw_exchange(server.address, data + bytes(20 << 20), within=20))
    assert answer.body == (b"no" if path == "/deaf" else b"yes") * 50_000


@pytest.mark.parametrize("path", ["/deaf", "/half-deaf"])
def test_a_peer_that_reads_only_after_it_has_written_all_gets_the_answer(server: Server, path: str) -> None:
    """As Apache does."""
    with connect(server.address, 20) as peer:
        peer.sendall(build_request({"CONTENT_LENGTH": str(20 << 20)}, b"", method="POST", path=path))
        for _ in range(20):
            peer.sendall(bytes(1 << 20))
        raw = b"".join(iter(lambda: peer.recv(65536), b""))
    assert parse_response(raw).status == (413 if path == "/deaf" else 200)
    assert len(parse_response(raw).body) >= 100_000


@pytest.mark.parametrize("body", [b"", b"0123456789"])
@pytest.mark.parametrize("apart", [False, True])
def test_bytes_after_the_body_are_dropped_and_never_a_second_request(server: Server, body: bytes, apart: bool) -> None:
    first = build_request({}, body, method="POST", path="/read")
    second = build_request(path="/pid")
    answer = parse_response(
        raw_exchange(server.address, first + second, split=[len(first)] if apart else None, within=8)
    )
    assert answer.text == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


def test_the_answer_survives_bytes_that_follow_the_body_late(server: Server, short_tmp: Path) -> None:
    """As nginx before 1.29.6 sends them with `scgi_request_buffering off`: CONTENT_LENGTH 0, then a body."""
    gate = short_tmp / "gate"
    received = bytearray()
    with connect(server.address, 20) as peer:
        peer.sendall(build_request(path="/wait", query=str(gate)))
        wait_until((short_tmp / "begun").exists)
        peer.sendall(b"late")
        gate.touch()
        wait_until(lambda: select.select([peer], [], [], 0)[0])
        while chunk := _receive(peer):
            received += chunk
            time.sleep(0.001)  # a web server whose client is slow
    size = len(parse_response(bytes(received)).body)
    assert size == 1 << 20, "the rest of the answer was lost"


@pytest.mark.parametrize("body", [b"", b"0123456789"])
def test_a_short_answer_to_a_post_is_not_reset_by_bytes_that_follow_the_body_late_and_the_log_tells_of_them(
    server: Server, short_tmp: Path, body: bytes
) -> None:
    gate = short_tmp / "gate"
    log = LogFrom(server)
    with connect(server.address, 20) as peer:
        peer.sendall(build_request({}, body, method="POST", path="/wait-short", query=str(gate)))
        wait_until((short_tmp / "begun").exists)
        peer.sendall(b"late" * 10)
        gate.touch()
        raw = b"".join(iter(lambda: peer.recv(65536), b""))  # a reset raises
    assert parse_response(raw).text == "patience"
    wait_until(lambda: "bytes follow" in log())
    assert log().count(f"40 bytes follow a body of CONTENT_LENGTH {len(body)} and are dropped") == 1


def _receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65536)
    except ConnectionResetError:  # is no loss if all was received before
        return b""


# Variables


def test_what_a_client_could_forge_never_reaches_an_application(tcp: Server) -> None:
    forged = [
        "HTTP_PROXY",
        "HTTP_CONTENT_TYPE",
        "HTTP_CONTENT_LENGTH",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_X~!",
        "HTTP_X Y",
    ]
    seen = json.loads(tcp.get("/variables", variables=dict.fromkeys([*forged, "HTTP_X_A"], "7")).text)
    assert not set(forged) & set(seen)
    assert seen["HTTP_X_A"] == "7"
    assert seen["CONTENT_LENGTH"] == "0"


def test_repeated_headers_arrive_joined(tcp: Server) -> None:
    pairs = [("HTTP_X", "a"), ("HTTP_COOKIE", "a=1"), ("HTTP_X", "b"), ("HTTP_COOKIE", "b=2")]
    seen = json.loads(tcp.get("/variables", variables=pairs).text)
    assert (seen["HTTP_X"], seen["HTTP_COOKIE"]) == ("a, b", "a=1; b=2")


def test_a_request_cannot_set_what_belongs_to_the_server(tcp: Server) -> None:
    names = ["UWSGI_FILE", "UWSGI_SCRIPT", "SCGI_LISTEN", "PYTHONPATH", "LD_PRELOAD", "PATH"]
    seen = json.loads(tcp.get("/variables", variables=dict.fromkeys(names, "/tmp/evil")).text)
    assert {seen[name] for name in names if name in seen} <= {"/tmp/evil"}  # variables of this request, no more
    worker = tcp.ask_worker()
    assert b"/tmp/evil" not in Path(f"/proc/{worker}/environ").read_bytes()


def test_a_request_without_a_method_is_refused(server: Server) -> None:
    data = build_request({"REQUEST_METHOD": ""}, path="/pid")
    assert parse_response(raw_exchange(server.address, data, within=8)).status == 400


def test_many_requests_of_every_kind_cost_neither_worker_nor_descriptor_nor_much_memory(tcp: Server) -> None:
    worker = tcp.ask_worker()

    def descriptors() -> int:
        return len(list(Path(f"/proc/{worker}/fd").iterdir()))

    def resident() -> int:
        return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096

    def round_of_faults() -> Iterator[bytes]:
        for data, _, _ in REFUSED.values():
            yield data
        good = build_request({"CONTENT_LENGTH": "50"}, b"cut", method="POST", path="/read")
        yield from (good, good[:30])

    for data in round_of_faults():
        raw_exchange(tcp.address, data, half_close=True)
    wait_until(lambda: tcp.ask_worker() == worker)
    before = descriptors(), resident()
    for data in itertools.chain.from_iterable(round_of_faults() for _ in range(3)):
        try:
            raw_exchange(tcp.address, data, half_close=True)
        except Reset:
            pass
    tcp.assert_same_worker()
    assert descriptors() <= before[0]
    assert resident() - before[1] < 20 << 20
