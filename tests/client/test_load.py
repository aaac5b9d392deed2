"""A load's own promises, against toy servers: every request is accounted for, whatever becomes of it."""

from __future__ import annotations

import errno
import math
import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from scgi.client.load import Stop, run_load
from scgi.client.plan import Plan, template
from scgi.client.tally import CUT, MALFORMED, REFUSED, RESET, SECOND, TIMED_OUT, Histogram, Tally
from scgi.errors import MisuseError, ScgiError
from scgi.net.address import parse_address
from scgi.net.queue import queue_length
from scgi.protocol.request import parse_head
from support import free_port, wait_until

Manners = Callable[[socket.socket], object]

OK = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
ANNOUNCED = b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


class Toy:
    """A server that treats one connection after the other in the same way, and remembers what it was sent."""

    def __init__(self, listener: socket.socket, manners: Manners) -> None:
        self.listener = listener
        self.manners = manners
        self.served = 0
        name = listener.getsockname()
        self.address = name if isinstance(name, str) else f"127.0.0.1:{name[1]}"

    def serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
                with peer:
                    self.manners(peer)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EBADF):  # shut down, closed
                    return
            self.served += 1


@contextmanager
def toy(manners: Manners, listener: socket.socket | None = None) -> Iterator[Toy]:
    with listener or socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        server = Toy(listener, manners)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            if listener.fileno() >= 0:
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def unix_listener(folder: Path, backlog: int = 100) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/s")
    listener.listen(backlog)
    return listener


def whole_request(peer: socket.socket) -> tuple[dict[str, str], bytes]:
    data = b""
    while (head := parse_head(data)) is None or len(data) < head.end + head.content_length:
        piece = peer.recv(65536)
        if not piece:
            raise ConnectionError
        data += piece
    return head.variables, data[head.end :]


def say(answer: bytes) -> Manners:
    def manners(peer: socket.socket) -> None:
        whole_request(peer)
        peer.sendall(answer)

    return manners


def reset(peer: socket.socket) -> None:
    whole_request(peer)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def plan(address: str, *, method: str = "GET", body: bytes = b"", same: bool = False, **others: Any) -> Plan:
    request = template(method, "/shop?item=100%25", headers={}, variables={}, body=body, same=same)
    return Plan(parse_address(address), request, **{"concurrency": 4, "timeout": 20.0, **others})


def run(asked: Plan, processes: int = 1) -> Tally:
    with ExitStack() as stack:
        stop = Stop()
        stack.callback(stop.close)
        return run_load(asked, stop, processes)


# -- what becomes of requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [OK, ANNOUNCED])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_every_answer_is_counted_with_its_status_its_bytes_and_its_time(
    short_tmp: Path, kind: str, answer: bytes
) -> None:
    with toy(say(answer), unix_listener(short_tmp) if kind == "unix" else None) as server:
        found = run(plan(server.address, requests=50))
    assert (found.answered, found.failed, server.served) == (50, 0, 50)
    assert found.statuses == {200: 50} and found.received == 50 * len(answer) and found.sent > 50 * 400
    assert 0 < found.latency.least <= found.latency.at(0.5) <= found.latency.most < found.ended - found.began
    assert not (found.unfinished or found.unsent or found.interrupted)


@pytest.mark.parametrize(
    ("manners", "kind", "reason"),
    [
        (reset, RESET, "the server reset the connection without answering"),
        (say(b""), CUT, "the server closed the connection without answering"),
        (say(OK[:20]), CUT, "the server closed the connection within the response head, after 20 bytes"),
        (say(ANNOUNCED[:-2]), CUT, "the response body ended after 3 of 5 bytes"),
        (say(b"HTTP/1.1\r\n\r\n"), MALFORMED, "expected 'Name: value', found 'HTTP/1.1'"),
        (say(b"\x1b[2J\0garbage"), MALFORMED, "NUL in the head"),
    ],
)
def test_a_request_without_a_whole_answer_has_failed_and_the_report_says_how(
    manners: Manners, kind: str, reason: str
) -> None:
    with toy(manners) as server:
        found = run(plan(server.address, requests=10))
    assert found.failures == {kind: 10} and found.reasons == {kind: reason}
    assert found.answered == 0 and not found.statuses


