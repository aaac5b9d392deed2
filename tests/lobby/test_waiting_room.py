"""The lobby's process by itself: requests become whole in it, answers go out, and it knows when to stop waiting."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable

import pytest

from lobby.conftest import LobbyProcess, Ways
from scgi.net.handover import Errand, Parcel, take
from support import build_request, is_alive, parse_response, resident_bytes, wait_until

Connect = Callable[[], tuple[socket.socket, socket.socket]]
Start = Callable[..., LobbyProcess]
KIB = 1024


def read_all(peer: socket.socket) -> bytes:
    received = bytearray()
    while chunk := peer.recv(1 << 20):
        received += chunk
    return bytes(received)


def contents(parcel: Parcel) -> bytes:
    """The request, and that its parcel says where its body begins."""
    if parcel.file < 0:
        return parcel.data
    data = os.pread(parcel.file, parcel.size + 1, 0)
    assert len(data) == parcel.size
    head, _, _ = data.partition(b":")
    assert parcel.offset == len(head) + 1 + int(head) + 1
    return data


def post(size: int, head: int = 0) -> bytes:
    variables = {"HTTP_X_LONG": "x" * head} if head else {}
    return build_request(variables, os.urandom(size), method="POST")


# Requests


@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 5_000_000])
def test_a_request_that_has_hardly_begun_becomes_whole(ways: Ways, start: Start, connect: Connect, size: int) -> None:
    start()
    request = post(size)
    ours, peer = connect()
    ways.hand(ours, data=request[:1])
    sending = threading.Thread(target=peer.sendall, args=(request[1:],))
    sending.start()
    parcel = ways.whole()
    sending.join()
    assert contents(parcel) == request
    assert os.get_blocking(parcel.fd)
    assert os.read(ways.bell, 10) == b"\xfe"
    os.write(parcel.fd, b"answer")
    parcel.close()
    assert peer.recv(10) == b"answer"


@pytest.mark.parametrize("already", [1, 30, 600, 70_000])
@pytest.mark.parametrize("as_file", [False, True])
def test_what_a_worker_has_read_counts(ways: Ways, start: Start, connect: Connect, already: int, as_file: bool) -> None:
    start()
    request = post(100_000)
    ours, peer = connect()
    if as_file:
        with tempfile.TemporaryFile() as file:
            file.write(request[:already] + b"beyond")
            file.flush()
            ways.hand(ours, file=file.fileno(), size=already)
    else:
        ways.hand(ours, data=request[:already])
    peer.sendall(request[already:])
    parcel = ways.whole()
    assert contents(parcel) == request
    parcel.close()


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_every_step_of_a_request_is_understood_the_same_way(
    ways: Ways, start: Start, connect: Connect, step: int
) -> None:
    start()
    request = post(300)
    ours, peer = connect()
    if isinstance(peer.getsockname(), tuple):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ways.hand(ours)
    for place in range(0, len(request), step):
        peer.sendall(request[place : place + step])
        time.sleep(0)
    parcel = ways.whole()
    assert contents(parcel) == request
    parcel.close()


def test_a_head_of_half_a_megabyte_becomes_whole(ways: Ways, start: Start, connect: Connect) -> None:
    start()
    request = post(10, head=500 * KIB)
    ours, peer = connect()
    ways.hand(ours, data=request[:65536])
    peer.sendall(request[65536:])
    parcel = ways.whole()
    assert contents(parcel) == request
    parcel.close()


@pytest.mark.parametrize("size", [10, 100_000])
def test_bytes_after_the_body_are_not_part_of_the_request(
    ways: Ways, start: Start, connect: Connect, size: int
) -> None:
    lobby = start()
    request = post(size)
    ours, peer = connect()
    ways.hand(ours, data=request + b"5:hello,")
    peer.sendall(b"and more")
    parcel = ways.whole()
    assert contents(parcel) == request
    assert os.read(parcel.fd, 100) == b"and more"
    parcel.close()
    wait_until(lambda: "8 bytes follow a body" in lobby.log())


REFUSED = [
    (b"GET / HTTP/1.0\r\n\r\n", 400, "length-not-digits"),
    (b"99999999:", 431, "head-too-large"),
    (build_request({"CONTENT_LENGTH": str(1 << 40)}, method="POST"), 413, "body-too-large"),
    (b"10:0123456789;", 400, "no-comma"),
]


@pytest.mark.parametrize(("data", "status", "code"), REFUSED)
def test_a_malformed_request_gets_its_status_and_hears_it_to_the_end(
    ways: Ways, start: Start, connect: Connect, data: bytes, status: int, code: str
) -> None:
    lobby = start()
    ours, peer = connect()
    ways.hand(ours, data=data[:1])
    peer.sendall(data[1:])
    answer = parse_response(read_all(peer))
    assert answer.status == status
    peer.sendall(b"what is still on its way is thrown away")
    wait_until(lambda: f"({code})" in lobby.log())
    peer.close()
    wait_until(lambda: lobby.figures()[:2] == [0, 0])


def test_a_cut_body_is_the_applications_to_hear_of(ways: Ways, start: Start, connect: Connect) -> None:
    start()
    request = post(100)
    ours, peer = connect()
    ways.hand(ours, data=request[:1])
    peer.sendall(request[1:-1])
    peer.close()
    parcel = ways.whole()
    assert parcel.data == request[:-1]
    parcel.close()


@pytest.mark.parametrize("place", [1, 30])
def test_a_cut_head_is_a_400(ways: Ways, start: Start, connect: Connect, place: int) -> None:
    lobby = start()
    request = post(100)
    ours, peer = connect()
    ways.hand(ours, data=request[:1])
    peer.sendall(request[1:place] if place != 1 else b"")
    peer.shutdown(socket.SHUT_WR)
    assert parse_response(read_all(peer)).status == 400
    wait_until(lambda: lobby.figures()[3] == 1)


def test_a_peer_that_leaves_without_a_word_is_forgotten(ways: Ways, start: Start, connect: Connect) -> None:
    lobby = start()
    ours, peer = connect()
    ways.hand(ours)
    wait_until(lambda: lobby.figures()[0] == 1)
    peer.close()
    wait_until(lambda: lobby.figures() == [0, 0, 0, 0])


def test_silence_is_a_408_after_the_total_for_a_head_however_the_bytes_come(
    ways: Ways, start: Start, connect: Connect
) -> None:
    lobby = start(head=0.5)
    silent, dribbling, late = connect(), connect(), connect()
    began = time.monotonic()
    ways.hand(silent[0], began=began)
    ways.hand(dribbling[0], began=began)
    ways.hand(late[0], began=began - 0.4)
    request = post(0)
    place = 0
    while not select.select([dribbling[1]], [], [], 0.05)[0]:
        dribbling[1].send(request[place : place + 1])
        place += 1
    for _, peer in (silent, dribbling, late):
        assert parse_response(read_all(peer)).status == 408
    assert time.monotonic() - began < 5
    wait_until(lambda: lobby.figures()[2] == 3)


def test_a_body_that_stalls_is_a_408(ways: Ways, start: Start, connect: Connect) -> None:
    lobby = start(body=0.3)
    ours, peer = connect()
    ways.hand(ours, data=post(100)[:-50])
    assert parse_response(read_all(peer)).status == 408
    wait_until(lambda: "stalled after 50 of 100" in lobby.log())


@pytest.mark.alone  # else both are below it
def test_a_body_that_dribbles_below_the_floor_is_a_408_and_one_above_it_is_not(
    ways: Ways, start: Start, connect: Connect
) -> None:
    start(body=1.0, rate=1000)
    (slow_ours, slow), (ours, peer) = connect(), connect()
    request = post(50_000)
    ways.hand(slow_ours, data=request[:-50_000])
    ways.hand(ours, data=request[:-50_000])
    began = time.monotonic()
    place = len(request) - 50_000
    while time.monotonic() - began < 5 and not select.select([slow], [], [], 0.05)[0]:
        slow.send(b"x")
        peer.send(request[place : place + 200])
        place += 200
    assert parse_response(read_all(slow)).status == 408
    assert time.monotonic() - began > 0.9
    peer.sendall(request[place:])
    parcel = ways.whole()
    assert contents(parcel) == request
    parcel.close()


def test_whole_requests_wait_while_the_exit_is_full_and_all_of_them_come(
    ways: Ways, start: Start, connect: Connect
) -> None:
    lobby = start()
    request = post(60_000)
    connections = [connect() for _ in range(20)]
    for ours, peer in connections:
        ways.hand(ours, data=request[:10])
        peer.sendall(request[10:])
    wait_until(lambda: 0 < lobby.figures()[0] < 20 and lobby.ask("busy"))
    for _ in connections:
        parcel = ways.whole()
        assert contents(parcel) == request
        parcel.close()
    wait_until(lambda: lobby.figures() == [0, 0, 0, 0])


def unread_of(sock: socket.socket) -> int:
    """Bytes sent that the other side has not read yet."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_a_client_that_has_left_while_its_whole_request_waited_is_skipped(ways: Ways, start: Start) -> None:
    lobby = start()
    request = post(60_000)
    connections = [socket.socketpair() for _ in range(20)]
    for ours, peer in connections:
        ways.hand(ours, data=request[:10])
        peer.settimeout(10)
        peer.sendall(request[10:])
    wait_until(lambda: not any(unread_of(peer) for _, peer in connections) and 1 < lobby.figures()[0] < 20)
    connections[-1][1].close()
    came = 0
    while lobby.figures()[0] or select.select([ways.exit], [], [], 0)[0]:
        if (parcel := take(ways.exit)) is not None:
            parcel.close()
            came += 1
    assert came == 19
    assert lobby.figures() == [0, 0, 0, 1]
    for _, peer in connections:
        peer.close()


