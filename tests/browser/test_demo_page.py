"""`make demo` as a person meets it: the command of the Makefile, a real browser, Ctrl-C.

`UPDATE_SCREENSHOT=1 pytest tests/browser` makes the README's picture anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Chromium, Process, free_port, is_listening, require_program, start, wait_until

ROOT = Path(__file__).parents[2]
SCREENSHOT = ROOT / "docs/images/demo.png"


class Demo:
    def __init__(self, process: Process, address: str) -> None:
        self.process = process
        self.url = f"http://{address}/"

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals every process in it."""
        os.killpg(self.process.pid, signal.SIGINT)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """What `make demo` would run, with this Python's environment in place of .venv."""
    port = 8000 if "UPDATE_SCREENSHOT" in os.environ else free_port()  # in the picture, what people will see
    address = f"127.0.0.1:{port}"
    make = [require_program("make"), "--dry-run", "--always-make", "demo", f"HTTP={address}", "VENV=.demo-venv"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # no make above us
    recipe = subprocess.run(make, cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout.splitlines()
    said, command = recipe[-2:]
    assert said.startswith(f'echo "Look at http://{address}/')
    who = "$(.demo-venv/bin/python scripts/demo-user)"
    assert command == f"exec .demo-venv/bin/scgi serve {who} --listen 127.0.0.1:0 --http {address} examples/demo.py"
    script = f"{said}\n{command}".replace(".demo-venv/bin", str(Path(sys.executable).parent))
    # As root it runs as another user, who could not write what coverage measures.
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    process = start(["sh", "-c", script], cwd=ROOT, env=unmeasured, log_file=tmp_path / "demo.log", address=address)
    try:
        yield Demo(process, address)
        if process.running():
            process.stop()
        process.assert_nothing_left()
    finally:
        process.kill()
        print(f"--- log of the demo ---\n{process.log()}")


def worker_and_count(browser: Chromium) -> tuple[int, int]:
    served = re.match(r"\d+", browser.text("#served"))
    assert served
    return int(browser.text("#worker")), int(served[0])


def test_the_page_shows_which_worker_answered_and_counts_on(demo: Demo, chromium: Chromium) -> None:
    chromium.open(demo.url)
    worker, count = worker_and_count(chromium)
    assert worker in demo.process.descendants()
    assert count >= 1
    assert chromium.title.startswith(f"Answered by worker {worker}")
    assert "REQUEST_METHOD" in chromium.text("table")
    assert "HeadlessChrome" in chromium.text("table")
    chromium.follow("a.button")
    again = worker_and_count(chromium)
    assert again[0] != worker or again[1] > count
    assert chromium.console == []
    if os.environ.get("UPDATE_SCREENSHOT"):
        chromium.resize(1100, 800, scale=1.5)
        chromium.open(demo.url)
        chromium.screenshot(SCREENSHOT)


def test_a_visitor_follows_the_clock_link_and_orders(demo: Demo, chromium: Chromium) -> None:
    chromium.open(demo.url)
    chromium.follow('.links a[href="/clock"]')
    assert chromium.url == demo.url + "clock"
    assert re.search(r"\d\d:\d\d:\d\d", chromium.text(".time"))
    chromium.follow('main a[href="?pizza=hawaii&drink=beer"]')
    assert "One hawaii and one beer, coming up." in chromium.text("main")
    assert chromium.console == []


def test_an_order_without_a_drink_fails_and_the_next_page_comes(demo: Demo, chromium: Chromium) -> None:
    chromium.open(demo.url + "clock?pizza=hawaii")
    assert "500 Internal Server Error" in chromium.text()
    wait_until(lambda: "KeyError: 'drink'" in demo.process.log(), 5, "the traceback in the log")
    chromium.open(demo.url)
    assert worker_and_count(chromium)[1] >= 1


def test_a_file_sent_with_the_form_is_named_measured_and_hashed(demo: Demo, chromium: Chromium) -> None:
    content = os.urandom(3_000_000)
    file = chromium.folder / "pizza é.jpg"
    file.write_bytes(content)
    chromium.open(demo.url + "form")
    chromium.fill("input[name=note]", "with extra <cheese>")
    chromium.choose_file("input[type=file]", file)
    chromium.follow("form button")
    shown = chromium.text("dl")
    for fact in ("with extra <cheese>", "pizza é.jpg", "3,000,000 bytes", hashlib.sha256(content).hexdigest()):
        assert fact in shown
    assert chromium.console == []


@pytest.mark.alone
def test_ctrl_c_ends_all_of_it_within_a_second(demo: Demo) -> None:
    wait_until(lambda: " serves after " in demo.process.log(), 10, "a worker")
    processes = demo.process.descendants()
    began = time.monotonic()
    demo.interrupt()
    assert demo.process.wait() == 0
    took = time.monotonic() - began
    demo.process.assert_nothing_left(within=1)
    assert took < 1
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()]
    assert not is_listening(demo.url.removeprefix("http://").removesuffix("/"))
    assert f"Look at {demo.url}" in demo.process.log()
    assert "Traceback" not in demo.process.log()


def test_the_readme_shows_the_picture() -> None:
    assert f"]({SCREENSHOT.relative_to(ROOT)})" in (ROOT / "README.md").read_text()
    assert SCREENSHOT.read_bytes().startswith(b"\x89PNG")