def test_a_server_that_stalls_costs_each_request_its_timeout_and_no_more() -> None:
    with ExitStack() as stack, toy(lambda peer: stack.enter_context(peer.dup())) as server:
        found = run(plan(server.address, requests=6, timeout=0.2))
    assert found.failures == {TIMED_OUT: 6} and found.reasons == {TIMED_OUT: "no whole answer within 0.2 s"}


def test_a_server_that_goes_away_refuses_the_rest() -> None:
    def fifth_is_last(peer: socket.socket) -> None:
        if server.served == 4:
            server.listener.close()
        say(OK)(peer)

    with toy(fifth_is_last) as server:
        found = run(plan(server.address, requests=20, concurrency=1))
    assert found.answered == 5 and found.failures == {REFUSED: 15}
    assert found.reasons == {REFUSED: "Connection refused"}


def test_statuses_of_errors_are_answers() -> None:
    with toy(say(b"Status: 503 Service Unavailable\r\n\r\nlater")) as server:
        found = run(plan(server.address, requests=3))
    assert (found.answered, found.failed, found.statuses) == (3, 0, {503: 3})


def test_an_answer_to_head_has_no_body() -> None:
    with toy(say(b"Status: 200 OK\r\nContent-Length: 5\r\n\r\n")) as server:
        assert run(plan(server.address, requests=3, method="HEAD")).answered == 3


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_large_body_arrives_whole(short_tmp: Path, kind: str) -> None:
    body = random.Random(1).randbytes(3_000_000)
    bodies = []

    def manners(peer: socket.socket) -> None:
        bodies.append(whole_request(peer)[1])
        peer.sendall(OK)

    with toy(manners, unix_listener(short_tmp) if kind == "unix" else None) as server:
        found = run(plan(server.address, requests=3, method="POST", body=body, concurrency=3))
    assert found.answered == 3 and bodies == [body] * 3 and found.sent > len(body) * 3


def test_a_body_that_the_server_does_not_want_still_has_its_answer() -> None:
    def manners(peer: socket.socket) -> None:
        peer.recv(1)
        peer.sendall(b"Status: 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n")
        peer.shutdown(socket.SHUT_WR)
        wait_until(lambda: peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or not peer.recv(1 << 20))

    with toy(manners) as server:
        found = run(plan(server.address, requests=2, method="POST", body=bytes(20_000_000), concurrency=1))
    assert found.statuses == {413: 2} and found.sent < 40_000_000


# -- a queue that is full ----------------------------------------------------------------------------------------------


def test_a_full_queue_is_waited_out(short_tmp: Path) -> None:
    listener = unix_listener(short_tmp, backlog=1)

    def manners(peer: socket.socket) -> None:
        if server.served < 50:
            wait_until(lambda: (queue_length(listener) or 0) > 1, what="the queue to be full again")
        say(OK)(peer)

    with toy(manners, listener) as server:
        found = run(plan(server.address, requests=100, concurrency=100))
    assert (found.answered, found.failed) == (100, 0) and 50 < found.waited < 100


def test_a_queue_that_stays_full_is_a_timeout(short_tmp: Path) -> None:
    with unix_listener(short_tmp, backlog=1):
        found = run(plan(f"{short_tmp}/s", requests=5, concurrency=5, timeout=0.2))
    assert found.failures == {TIMED_OUT: 5} and found.waited == 3


# -- nobody there ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 3])
def test_a_server_that_is_not_there_is_one_sentence(short_tmp: Path, processes: int) -> None:
    for address in (f"unix:{short_tmp}/none", f"127.0.0.1:{free_port()}"):
        with pytest.raises(ScgiError, match=f"^no server listens at {address}$"):
            run(plan(address, seconds=20.0), processes)
    with pytest.raises(ScgiError, match=r"^cannot connect to unix:/dev/null/x: Not a directory$"):
        run(plan("/dev/null/x", seconds=20.0), processes)
    with pytest.raises(ScgiError, match=r"^cannot connect to no\.such\.invalid:1: the host name is not known \("):
        run(plan("no.such.invalid:1", seconds=20.0), processes)


