"""The same programs on the reference and on ours: what both do, and every difference with its reason.

A difference is a heading in docs/explanation/reference-differences.md; `package.differs` sees to that.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from contract.packages import Package, ask
from support import Process, wait_until

Run = Callable[..., Process]
TIME = r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d \d{4}\n"


def logged(process: Process, text: str) -> None:
    wait_until(lambda: text in process.log(), what=f"{text!r} in the log")


def test_a_handler_that_overrides_nothing_shows_the_variables(run: Run, package: Package) -> None:
    answer = ask(run("default_page.py").address, variables=[("HTTP_X", "it's \xe9")], query="a=b")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    lines = answer.text.splitlines()
    assert lines[0] == "CONTENT_LENGTH: '0'"
    assert {"QUERY_STRING: 'a=b'", "SCGI: '1'", """HTTP_X: "it's \xe9\""""} <= set(lines)


def test_produce_writes_bytes_and_on_ours_text(run: Run, package: Package) -> None:
    address = run("produce.py").address
    assert ask(address, query="bytes").body == b"as it is: \xff\x00\r\n"
    text = ask(address, query="text")
    if package.differs("`output` takes text"):
        assert text.status == 0
    else:
        assert re.fullmatch(TIME, text.text)


def test_produce_reads_its_body(run: Run, package: Package) -> None:
    address = run("produce.py").address
    body = bytes(range(256)) * 1000
    assert ask(address, query="echo", body=body).body == b"256000 256000 " + body
    assert ask(address, query="echo").body == b"0 0 "
    assert ask(address, query="lines", body=b"first\nsecond").body == b"first\nthen sec"


def test_one_object_per_child_is_made_after_the_fork(run: Run, package: Package) -> None:
    process = run("produce.py")
    for number in (1, 2, 3):
        made_in, pid, parent, served, closed = ask(process.address, query="state").text.split()
        assert made_in == pid
        assert parent == str(process.pid)
        assert (served, closed) == (str(number), "False")


def test_a_child_that_exits_has_its_answer_sent_and_is_replaced(run: Run, package: Package) -> None:
    address = run("produce.py").address
    pid = ask(address, query="state").text.split()[1]
    assert ask(address, query="exit").text == "last words"
    assert ask(address, query="state").text.split()[1] != pid


def test_an_exception_before_any_output(run: Run, package: Package) -> None:
    process = run("produce.py")
    pid = ask(process.address, query="state").text.split()[1]
    answer = ask(process.address, query="raises")
    logged(process, "raised on purpose")
    next_pid = ask(process.address, query="state").text.split()[1]
    if package.differs("An exception is answered with 500 and ends nobody"):
        assert answer.status == 0
        assert next_pid != pid
    else:
        assert answer.status == 500
        assert b"raised on purpose" not in answer.body
        assert next_pid == pid


def test_an_exception_after_output_has_begun(run: Run, package: Package) -> None:
    process = run("produce.py")
    answer = ask(process.address, query="breaks_off")
    logged(process, "raised on purpose")
    assert 0 < len(answer.body) <= 100_000
    assert set(answer.body) == {ord("a")}
    assert ask(process.address, query="state").status == 200


def test_a_handler_that_writes_nothing(run: Run, package: Package) -> None:
    answer = ask(run("produce.py").address, query="nothing")
    if package.differs("What a handler writes is judged"):
        assert (answer.status, answer.body) == (0, b"")
    else:
        assert answer.status == 500


def test_a_status_of_its_own(run: Run, package: Package) -> None:
    answer = ask(run("produce.py").address, query="found")
    assert (answer.status, answer.body) == (404, b"no")


def test_the_pizza_with_arguments_and_without(run: Run, package: Package) -> None:
    process = run("pizza.py")
    order = "pizza=hawaii&drink=beer"
    assert re.fullmatch(TIME + "One hawaii, one beer\n", ask(process.address, query=order).text)
    different = package.differs("An exception is answered with 500 and ends nobody")
    for query, error, on_reference in (("pizza=hawaii", "KeyError", 200), ("", "ValueError", 0)):
        assert ask(process.address, query=query).status == (on_reference if different else 500)
        logged(process, error)
        assert ask(process.address, query=order).text.endswith("One hawaii, one beer\n")


def test_handle_connection_with_binary_files(run: Run, package: Package) -> None:
    process = run("connection_binary.py")
    request = {"SCRIPT_NAME": "/dynamic/page", "PATH_INFO": "/more"}
    answer = ask(process.address, variables=request, body=b"order")
    assert answer.status == 200
    assert answer.headers == {"Content-Type": "text/html"}
    assert answer.text == "/dynamic /page/more order\n"
    assert ask(process.address, variables=request, query="run_once").text == "/dynamic /page/more \n"
    assert ask(process.address, variables=request).status == 200
    wait_until(lambda: process.log().count("PublishingHandler created") == 2, what="a second object")
    assert ask(process.address, variables={"SCRIPT_NAME": "/elsewhere"}).status in (0, 500)
    logged(process, "AssertionError")
    assert "error while closing" not in process.log()


