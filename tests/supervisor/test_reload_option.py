"""`scgi serve --reload`: a saved file is served, a broken one is not, and the watcher goes with the server."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from support import Process, scgi_request, wait_until

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one"]
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    return folder / "app.py"


@pytest.fixture
def server(scgi_serve, app: Path) -> Process:
    server = scgi_serve("app.py", "--reload", cwd=app.parent)
    assert scgi_request(server.address).text == "one"
    return server


def answers(server: Process, text: str) -> None:
    wait_until(lambda: scgi_request(server.address).text == text, 20, f"the answer {text!r}")


def generations(server: Process) -> int:
    return server.log().count(" serves after ")


def watcher_of(server: Process) -> int:
    wait_until(lambda: "the file watcher started as process" in server.log())
    return int(server.log().rpartition("the file watcher started as process ")[2].split()[0])


def test_a_saved_file_is_served(server: Process, app: Path) -> None:
    for number in ("two", "three"):
        app.write_text(APP.replace("one", number))
        answers(server, number)
    assert f"changed: {app}" in server.log()


def test_a_module_of_the_application_counts_too(server: Process, app: Path) -> None:
    (app.parent / "parts").mkdir()
    (app.parent / "parts/words.py").write_text("WORD = b'two'")
    app.write_text("from parts.words import WORD\n" + APP.replace('b"one"', "WORD"))
    answers(server, "two")
    (app.parent / "parts/words.py").write_text("WORD = b'three'")
    answers(server, "three")


def test_a_broken_file_is_not_served_and_the_repaired_one_is(server: Process, app: Path) -> None:
    app.write_text("def application(:")
    wait_until(lambda: "SyntaxError" in server.log())
    assert scgi_request(server.address).text == "one"
    app.write_text(APP.replace("one", "repaired"))
    answers(server, "repaired")


def test_other_files_are_no_reason_to_reload(server: Process, app: Path) -> None:
    watcher_of(server)
    (app.parent / "__pycache__").mkdir(exist_ok=True)
    for name in ("data.json", "page.html", ".hidden.py", "__pycache__/aside.py"):
        (app.parent / name).write_text("changed")
    app.write_text(APP.replace("one", "two"))
    answers(server, "two")
    assert "data.json" not in server.log() and "aside.py" not in server.log()


def test_a_watcher_that_is_killed_is_replaced(server: Process, app: Path) -> None:
    first = watcher_of(server)
    subprocess.run(["kill", "-KILL", str(first)], check=True)
    wait_until(lambda: watcher_of(server) != first)
    app.write_text(APP.replace("one", "two"))

    def told() -> bool:  # before the new one has begun to look, nothing is told: save it again
        app.touch()
        return scgi_request(server.address).text == "two"

    wait_until(told, 20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_the_watcher_goes_with_the_server(server: Process, number: int) -> None:
    watcher = watcher_of(server)
    status = server.stop(number=number)
    assert status == (-number if number == signal.SIGKILL else 0)
    wait_until(lambda: watcher not in server.survivors(), 2)
    server.assert_nothing_left()


def test_the_watcher_never_imports_the_application(scgi_serve, app: Path) -> None:
    app.write_text("import os\nopen(f'imported-{os.getpid()}', 'w').close()\n" + APP)
    server = scgi_serve("app.py", "--reload", cwd=app.parent)
    watcher = watcher_of(server)
    app.write_text(app.read_text().replace("one", "two"))
    answers(server, "two")
    imported = {int(file.name.removeprefix("imported-")) for file in app.parent.glob("imported-*")}
    assert len(imported) == 2
    assert not imported & {watcher, server.pid}


def test_without_watchfiles_nothing_starts(launch, app: Path) -> None:
    code = "import sys; sys.modules['watchfiles'] = None; from scgi.cli.main import main; sys.argv[0] = 'scgi'; main()"
    process = launch("-c", code, "serve", "--reload", "--listen", "127.0.0.1:0", "app.py", cwd=app.parent)
    assert process.wait() == 78
    assert "--reload needs an optional part: pip install 'scgi-server[reload]'" in process.log()
    assert len(process.log().splitlines()) == 1