def test_of_the_addresses_of_a_name_the_first_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with toy(say(OK)) as server:
        _, port = server.listener.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", other)) for other in (free_port(), port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        assert run(plan("shop.example:80", requests=10)).answered == 10


def test_more_connections_than_descriptors_are_refused_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    with pytest.raises(ScgiError, match="5000 connections at a time need 5050 file descriptors, and 4096 are allowed"):
        run(plan("127.0.0.1:1", requests=1, concurrency=5000))


# -- how long, how many, how fast --------------------------------------------------------------------------------------


def test_what_is_under_way_when_the_time_is_over_is_waited_for() -> None:
    def slow(peer: socket.socket) -> None:
        time.sleep(0.3)
        say(OK)(peer)

    with toy(slow) as server:
        found = run(plan(server.address, seconds=0.1, concurrency=2))
    assert (found.answered, found.failed, found.unfinished, found.unsent) == (2, 0, 0, 0)
    assert found.seconds >= 0.6


def test_at_a_rate_requests_begin_when_they_are_due() -> None:
    times = []

    def manners(peer: socket.socket) -> None:
        times.append(time.monotonic_ns())
        say(OK)(peer)

    with toy(manners) as server:
        found = run(plan(server.address, requests=20, rate=100.0))
    assert found.answered == 20 and found.seconds >= 0.19
    assert all(when >= found.began + number * SECOND // 100 for number, when in enumerate(times))


def test_at_a_rate_what_waits_behind_a_slow_request_counts_from_when_it_was_due() -> None:
    def first_is_slow(peer: socket.socket) -> None:
        if not server.served:
            time.sleep(0.5)
        say(OK)(peer)

    with toy(first_is_slow) as server:
        found = run(plan(server.address, requests=30, rate=100.0, concurrency=1))
    assert found.answered == 30
    assert found.latency.at(0.5) >= 0.3 * SECOND  # the last of them was due after 0.29 s


def test_what_was_due_and_had_no_connection_to_begin_on_is_told() -> None:
    def slow(peer: socket.socket) -> None:
        time.sleep(0.5)
        say(OK)(peer)

    with toy(slow) as server:
        found = run(plan(server.address, seconds=0.2, rate=100.0, concurrency=1))
    assert (found.answered, found.unsent) == (1, 19)


def test_a_load_that_is_stopped_has_the_figures_so_far() -> None:
    def tenth_rings(peer: socket.socket) -> None:
        if server.served == 10:
            stop.ring()
            wait_until(lambda: not peer.recv(65536))
        say(OK)(peer)

    stop = Stop()
    with toy(tenth_rings) as server:
        found = run_load(plan(server.address, seconds=60.0, concurrency=3), stop)
    stop.close()
    assert found.interrupted and not found.failed
    # The eleventh was in the server's hand; what else had been begun, and which answers had been looked at, is chance.
    assert 7 <= found.answered <= 10 and 1 <= found.unfinished <= 3
    assert 11 <= found.answered + found.unfinished <= 13


# -- what is sent ------------------------------------------------------------------------------------------------------


def heads(count: int, same: bool) -> list[dict[str, str]]:
    found = []

    def manners(peer: socket.socket) -> None:
        found.append(whole_request(peer)[0])
        peer.sendall(OK)

    with toy(manners) as server:
        run(plan(server.address, requests=count, same=same))
    return found


def test_requests_differ_in_port_query_and_cookie_and_in_nothing_else() -> None:
    found = heads(40, same=False)
    for name in ("REMOTE_PORT", "QUERY_STRING", "REQUEST_URI", "HTTP_COOKIE"):
        assert len({head.pop(name) for head in found}) == 40
    assert all(head == found[0] for head in found)


def test_if_asked_for_requests_are_all_the_same() -> None:
    found = heads(10, same=True)
    assert all(head == found[0] for head in found)
    assert found[0]["REQUEST_URI"] == "/shop?item=100%25" and "HTTP_COOKIE" not in found[0]


def variables(**options: Any) -> dict[str, str]:
    request = template("GET", options.pop("uri", "/"), **{"headers": {}, "variables": {}, **options})
    found = parse_head(request.head(7) + request.body)
    assert found is not None and found.end == len(request.head(7))
    return found.variables


def test_the_number_is_added_to_what_is_asked_for() -> None:
    found = variables(uri="/a%20b?x=%25", headers={"HTTP_COOKIE": "a=100%"})
    assert found["REQUEST_URI"] == "/a%20b?x=%25&request=0000000007"
    assert found["QUERY_STRING"] == "x=%25&request=0000000007"
    assert found["PATH_INFO"] == "/a b" and found["DOCUMENT_URI"] == "/a%20b"
    assert found["HTTP_COOKIE"] == f"a=100%; session={7:032x}"
    assert found["REMOTE_PORT"] == "10007"


def test_a_variable_that_is_given_is_sent_as_it_is() -> None:
    given = {"QUERY_STRING": "q", "REMOTE_PORT": "1", "HTTP_COOKIE": "", "SERVER_NAME": "shop"}
    found = variables(variables=given)
    assert given.items() <= found.items() and found["REQUEST_URI"] == "/"


@pytest.mark.parametrize("name", ["CONTENT_LENGTH", "SCGI", "wsgi.input", "a b", "100%"])
def test_a_variable_that_no_request_may_have_is_refused(name: str) -> None:
    with pytest.raises(MisuseError):
        variables(variables={name: "1"})


def test_numbers_that_run_out_begin_again() -> None:
    request = template("GET", "/", headers={}, variables={})
    assert request.head(10**10 + 7) == request.head(7)
    assert len(request.head(10**10 - 1)) == len(request.head(0))


# -- how long it took --------------------------------------------------------------------------------------------------


def times(count: int) -> list[int]:
    chance = random.Random(count)
    return [int(chance.lognormvariate(13, 2)) for _ in range(count)]


def histogram(found: list[int]) -> Histogram:
    result = Histogram()
    for one in found:
        result.add(one)
    return result


@pytest.mark.parametrize("count", [1, 2, 10, 1000, 20_000])
def test_a_histogram_is_right_to_one_per_cent(count: int) -> None:
    sample = sorted(times(count))
    found = histogram(sample)
    assert (found.least, found.most, found.count) == (sample[0], sample[-1], count)
    assert math.isclose(found.mean, sum(sample) / count)
    for share in (0.001, 0.5, 0.9, 0.99, 0.999, 1):
        assert math.isclose(found.at(share), sample[max(0, math.ceil(share * count) - 1)], rel_tol=0.01)


@pytest.mark.parametrize("time", [0, 1, 255, 256, 257, 10**6, 10**15, 10**20])
def test_whatever_time_there_is_has_its_place(time: int) -> None:
    found = histogram([time])
    assert found.at(0.5) == found.least == found.most == time
    assert [count for _, count in found.rows() if count] == [1]


def test_histograms_of_several_processes_make_one() -> None:
    sample = times(3000)
    merged = histogram(sample[:1000])
    for part in (sample[1000:], []):
        merged.merge(histogram(part))
    assert vars(merged) == vars(histogram(sample))
    from_nothing = Histogram()
    from_nothing.merge(merged)
    assert vars(from_nothing) == vars(merged)


def test_rows_for_people_are_few_round_and_complete() -> None:
    for sample in (times(1000), [250_000, 251_000], [1, 10**12], [999_999, 1_000_000, 1_000_001]):
        found = histogram(sample)
        rows = found.rows()
        assert 1 <= len(rows) <= 16 and sum(count for _, count in rows) == len(sample)
        assert rows[-1][0] >= found.most and rows[-1][1] and rows[0][0] >= found.least
        assert all(str(edge).rstrip("0").isdigit() and len(str(edge).rstrip("0")) <= 2 for edge, _ in rows)
    assert histogram([]).rows() == [] and histogram([]).at(0.5) == 0 and histogram([]).mean == 0
