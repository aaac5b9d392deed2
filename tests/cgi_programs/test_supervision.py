"""Programs that hang, fork, outlive their client, or are many: what becomes of them, their clients and their worker."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from cgi_programs.conftest import Programs
from support import (
    Process,
    Reset,
    build_request,
    is_alive,
    nginx,
    parse_response,
    raw_exchange,
    resident_bytes,
    scgi_request,
    wait_until,
)
from support.processes import descendants_of

HELLO = r"printf 'Content-Type: text/plain\n\nhello\n'"
MEGABYTE = 1 << 20
NOTE = "echo $$ > $WORK/pid.new; mv $WORK/pid.new $WORK/pid"  # which process it is


def connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(address.removeprefix("unix:"))
        return peer
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def noted(programs: Programs) -> int:
    """The process that a program has noted."""
    file = programs.work / "pid"
    wait_until(file.exists)
    return int(file.read_text())


def serve(programs: Programs, *options: str, listen: str = "") -> Process:
    return programs.serve("--env", f"WORK={programs.work}", *options, listen=listen)


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["sleep 100", "trap '' TERM; sleep 100 & wait; sleep 100", "while :; do :; done"])
def test_a_program_that_takes_too_long_is_a_504_and_ends_with_all_it_has_started(programs: Programs, code: str) -> None:
    programs.write("slow", f"{NOTE}; {code}")
    server = serve(programs, "--timeout", "0.5")
    assert programs.ask("/slow").status == 504
    assert not is_alive(noted(programs))
    assert "slow gave no sign of life for 0.5 s" in programs.log()
    wait_until(lambda: len(descendants_of(server.pid)) == 2)  # the pool and its worker, whom it did not cost


def test_a_program_that_hangs_within_its_answer_is_cut(programs: Programs) -> None:
    programs.write("slow", f"{HELLO}; {NOTE}; exec sleep 100")
    serve(programs, "--timeout", "0.5")
    with pytest.raises(ConnectionError):  # over TCP the client can tell
        raw_exchange(programs.server.address, build_request(path="/slow"), within=20)  # type: ignore[union-attr]
    wait_until(lambda: not is_alive(noted(programs)))


def test_a_program_that_gives_a_sign_of_life_now_and_then_may_go_on(programs: Programs) -> None:
    programs.write("steady", f"{HELLO}; for n in 1 2 3 4 5 6 7 8; do sleep 0.2; echo $n; done")
    serve(programs, "--timeout", "1")
    assert programs.ask("/steady").body == b"hello\n1\n2\n3\n4\n5\n6\n7\n8\n"


def test_an_answer_is_passed_on_as_it_comes(programs: Programs) -> None:
    programs.write("stream", f"{HELLO}; until [ -e $WORK/seen ]; do sleep 0.01; done; echo bye")
    server = serve(programs)
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/stream"))
        received = b""
        while b"hello" not in received:
            received += peer.recv(65536)
        (programs.work / "seen").touch()
        while data := peer.recv(65536):
            received += data
    assert parse_response(received).body == b"hello\nbye\n"


# -- the client -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_program_ends_when_its_client_has_left(programs: Programs, kind: str, short_tmp: Path) -> None:
    programs.write("slow", f"{NOTE}; exec sleep 100")
    server = serve(programs, listen=f"unix:{short_tmp}/s" if kind == "unix" else "")
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/slow"))
        pid = noted(programs)
    wait_until(lambda: not is_alive(pid))
    programs.write("hello", HELLO)
    assert programs.ask("/hello").status == 200


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_client_that_ends_its_own_side_gets_its_answer(programs: Programs, kind: str, short_tmp: Path) -> None:
    programs.write("slow", f"sleep 0.5; {HELLO}")
    server = serve(programs, listen=f"unix:{short_tmp}/s" if kind == "unix" else "")
    assert scgi_request(server.address, path="/slow", half_close=True).body == b"hello\n"


def test_a_client_that_reads_nothing_before_it_has_sent_all_gets_all_of_it(programs: Programs) -> None:
    programs.write("cat", "printf 'Content-Type: x/y\\n\\n'; exec cat")
    serve(programs)
    body = os.urandom(MEGABYTE) * 24
    assert programs.ask("/cat", body, method="POST").body == body


# -- what programs do -------------------------------------------------------------------------------------------------


def test_a_program_that_never_reads_its_input_answers(programs: Programs) -> None:
    programs.write("deaf", f"exec <&-; {HELLO}")
    programs.write("idle", f"{HELLO}; sleep 0.3")
    serve(programs)
    for name in ("deaf", "idle"):
        with nginx(to=programs.server.address) as front:  # type: ignore[union-attr]
            assert _upload(front.port, f"/{name}", 200) == (200, b"hello\n")


def _upload(port: int, path: str, megabytes: int) -> tuple[int, bytes]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    piece = bytes(MEGABYTE)
    headers = {"Content-Length": str(megabytes * MEGABYTE)}
    connection.request("POST", path, (piece for _ in range(megabytes)), headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("start", ["sleep 100 &", "setsid sleep 100 &"])
def test_a_program_that_forks_and_leaves_has_answered(programs: Programs, start: str) -> None:
    programs.write("fork", f"{HELLO}; {start} echo $! > $WORK/pid.new; mv $WORK/pid.new $WORK/pid; exit 0")
    serve(programs)
    assert programs.ask("/fork").body == b"hello\n"
    daemon = noted(programs)
    assert is_alive(daemon)  # it is the program's own affair
    os.kill(daemon, signal.SIGKILL)


def test_a_program_that_has_closed_its_output_does_not_keep_its_client(programs: Programs) -> None:
    programs.write("busy", f"{HELLO}; exec >&-; until [ -e $WORK/seen ]; do sleep 0.01; done; touch $WORK/done")
    serve(programs)
    assert programs.ask("/busy").body == b"hello\n"
    (programs.work / "seen").touch()
    wait_until((programs.work / "done").exists)


def test_a_program_that_is_killed_within_its_answer_is_not_passed_on_as_whole(programs: Programs) -> None:
    programs.write("dies", f"{HELLO}; kill -9 $$")
    serve(programs)
    try:
        answer = programs.ask("/dies")
    except Reset:
        pass  # some of it was out already
    else:
        assert answer.status == 502 and b"hello" not in answer.body
    assert "killed by SIGKILL" in programs.log()


def test_a_program_whose_worker_is_killed_goes_with_it(programs: Programs) -> None:
    programs.write("slow", f"{NOTE}; sleep 100 & wait")
    server = serve(programs, "--min-workers", "1", "--max-workers", "1")
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/slow"))
        pid = noted(programs)
        [worker] = [one for one in descendants_of(server.pid) if _parent(pid) == one]
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
    programs.write("hello", HELLO)
    assert programs.ask("/hello").status == 200
    wait_until(lambda: len(descendants_of(server.pid)) == 2)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_limit_of_memory_holds_for_programs(programs: Programs) -> None:
    programs.write(
        "hungry",
        """#!/usr/bin/env python3
        print("Content-Type: text/plain\\n")
        try:
            print(len(bytes(1 << 30)))
        except MemoryError:
            print("no more")
        """,
    )
    serve(programs, "--rlimit", "as=600M")
    assert programs.ask("/hungry").body == b"no more\n"


def test_term_waits_for_programs(programs: Programs) -> None:
    programs.write("slow", f"{NOTE}; sleep 1; {HELLO}")
    server = serve(programs)
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/slow"))
        noted(programs)
        server.signal(signal.SIGTERM)
        received = b""
        while data := peer.recv(65536):
            received += data
    assert parse_response(received).body == b"hello\n"
    assert server.wait() == 0


# -- many, and large --------------------------------------------------------------------------------------------------


def test_two_hundred_at_once_lose_none(programs: Programs) -> None:
    programs.write("hello", r"""printf "Content-Type: text/plain\n\n$QUERY_STRING\n" """)
    server = serve(programs)
    found: Counter[str] = Counter()
    begin = threading.Barrier(200)

    def ask(number: int) -> None:
        begin.wait(30)
        answer = scgi_request(server.address, path="/hello", query=f"q={number}", within=60)
        found["right" if (answer.status, answer.text) == (200, f"q={number}\n") else answer.text] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"right": 200}


@pytest.mark.alone
def test_a_gigabyte_goes_through_and_back_in_constant_memory(programs: Programs) -> None:
    programs.write("cat", "printf 'Content-Type: x/y\\n\\n'; exec cat")
    server = serve(programs, "--min-workers", "1", "--max-workers", "1", "--max-body", "1G")
    assert programs.ask("/cat", bytes(MEGABYTE), method="POST").status == 200
    everybody = descendants_of(server.pid)
    before = sum(map(resident_bytes, everybody))
    sent, received, most = hashlib.sha256(), hashlib.sha256(), 0
    request = build_request({"CONTENT_LENGTH": str(1 << 30)}, path="/cat", method="POST")
    with connect(server.address) as peer:

        def send() -> None:
            peer.sendall(request)
            for number in range(1024):
                piece = number.to_bytes(4, "big") * (MEGABYTE // 4)
                sent.update(piece)
                peer.sendall(piece)

        sender = threading.Thread(target=send)
        sender.start()
        head = b""
        while b"\r\n\r\n" not in head:
            head += peer.recv(65536)
        head, _, data = head.partition(b"\r\n\r\n")
        size, looked = 0, 0
        while data:
            received.update(data)
            size += len(data)
            if size - looked > 64 * MEGABYTE:
                looked, most = size, max(most, sum(resident_bytes(one) for one in everybody if is_alive(one)))
            data = peer.recv(1 << 18)
        sender.join()
    assert (size, received.hexdigest()) == (1 << 30, sent.hexdigest())
    assert most - before < 20 * MEGABYTE, (before, most)
