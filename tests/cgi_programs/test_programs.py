"""What a CGI program finds, and what is made of what it says: RFC 3875, with programs in several languages."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cgi_programs.conftest import Programs
from support import require_program

ENV = r"""
    printf 'Content-Type: text/plain\n\n'
    env -0 | sort -z | tr '\0\n' '\n ' | grep -vE '^(_|PWD|SHLVL|OLDPWD)='
"""
HELLO = r"printf 'Content-Type: text/plain\n\nhello\n'"


def variables_of(text: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.decode("latin-1").splitlines())


# -- what it finds ----------------------------------------------------------------------------------------------------


def test_the_environment_is_the_request_s_path_and_what_env_adds_and_nothing_else(programs: Programs) -> None:
    programs.write("env", ENV)
    programs.serve("--env", "DATABASE=here it is")
    asked = {
        "REQUEST_URI": "/app/env/a%20b?x=1",
        "SCRIPT_NAME": "/app",
        "REMOTE_ADDR": "192.0.2.7",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "DOCUMENT_ROOT": "/srv/www",
        "CONTENT_TYPE": "text/x",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_NAME": "caf\xe9",
        "HTTP_PROXY": "http://evil.example/",
        "LD_PRELOAD": "/tmp/evil.so",
        "REMOTE_USER": "",
    }
    found = variables_of(programs.ask("/env/a b", b"12345", asked, method="POST", query="x=1").body)
    for more in ("DOCUMENT_URI", "HTTP_HOST", "REMOTE_PORT", "REQUEST_SCHEME"):  # what the web server says besides
        del found[more]
    assert found == {
        "CONTENT_LENGTH": "5",
        "CONTENT_TYPE": "text/x",
        "DATABASE": "here it is",
        "DOCUMENT_ROOT": "/srv/www",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_NAME": "caf\xe9",
        "PATH": os.environ["PATH"],
        "PATH_INFO": "/a b",
        "PATH_TRANSLATED": "/srv/www/a b",
        "QUERY_STRING": "x=1",
        "REMOTE_ADDR": "192.0.2.7",
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/app/env/a%20b?x=1",
        "SCRIPT_FILENAME": f"{programs.folder}/env",
        "SCRIPT_NAME": "/app/env",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "scgi",
    }


def test_without_a_body_or_more_path_their_variables_are_not_there(programs: Programs) -> None:
    programs.write("env", ENV)
    found = variables_of(programs.ask("/env").body)
    assert not {"CONTENT_LENGTH", "CONTENT_TYPE", "PATH_INFO", "PATH_TRANSLATED"} & found.keys()
    assert found["QUERY_STRING"] == ""


@pytest.mark.parametrize("size", [0, 1, 5000, 65536, 200_000, 3_000_000])
def test_standard_input_is_exactly_the_body(programs: Programs, size: int) -> None:
    programs.write("cat", "printf 'Content-Type: x/y\\n\\n'; exec cat")
    body = os.urandom(size)
    answer = programs.ask("/cat", body, method="POST")
    assert (answer.status, answer.body) == (200, body)


def test_a_body_that_comes_in_pieces_is_read_to_its_end(programs: Programs) -> None:
    programs.write("cat", "printf 'Content-Type: x/y\\n\\n'; exec cat")
    body = os.urandom(300_000)
    assert programs.ask("/cat", body, method="POST", split=50_000).body == body  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "arguments"),
    [("one+two%20three", ["one", "two three"]), ("a=b", []), ("", []), ("a%00b", []), ("%3D", ["="])],
)
def test_the_words_of_an_indexed_query_are_arguments(programs: Programs, query: str, arguments: list[str]) -> None:
    programs.write("args", """printf 'Content-Type: x/y\n\n'; for word in "$@"; do echo "$word"; done""")
    assert programs.ask("/args", query=query).body.decode().splitlines() == arguments
    assert programs.ask("/args", method="POST", query=query).body == b""


def test_it_runs_in_its_own_folder(programs: Programs) -> None:
    programs.write("deep/er/pwd", "printf 'Content-Type: x/y\n\n'; pwd")
    programs.write("pwd", "printf 'Content-Type: x/y\n\n'; pwd")
    assert programs.ask("/deep/er/pwd").body.decode().strip() == f"{programs.folder}/deep/er"
    assert programs.ask("/pwd").body.decode().strip() == str(programs.folder)


def test_it_ignores_and_blocks_no_signal(programs: Programs) -> None:
    programs.write("signals", "printf 'Content-Type: x/y\n\n'; grep -E '^Sig(Blk|Ign)' /proc/self/status")
    masks = dict(line.split(":\t") for line in programs.ask("/signals").body.decode().splitlines())
    usual = (1 << 31) - 1  # those above are the C library's own
    assert {int(mask, 16) & usual for mask in masks.values()} == {0}


def test_it_has_no_descriptors_but_the_standard_ones(programs: Programs) -> None:
    programs.write("open", "printf 'Content-Type: x/y\n\n'; ls /proc/self/fd")
    found = programs.ask("/open").body.split()
    assert found[:3] == [b"0", b"1", b"2"] and len(found) == 4  # the last is the folder that ls reads


# -- which one it is --------------------------------------------------------------------------------------------------


def test_the_path_is_split_at_the_first_file(programs: Programs) -> None:
    programs.write("sub/env", ENV)
    for path, more in (("/sub/env", ""), ("/sub/env/", "/"), ("/sub//env/x//y", "/x//y"), ("//sub/env/..", "/..")):
        found = variables_of(programs.ask(path).body)
        assert found.get("PATH_INFO", "") == more
        assert found["SCRIPT_NAME"] + more == path
        assert found["SCRIPT_FILENAME"] == f"{programs.folder}/sub/env"
        root = found["DOCUMENT_ROOT"]
        assert (
            found.get("PATH_TRANSLATED", "")
            == {"": "", "/": f"{root}/", "/x//y": f"{root}/x/y", "/..": f"{root}/"}[more]
        )


def test_one_program_gets_every_path(programs: Programs) -> None:
    file = programs.write("env", ENV)
    programs.serve(what=file)
    for path in ("/", "/a/b", "/../c"):
        found = variables_of(programs.ask(path).body)
        assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("", path)


def test_a_mount_is_split_off_first(programs: Programs) -> None:
    programs.write("env", ENV)
    programs.serve("--mount", "/cgi-bin")
    found = variables_of(programs.ask("/cgi-bin/env/more").body)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/cgi-bin/env", "/more")


def test_nothing_outside_of_the_folder_is_run(programs: Programs) -> None:
    outside = programs.work / "outside"
    outside.write_text(f"#!/bin/sh\n{HELLO}\n")
    outside.chmod(0o755)
    (programs.folder / "link").symlink_to(outside)
    (programs.folder / "way-out").symlink_to(programs.work)
    (programs.folder / "inside").symlink_to(programs.write("hello", HELLO))
    for path, status in {
        "/inside": 200,
        "/link": 403,
        "/way-out/outside": 403,
        "/../work/outside": 404,
        "/./hello": 404,
        "/sub/../../work/outside": 404,
        "/": 404,
        "": 404,
        "/nothing": 404,
        "/" + "x" * 300: 404,
    }.items():
        assert programs.ask(path).status == status, path
    assert "leads out of" in programs.log() and "there is no program" in programs.log()


def test_what_may_not_be_run_is_403(programs: Programs) -> None:
    programs.write("data.txt", "x", mode=0o644)
    os.mkfifo(programs.folder / "pipe")
    assert [programs.ask(path).status for path in ("/data.txt", "/pipe")] == [403, 403]
    assert "chmod +x" in programs.log()


def test_a_program_is_a_file_so_a_new_one_is_run_at_once(programs: Programs) -> None:
    programs.write("hello", HELLO)
    assert programs.ask("/hello").body == b"hello\n"
    programs.write("hello", HELLO.replace("hello", "goodbye"))
    assert programs.ask("/hello").body == b"goodbye\n"


# -- what it answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "status", "headers", "body"),
    [
        ("Content-Type: a/b\\n\\nx", 200, {"content-type": "a/b", "content-length": "1"}, b"x"),
        ("Content-Type: a/b\\r\\n\\r\\nx", 200, {"content-type": "a/b"}, b"x"),
        ("Status: 404 Gone fishing\\nContent-Type: a/b\\n\\nx", 404, {}, b"x"),
        ("Status: 204\\n\\n", 204, {}, b""),
        ("Location: http://example.org/\\n\\n", 302, {"location": "http://example.org/"}, b""),
        ("Status: 301 Moved\\nLocation: /x\\n\\n", 301, {"location": "/x"}, b""),
        ("Location: /elsewhere/x\\n\\n", 302, {"location": "/elsewhere/x"}, b""),
        ("Location: //example.org/x\\n\\n", 302, {"location": "//example.org/x"}, b""),
        ("Set-Cookie: a=1\\nSet-Cookie: b=2\\nContent-Type: a/b\\n\\n", 200, {}, b""),
    ],
)
def test_an_answer_goes_out_as_it_was_meant(
    programs: Programs, output: str, status: int, headers: dict[str, str], body: bytes
) -> None:
    programs.write("say", f"printf '{output}'")
    answer = programs.ask("/say", variables={"SCRIPT_NAME": "/app"})
    assert (answer.status, answer.body) == (status, body)
    found = [(name.lower(), value) for name, value in answer.headers]
    assert headers.items() <= dict(found).items()
    assert output.count("Set-Cookie") == [name for name, _ in found].count("set-cookie")


def test_a_program_whose_name_begins_with_nph_speaks_http(programs: Programs) -> None:
    programs.write("nph-hello", "printf 'HTTP/1.1 201 Made\\r\\nContent-Type: a/b\\r\\nConnection: close\\r\\n\\r\\nx'")
    answer = programs.ask("/nph-hello")
    assert (answer.status, answer.body) == (201, b"x")
    assert "connection" not in [name.lower() for name, _ in answer.headers]


def test_a_local_redirect_is_answered_by_its_target(programs: Programs) -> None:
    programs.write("env", ENV)
    programs.write("go", "printf 'Location: /app/env/a%%20b?q=2\\n\\n'")
    answer = programs.ask("/go", b"body", {"SCRIPT_NAME": "/app"}, method="POST", query="q=1")
    assert answer.status == 200
    found = variables_of(answer.body)
    assert found["REQUEST_METHOD"] == "GET" and "CONTENT_LENGTH" not in found
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["QUERY_STRING"]) == ("/app/env", "/a b", "q=2")
    assert (found["REDIRECT_URL"], found["REQUEST_URI"]) == ("/app/go", "/app/env/a%20b?q=2")


def test_local_redirects_without_end_are_a_502(programs: Programs) -> None:
    programs.write("round", "echo x >> $COUNT; printf 'Location: /round\\n\\n'")
    count = programs.work / "count"
    programs.serve("--env", f"COUNT={count}")
    assert programs.ask("/round").status == 502
    assert count.read_text().count("x") == 11
    assert "redirects lead to further ones" in programs.log()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("exit 3", "no answer (exit status 3)"),
        ("exit 0", "no answer (exit status 0)"),
        ("kill -9 $$", "no answer (killed by SIGKILL)"),
        ("echo Traceback", "no proper head|no blank line"),
        ("printf 'Content-Type: x/y\\n'", "no blank line after its headers (exit status 0)"),
        ("printf '\\n\\nx'", "no proper head"),
        ("printf 'Status: many\\n\\n'", "no proper head"),
        ("printf 'Content-Length: -1\\n\\n'", "no proper head"),
        ("head -c 100000 /dev/zero | tr '\\0' x", "no proper head"),
        ("yes", "no proper head"),
    ],
)
def test_what_is_no_answer_is_a_502_and_the_log_says_what_it_was(programs: Programs, code: str, said: str) -> None:
    programs.write("bad", code)
    assert programs.ask("/bad").status == 502
    assert any(part in programs.log() for part in said.split("|")), programs.log()
    assert f"{programs.folder}/bad" in programs.log()


def test_a_program_that_cannot_be_started_is_a_500_and_the_log_says_why(programs: Programs) -> None:
    file = programs.folder / "no-interpreter"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    other = programs.folder / "no-program"
    other.write_text("just text\n")
    other.chmod(0o755)
    assert [programs.ask(f"/{name}").status for name in ("no-interpreter", "no-program")] == [500, 500]
    assert "look at the interpreter" in programs.log() and "#!/bin/sh" in programs.log()


def test_an_exit_status_after_a_good_answer_is_logged(programs: Programs) -> None:
    programs.write("late", f"{HELLO}; exit 7")
    assert programs.ask("/late").body == b"hello\n"
    assert "exit status 7" in programs.log()


def test_standard_error_goes_to_the_log_line_by_line_with_the_program_s_name(programs: Programs) -> None:
    programs.write("noisy", f"echo one >&2; printf 'two\\033[31m\\nthree' >&2; {HELLO}")
    assert programs.ask("/noisy").body == b"hello\n"
    lines = [line for line in programs.log().splitlines() if " noisy: " in line]
    assert [line.split(" noisy: ")[1][:3] for line in lines] == ["one", "two", "thr"]
    assert "\033" not in programs.log() and all("[request " in line for line in lines)


def test_standard_error_without_end_costs_nothing_but_the_log(programs: Programs) -> None:
    programs.write("noisy", f"head -c 3000000 /dev/zero | tr '\\0' x >&2; {HELLO}")
    assert programs.ask("/noisy").body == b"hello\n"


def test_head_has_no_body(programs: Programs) -> None:
    programs.write("hello", HELLO)
    answer = programs.ask("/hello", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_perl_and_python_programs(programs: Programs) -> None:
    require_program("perl")
    programs.write(
        "perl",
        """#!/usr/bin/perl
        read(STDIN, my $body, $ENV{CONTENT_LENGTH});
        print "Content-Type: text/plain\\n\\n", scalar reverse $body;
        """,
    )
    programs.write(
        "python",
        """#!/usr/bin/env python3
        import os, sys
        body = sys.stdin.buffer.read(int(os.environ["CONTENT_LENGTH"]))
        print("Content-Type: text/plain\\n", flush=True)
        sys.stdout.buffer.write(body[::-1])
        """,
    )
    for name in ("perl", "python"):
        assert programs.ask(f"/{name}", b"12345", method="POST").body == b"54321"


# -- what is refused at the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--cgi", "nowhere"], "expected a program or a folder of programs, found"),
        (["--cgi", "{file}"], "may not be run: it is not executable"),
        (["--cgi", "{folder}", "app.py"], "expected programs or an application, found both"),
        (["--cgi", "{folder}", "--threads", "2"], "its worker has one thread"),
        ([], "'scgi serve --cgi cgi-bin'"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(programs: Programs, options: list[str], sentence: str) -> None:
    file = programs.write("data", "x", mode=0o644)
    options = [option.format(file=file, folder=programs.folder) for option in options]
    command = [sys.executable, "-m", "scgi", "serve", "--check", *options]
    done = subprocess.run(command, cwd=programs.work, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert sentence in done.stderr.replace("\n", " ") and "Traceback" not in done.stderr
