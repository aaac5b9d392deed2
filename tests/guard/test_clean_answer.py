"""Who dies in the middle of a request that has run for a moment leaves its client a clean answer."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Launch, StartFront
from guard.conftest import descriptors_of, pass_the_moment, running, said, sockets_of
from support import Process, build_request, free_port, parse_response, raw_exchange, scgi_request, wait_until
from support.addresses import connect
from support.generations import pools_of, workers_of
from support.identity import needs_root
from support.room import Room

DEATHS = {
    "/kill": "killed by SIGKILL",
    "/crash": "killed by SIGSEGV",
    "/leave": "exited with status 3",
    "/starve": "killed by SIG",
}
MEMORY = ("--rlimit", f"as={4 << 30}")


def end_of(peer: socket.socket) -> bytes:
    """All that comes until the end of file."""
    return b"".join(iter(lambda: peer.recv(65536), b""))


def assert_named(server: Process, path: str, text: str) -> None:
    """The id in this answer is the one in the log's line about the death of who should have given it."""
    (name,) = re.findall(r"^Request (\S+)$", text, re.MULTILINE)
    line = rf"ERROR \S+: worker \d+ {DEATHS[path]}\S* while answering \S+ {path} \(request {re.escape(name)}, "
    wait_until(lambda: re.search(line, server.log()), what=f"a line about {path}, request {name}")


def assert_soon(server: Process, get: Callable[[], object]) -> None:
    """An answer comes within 100 ms of the death; the best of three, since the machine has others to serve too."""
    took: list[float] = []
    while not took or (took[-1] >= 0.1 and len(took) < 3):
        get()
        arrived = time.monotonic()
        took.append(arrived - said(server, "dying")[-1][0])
    assert min(took) < 0.1, took


@pytest.mark.alone
def test_a_worker_that_dies_in_a_request_leaves_its_client_a_502_with_the_requests_id_within_100_ms(
    every: Room,
) -> None:
    server = every.serve("pages.py", *MEMORY, workers=2)
    for path in DEATHS:
        answers = []
        assert_soon(server, lambda path=path, answers=answers: answers.append(scgi_request(server.address, path=path)))
        for answer in answers:
            assert answer.status == 502, (path, answer.raw, server.log())
            assert_named(server, path, answer.text)
    assert len(re.findall("answered 502 in the place of worker", server.log())) == len(said(server, "dying"))


@pytest.mark.alone
def test_so_does_one_that_somebody_kills(every: Room) -> None:
    server = every.serve("pages.py", workers=2)
    with connect(server.address) as peer:
        peer.sendall(build_request({"HTTP_X_REQUEST_ID": "order-77"}, path="/sleep"))
        (victim,) = running(server)
        pass_the_moment(server)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        answer = parse_response(end_of(peer))
        arrived = time.monotonic()
    assert answer.status == 502 and answer.text == "502 Bad Gateway\nRequest order-77\n"
    assert arrived - killed < 0.1


@pytest.mark.alone
def test_behind_nginx_too(every: Room, nginx: StartFront) -> None:
    server = every.serve("pages.py", *MEMORY, workers=2)
    url = nginx(to=server.address).url

    def get(path: str, answers: list[urllib.error.HTTPError]) -> None:
        with pytest.raises(urllib.error.HTTPError) as failed:
            urllib.request.urlopen(f"{url}{path}", timeout=10)
        answers.append(failed.value)

    for path in DEATHS:
        answers: list[urllib.error.HTTPError] = []
        assert_soon(server, lambda path=path, answers=answers: get(path, answers))
        for failed in answers:
            with failed as answer:
                assert answer.code == 502
                assert_named(server, path, answer.read().decode())


def test_the_clients_of_all_threads_of_a_worker_are_answered_each_with_its_own_id(each_user: Room) -> None:
    server = each_user.serve("pages.py", "--threads", "3")
    with ExitStack() as stack:
        peers = [stack.enter_context(connect(server.address)) for _ in range(3)]
        for peer in peers:
            peer.sendall(build_request(path="/sleep"))
        running(server, 3)
        pass_the_moment(server)
        (victim,) = workers_of(server)
        os.kill(victim, signal.SIGKILL)
        answers = [parse_response(end_of(peer)) for peer in peers]
    line = wait_until(lambda: re.search(rf"worker {victim} killed by .*", server.log()))[0]
    named = re.findall(r"\(request (\S+),", line)
    assert [answer.status for answer in answers] == [502] * 3
    assert len(set(named)) == 3
    assert sorted(f"502 Bad Gateway\nRequest {name}\n" for name in named) == sorted(answer.text for answer in answers)