def test_where_there_is_no_room_for_a_request_its_peer_is_told_and_the_others_are_served(
    ways: Ways, start: Start, connect: Connect
) -> None:
    lobby = start("-f 200")  # KiB; beyond it writing fails as on a full disk
    (large, greedy), (small, modest) = connect(), connect()
    request = post(100_000)
    ways.hand(large, data=post(5_000_000)[:1000])
    ways.hand(small, data=request[:10])
    sending = threading.Thread(target=_send_ignoring, args=(greedy, b"x" * 4_000_000))
    sending.start()
    assert parse_response(read_all(greedy)).status == 507
    modest.sendall(request[10:])
    parcel = ways.whole()
    assert contents(parcel) == request
    parcel.close()
    wait_until(lambda: "ERROR no room for a request" in lobby.log())
    greedy.close()
    sending.join()


def _send_ignoring(peer: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):
        peer.sendall(data)


# Answers


def test_an_answer_is_sent_on_as_the_peer_takes_it(ways: Ways, start: Start, connect: Connect) -> None:
    lobby = start()
    data = os.urandom(5_000_000)
    ours, peer = connect()
    ways.hand(ours, Errand.ANSWER, data)
    wait_until(lambda: lobby.figures()[1] == 1)
    assert read_all(peer) == data
    peer.close()
    wait_until(lambda: lobby.figures() == [0, 0, 0, 0])