def test_handle_connection_with_text_files(run: Run, package: Package) -> None:
    body = bytes(range(256)) + "né\r\n".encode()
    answer = ask(run("connection_text.py").address, body=body)
    if package.differs("Text files of a connection hold bytes"):
        assert answer.status == 0
    else:
        assert answer.body == b"%d characters for %d bytes\r\n" % (len(body), len(body)) + body


def test_produce_cgilike_looks_like_cgi(run: Run, package: Package) -> None:
    process = run("cgilike.py", ALREADY_THERE="yes")

    def part(name: str, **request: Any) -> str:
        answer = ask(process.address, query=name, **request)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        return answer.body.decode("latin-1")

    text = "pizza é"
    # Without an end of what the client sends, the reference would wait for more than the body: see `input`.
    assert ask(process.address, query="stdin", body=text.encode(), half_close=True).text == f"8 bytes: {text}"
    assert part("lines", body=b"a\nb\n", half_close=True) == "['a\\n', 'b\\n']"
    assert part("getenv") == "GET GET GET"
    different = package.differs("The environment of `produce_cgilike` is the real one")
    assert part("subprocess") == str(not different)
    assert part("inherited") == ("None" if different else "yes")
    if package.differs("The streams of `produce_cgilike` are text streams"):
        assert part("buffer") == ""
    else:
        assert part("buffer") == "raw \xff bytes"


def test_path_of_a_request_never_becomes_the_process_path(run: Run, package: Package) -> None:
    process = run("cgilike.py", PATH="/usr/bin:/bin")
    answer = ask(process.address, query="path", variables={"PATH": "/tmp/evil"})
    if package.differs("Some variables never reach the environment"):
        assert answer.text == "/tmp/evil"
    else:
        assert answer.text == "/usr/bin:/bin"


def test_an_exception_in_produce_cgilike(run: Run, package: Package) -> None:
    process = run("cgilike.py")
    answer = ask(process.address, query="raise")
    logged(process, "raised on purpose")
    if package.differs("An exception is answered with 500 and ends nobody"):
        assert (answer.status, answer.body) == (200, b"")
    else:
        assert answer.status == 500
    assert ask(process.address, query="getenv").text == "GET GET GET"


def test_an_override_of_read_env_may_change_the_variables(run: Run, package: Package) -> None:
    process = run("read_env.py")
    assert ask(process.address, body=b"body").text == "added on the way: body"
    assert ask(process.address, query="raises").status == (
        0 if package.differs("An exception is answered with 500 and ends nobody") else 500
    )
    assert ask(process.address).status == 200


def test_five_slow_requests_have_five_processes_and_the_sixth_waits_for_the_first_that_is_free(
    run: Run, package: Package, tmp_path: Path
) -> None:
    process = run("busy.py")
    folder = tmp_path / "folder"

    def begun() -> set[str]:
        return {file.name.removeprefix("begun-") for file in folder.glob("begun-*")}

    with ThreadPoolExecutor() as threads:
        slow: dict[int, Future[str]] = {}
        for number in range(1, 6):
            slow[number] = threads.submit(lambda n: ask(process.address, query=str(n)).text, number)
        wait_until(lambda: begun() == set("12345"), what="five requests at once")
        assert len(process.children()) == 5
        (folder / "go-6").touch()
        sixth = threads.submit(lambda: ask(process.address, query="6").text)
        (folder / "go-3").touch()
        assert sixth.result(20) == slow[3].result(20)
        for number in (1, 2, 4, 5):
            (folder / f"go-{number}").touch()
        assert len({future.result(20) for future in slow.values()}) == 5
    assert len(process.children()) == 5


def test_kill_9_of_a_child_costs_its_request_alone(run: Run, package: Package, tmp_path: Path) -> None:
    process = run("busy.py")
    folder = tmp_path / "folder"
    with ThreadPoolExecutor() as threads:
        lost = threads.submit(ask, process.address, query="lost")
        wait_until((folder / "begun-lost").exists)
        (victim,) = process.children()
        kept = threads.submit(ask, process.address, query="kept")
        wait_until((folder / "begun-kept").exists)
        os.kill(victim, signal.SIGKILL)
        assert lost.result(20).status == 0
        for number in range(4):
            (folder / f"go-{number}").touch()
            assert ask(process.address, query=str(number)).status == 200
        (folder / "go-kept").touch()
        assert kept.result(20).status == 200
    wait_until(lambda: victim not in process.children())


def test_hup_replaces_the_children(run: Run, package: Package) -> None:
    process = run("produce.py")

    def pid() -> str:
        return ask(process.address, query="state").text.split()[1]

    first = pid()
    process.signal(signal.SIGHUP)
    # The reference looks at the signal after the next request.
    wait_until(lambda: pid() != first, what="a new child")
    wait_until(lambda: int(first) not in process.children(), what="the end of the old one")


def test_a_socket_of_its_own(run: Run, package: Package) -> None:
    assert ask(run("given_socket.py").address).text == "hello"


def test_a_socket_from_systemd(run: Run, package: Package) -> None:
    assert "SCGI: '1'" in ask(run("activated.py").address).text


def test_term_ends_the_server(run: Run, package: Package) -> None:
    process = run("default_page.py")
    assert ask(process.address).status == 200
    if package.differs("SIGTERM and SIGINT let `serve` return"):
        assert process.stop() == -signal.SIGTERM
    else:
        assert process.stop() == 0