@pytest.mark.parametrize("options", [("--no-new-privileges",), ("--chroot", "jail")], ids=lambda words: words[0])
def test_privileges_that_are_given_up_are_no_hindrance(each_user: Room, options: tuple[str, ...]) -> None:
    if options[0] == "--chroot":
        if not each_user.as_root:
            pytest.skip("only root can give the application another root folder")
        jail = each_user.folder / "jail"
        jail.mkdir()
        (each_user.folder / "pages.py").rename(jail / "pages.py")
        options = ("--chroot", str(jail), "--chdir", "/")
    server = each_user.serve("pages" if "--chroot" in options else "pages.py", *options, workers=2)
    answer = scgi_request(server.address, path="/leave")
    assert answer.status == 502, server.log()
    assert_named(server, "/leave", answer.text)


def core_limits(server: Process) -> set[str]:
    """The soft limits of the size of a core file, of the pool and its workers."""
    files = [Path(f"/proc/{pid}/limits").read_text() for pid in (*pools_of(server), *workers_of(server))]
    return {re.findall(r"Max core file size +(\S+)", text)[0] for text in files}


@needs_root
def test_what_was_roots_memory_ends_in_no_core_file_unless_somebody_asks_for_those(here: Room) -> None:
    assert core_limits(here.serve("pages.py", "--rlimit", "nofile=512")) == {"0"}
    here.servers[-1].stop()
    server = here.serve("pages.py", "--rlimit", "core=4096", workers=2)
    assert core_limits(server) == {"4096"}
    assert scgi_request(server.address, path="/leave").status == 502


PROGRAM = """
import os, time
from scgi.scgi_server import SCGIHandler, SCGIServer

class Handler(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\\r\\n\\r\\nhalf a page")
        time.sleep(0.7)
        os._exit(3)

SCGIServer(Handler, host="127.0.0.1", port={port}, max_children=2).serve()
"""


def test_a_program_that_runs_the_server_itself_has_it_too(launch: Launch, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "program.py").write_text(PROGRAM.format(port=port))
    server = launch(tmp_path / "program.py", address=f"127.0.0.1:{port}")
    answer = scgi_request(server.address, {"HTTP_X_REQUEST_ID": "order-77"})
    assert (answer.status, answer.text) == (502, "502 Bad Gateway\nRequest order-77\n")


def test_an_answer_to_head_has_no_body(each_kind: Room) -> None:
    server = each_kind.serve("pages.py", workers=2)
    raw = raw_exchange(server.address, build_request(method="HEAD", path="/kill"))
    assert raw.startswith(b"Status: 502 ") and raw.endswith(b"\r\n\r\n")


def test_an_answer_survives_a_body_and_what_the_peer_sends_beyond_it(each_kind: Room) -> None:
    server = each_kind.serve("pages.py", workers=2)
    head = build_request({"CONTENT_LENGTH": "300000"}, method="POST", path="/upload")
    assert scgi_request(server.address, head, b"x" * 300_000).status == 502
    assert scgi_request(server.address, head, b"x" * 300_000 + b"\r\n" * 70_000).status == 502


def test_an_answer_that_had_begun_gets_no_second_head(each_kind: Room) -> None:
    server = each_kind.serve("pages.py", workers=2)
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/begin"))
        first = peer.recv(65536)
        pass_the_moment(server)
        os.kill(running(server)[0], signal.SIGKILL)
        try:
            raw = first + end_of(peer)
        except ConnectionResetError:  # it is not to be taken for whole
            raw = first
    assert raw.endswith(b"\r\n\r\nbegun\n") and raw.count(b"Status:") == 1
    assert "in the place of" not in server.log()


def test_a_process_that_the_application_has_forked_holds_nobody_up(each_kind: Room) -> None:
    server = each_kind.serve("pages.py", workers=2)
    assert scgi_request(server.address, path="/fork").status == 502
    assert time.monotonic() - said(server, "dying")[-1][0] < 1


def test_the_peer_of_a_guarded_request_sees_the_end_though_nobody_lets_go_of_the_duplicate(each_kind: Room) -> None:
    server = each_kind.serve("pages.py", workers=2)
    (pool,) = pools_of(server)
    before = sockets_of(pool)
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/sleep", query="1"))
        wait_until(lambda: sockets_of(pool) == before + 1, what="the duplicate")
        os.kill(pool, signal.SIGSTOP)
        try:
            assert parse_response(end_of(peer)).text == "slept\n"
            assert sockets_of(pool) == before + 1
        finally:
            os.kill(pool, signal.SIGCONT)
    wait_until(lambda: sockets_of(pool) == before, what="the duplicate to be let go")