def test_a_piece_of_a_file_follows_the_bytes_before_it(ways: Ways, start: Start, connect: Connect) -> None:
    start()
    data = os.urandom(5_000_000)
    ours, peer = connect()
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        ways.hand(ours, Errand.ANSWER, b"head", file=file.fileno(), offset=1000, size=4_000_000)
    assert read_all(peer) == b"head" + data[1000:4_001_000]


def test_an_answer_that_broke_off_ends_in_a_reset(ways: Ways, start: Start, connect: Connect) -> None:
    start()
    ours, peer = connect()
    tcp = ours.family != socket.AF_UNIX
    ways.hand(ours, Errand.ANSWER, b"half", reset=True)
    if tcp:
        with pytest.raises(ConnectionResetError):
            while peer.recv(10):
                pass
    else:
        assert read_all(peer) == b"half"


def test_a_peer_that_takes_nothing_is_given_up(ways: Ways, start: Start, connect: Connect) -> None:
    lobby = start(send=0.3)
    ours, _ = connect()
    ways.hand(ours, Errand.ANSWER, b"x" * 20_000_000)
    wait_until(lambda: "took nothing for 0.3 s" in lobby.log())
    wait_until(lambda: lobby.figures() == [0, 0, 0, 0])


def test_the_farewell_alone_ends_our_side_and_throws_away_what_still_comes(
    ways: Ways, start: Start, connect: Connect
) -> None:
    lobby = start()
    ours, peer = connect()
    ours.sendall(b"the answer")
    ways.hand(ours, Errand.ANSWER)
    peer.sendall(b"x" * 3_000_000)
    assert read_all(peer) == b"the answer"
    peer.close()
    wait_until(lambda: lobby.figures() == [0, 0, 0, 0])


def test_a_peer_that_never_stops_sending_is_left_in_the_end(ways: Ways, start: Start, connect: Connect) -> None:
    start(linger=0.2, linger_total=0.5)
    ours, peer = connect()
    ways.hand(ours, Errand.ANSWER, b"bye")
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < 10:
            peer.sendall(b"x" * 1000)
            time.sleep(0.001)


# Many