def test_so_does_the_peer_of_one_whose_answer_breaks_off_and_tcp_can_tell(each_kind: Room) -> None:
    server = each_kind.serve("pages.py", workers=2)
    (pool,) = pools_of(server)
    before = sockets_of(pool)
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/shorten"))
        wait_until(lambda: sockets_of(pool) == before + 1, what="the duplicate")
        os.kill(pool, signal.SIGSTOP)
        try:
            assert peer.recv(65536).endswith(b"half of what was announced\n")
            if server.address.startswith("unix:"):
                assert peer.recv(65536) == b""
            else:
                with pytest.raises(ConnectionResetError):
                    peer.recv(65536)
            assert sockets_of(pool) == before + 1
        finally:
            os.kill(pool, signal.SIGCONT)
    wait_until(lambda: sockets_of(pool) == before, what="the duplicate to be let go")


def test_what_a_pool_has_open_does_not_grow(here: Room) -> None:
    server = here.serve("pages.py", workers=4)
    (pool,) = pools_of(server)

    def round_of(deaths: int) -> None:
        with ExitStack() as stack:
            peers = [stack.enter_context(connect(server.address)) for _ in range(4)]
            for peer, path in zip(peers, ["/kill"] * deaths + ["/sleep"] * 4, strict=False):
                peer.sendall(build_request(path=path, query="0.8"))
            for peer in peers:
                assert parse_response(end_of(peer)).status in (200, 502)
        wait_until(lambda: len(workers_of(server)) == 4)

    round_of(deaths=2)
    wait_until(lambda: sockets_of(pool) <= 12)
    before = descriptors_of(pool)
    for _ in range(3):
        round_of(deaths=2)
    wait_until(lambda: descriptors_of(pool) <= before, 3, f"{before} descriptors: {os.listdir(f'/proc/{pool}/fd')}")


def test_two_hundred_guarded_requests_leave_no_descriptor(here: Room) -> None:
    server = here.serve("pages.py", "--threads", "25", workers=2)
    (pool,) = pools_of(server)
    idle = sockets_of(pool)
    wait_until(lambda: scgi_request(server.address).status == 200)
    before = descriptors_of(pool)
    for _ in range(4):
        with ExitStack() as stack:
            peers = [stack.enter_context(connect(server.address)) for _ in range(50)]
            for peer in peers:
                peer.sendall(build_request(path="/sleep", query="1.2"))
            wait_until(lambda: sockets_of(pool) == idle + 50, what="50 duplicates")
            assert [parse_response(end_of(peer)).text for peer in peers] == ["slept\n"] * 50
        wait_until(lambda: sockets_of(pool) == idle, what="the duplicates to be let go")
    # Under load some come by the lobby, whose process stays a while.
    wait_until(lambda: descriptors_of(pool) <= before, 15, f"{before} descriptors: {os.listdir(f'/proc/{pool}/fd')}")


def test_new_workers_have_nothing_of_the_duplicates(here: Room) -> None:
    server = here.serve("pages.py", workers=2)
    with connect(server.address) as peer:
        peer.sendall(build_request(path="/sleep", query="20"))
        (busy,) = running(server)
        (other,) = set(workers_of(server)) - {busy}
        usual = sockets_of(other)
        pass_the_moment(server)
        os.kill(other, signal.SIGKILL)
        (fresh,) = wait_until(lambda: set(workers_of(server)) - {busy, other})
        wait_until(lambda: sockets_of(fresh) == usual, 3, f"a fresh worker with {usual} sockets")
        os.kill(busy, signal.SIGKILL)
        assert parse_response(end_of(peer)).status == 502


def test_where_the_system_refuses_there_is_one_line_and_the_status_says_why(each_user: Room) -> None:
    server = each_user.serve("pages.py", workers=2, env={"CLOSED": "yes"})
    why = wait_until(lambda: re.findall(r"guard: off; .*\((.*)\)\n", server.log()))
    for _ in range(2):
        assert raw_exchange(server.address, build_request(path="/leave")) == b""
        assert scgi_request(server.address).status == 200
    assert len(re.findall("guard: off", server.log())) == len(why) == 1
    (generation,) = each_user.status(server)["generations"]
    assert generation["guard"] == f"off: {why[0]}"
    shown = each_user.run("status", server.address)
    assert shown.wait() == 0 and f"guard: off: {why[0]}" in shown.log()


def test_where_it_does_not_the_status_says_that_it_is_on(each_user: Room) -> None:
    server = each_user.serve("pages.py", workers=1)
    assert scgi_request(server.address, path="/leave").status == 502
    assert [generation["guard"] for generation in each_user.status(server)["generations"]] == ["on"]