def test_a_thousand_that_say_nothing_cost_little_memory_and_no_time(ways: Ways, start: Start) -> None:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    lobby = start()
    first = socket.socketpair()
    ways.hand(first[0])
    wait_until(lambda: lobby.figures()[0] == 1)
    pid = lobby.pid()
    before = resident_bytes(pid)
    peers = [first[1]]
    try:
        for _ in range(1000):
            ours, peer = socket.socketpair()
            peers.append(peer)
            ways.hand(ours, began=time.monotonic() + 30)
        wait_until(lambda: lobby.figures()[0] == 1001)
        assert resident_bytes(pid) - before < 8 << 20
        ticks = cpu_ticks(pid)
        time.sleep(1)  # the time in which they are to cost nothing
        assert cpu_ticks(pid) - ticks <= 1
    finally:
        for peer in peers:
            peer.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    wait_until(lambda: lobby.figures()[0] == 0)


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)


def test_when_it_is_full_the_request_that_has_waited_longest_makes_room(ways: Ways, start: Start) -> None:
    lobby = start("-n 160")
    request = post(10)
    connections = [socket.socketpair() for _ in range(100)]
    peers = [peer for _, peer in connections]
    for ours, peer in connections:
        peer.settimeout(10)
        ways.hand(ours, data=request[:1])
    wait_until(lambda: lobby.figures()[0] + lobby.figures()[2] == 100)
    full = lobby.figures()
    assert full[0] > 40 and full[2] > 10
    for peer in peers[: full[2]]:
        assert parse_response(read_all(peer)).status == 408
    peers[-1].sendall(request[1:])
    parcel = ways.whole()
    assert contents(parcel) == request
    parcel.close()
    for peer in peers:
        peer.close()


# The end


def test_it_begins_when_somebody_comes_and_a_killed_one_is_replaced_with_a_line_that_says_what_was_lost(
    ways: Ways, start: Start, connect: Connect
) -> None:
    lobby = start()
    assert lobby.ask("pid") == 0
    lost, lost_peer = connect()
    ways.hand(lost)
    pid = lobby.pid()
    wait_until(lambda: lobby.figures()[0] == 1)
    os.kill(pid, signal.SIGKILL)
    assert lost_peer.recv(1) == b""
    wait_until(lambda: "killed by SIGKILL: 1 requests that were not whole and 0 answers" in lobby.log())
    ours, peer = connect()
    ways.hand(ours)
    peer.sendall(post(10))
    ways.whole().close()
    assert lobby.pid() != pid


def test_at_the_end_of_a_generation_everybody_goes_to_the_next_ones_lobby(
    ways: Ways, start: Start, connect: Connect
) -> None:
    old = start()
    request, answer = post(200_000), os.urandom(5_000_000)
    reading, peer = connect()
    answering, reader = connect()
    ways.hand(reading, data=request[:100])
    ways.hand(answering, Errand.ANSWER, answer)
    peer.sendall(request[100:150_000])
    wait_until(lambda: old.figures()[:2] == [1, 1])
    pid = old.pid()
    old.ask("leave")
    wait_until(lambda: not is_alive(pid))
    new = start()
    wait_until(lambda: new.figures()[:2] == [1, 1])
    peer.sendall(request[150_000:])
    parcel = ways.whole()
    assert contents(parcel) == request
    parcel.close()
    assert read_all(reader) == answer


def test_draining_finishes_what_comes_and_answers_503_to_the_rest(ways: Ways, start: Start, connect: Connect) -> None:
    lobby = start()
    request = post(100)
    (first, quick), (second, slow) = connect(), connect()
    ways.hand(first, data=request[:10])
    ways.hand(second, data=request[:10])
    wait_until(lambda: lobby.figures()[0] == 2)
    pid = lobby.pid()
    lobby.ask("drain 1")
    quick.sendall(request[10:])
    ways.whole().close()
    assert parse_response(read_all(slow)).status == 503
    slow.close()
    wait_until(lambda: not is_alive(pid), 5)
    # Who comes later still finds a lobby, at its end.
    third, late = connect()
    ways.hand(third, data=request[:10])
    assert parse_response(read_all(late)).status == 503


def test_when_its_parent_is_gone_and_nobody_takes_over_it_says_so_to_those_who_wait(
    ways: Ways, start: Start, connect: Connect
) -> None:
    lobby = start()
    ours, peer = connect()
    answering, reader = connect()
    answer = os.urandom(5_000_000)
    ways.hand(ours, data=b"10")
    ways.hand(answering, Errand.ANSWER, answer)
    wait_until(lambda: lobby.figures()[:2] == [1, 1])
    pid = lobby.pid()
    ways.taking.close()
    lobby.process.kill()
    assert parse_response(read_all(peer)).status == 503
    assert read_all(reader) == answer
    peer.close()
    reader.close()
    wait_until(lambda: not is_alive(pid))
