"""A headless Chromium, spoken to over its DevTools pipe: no driver, no port, no library.

The protocol is JSON messages that end with a NUL: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.facts import wait_until
from support.processes import Process, start
from support.programs import require_program

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root, and containers
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

# Becomes the browser, once the pipes are where it expects them.
AT_3_AND_4 = """
import os, sys
read, write, program, *flags = sys.argv[1:]
os.dup2(int(read), 3)
os.dup2(int(write), 4)
os.execv(program, [program, *flags])
"""


class BrowserError(AssertionError):
    """What was asked of the page cannot be done."""


class Chromium:
    """One page of a browser. Selectors are those of CSS; each call waits until its element is there."""

    def __init__(self, process: Process, folder: Path, commands: int, answers: int) -> None:
        self.process = process
        self.folder = folder  # where the browser may read and write, also when it is a snap
        self.console: list[str] = []  # errors and exceptions of the pages
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._serial = 0
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self._call(f"{domain}.enable")
        self.resize(1100, 800)

    @classmethod
    @contextmanager
    def launch(cls) -> Iterator[Chromium]:
        program = require_program("chromium")
        # A snap sees neither /tmp nor hidden folders, only a folder of its own.
        snap = Path.home() / "snap/chromium/common"
        is_snap = "/snap" in os.path.realpath(program) or b"/snap/" in Path(program).read_bytes()[:4096]
        if is_snap:
            snap.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="scgi-", dir=snap if is_snap else "/tmp"))
        their_read, our_write = _pipe()
        our_read, their_write = _pipe()
        try:
            pipes = (their_read, their_write)
            command = [sys.executable, "-c", AT_3_AND_4, *map(str, pipes), program, *FLAGS]
            command.append(f"--user-data-dir={folder}/profile")
            process = start(command, log_file=folder / "log", pass_fds=pipes)
        finally:
            os.close(their_read)
            os.close(their_write)
        try:
            browser = cls(process, folder, our_write, our_read)
            yield browser
            browser._call("Browser.close")
            process.wait()
        finally:
            process.kill()
            os.close(our_read)
            os.close(our_write)
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return str(self.evaluate("location.href"))

    @property
    def title(self) -> str:
        return str(self.evaluate("document.title"))

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        with self._new_page():
            answer = self._call("Page.navigate", url=url)
            if answer.get("errorText"):
                raise BrowserError(f"{url}: {answer['errorText']}")

    def text(self, selector: str = "body") -> str:
        """What a reader sees in the first such element."""
        return str(self.evaluate(f"{self._found(selector)}.innerText"))

    def click(self, selector: str) -> None:
        """A click with the mouse, on the middle of the element, that stays on the page."""
        box = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})({self._found(selector)})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def follow(self, selector: str) -> None:
        """Click a link or a button and wait until the page it leads to is loaded."""
        with self._new_page():
            self.click(selector)

    def fill(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.evaluate(f"(e => {{ e.focus(); e.select && e.select() }})({self._found(selector)})")
        self._call("Input.insertText", text=text)

    def choose_file(self, selector: str, *files: Path) -> None:
        """Choose files in an ``<input type=file>``; keep them in ``folder``."""
        self._found(selector)
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def screenshot(self, file: Path) -> None:
        """A PNG of what is in view."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def _found(self, selector: str) -> str:
        """A JavaScript expression for the element, once it is there."""
        expression = f"document.querySelector({json.dumps(selector)})"
        wait_until(lambda: self.evaluate(f"{expression} !== null"), 10, f"an element {selector}")
        return expression

    @contextmanager
    def _new_page(self) -> Iterator[None]:
        """Wait until the document that is shown is another one than before, and complete."""
        self.evaluate("window.leaving = true")
        yield

        def arrived() -> bool:
            try:
                return bool(self.evaluate("!window.leaving && document.readyState === 'complete'"))
            except BrowserError:
                return False  # between two documents

        wait_until(arrived, 20, "the next page")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._serial += 1
        message: dict[str, Any] = {"id": self._serial, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        deadline = time.monotonic() + 30
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._serial:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer)

    def _receive(self, deadline: float, awaited: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self._answers, 1 << 20) if ready else b""
            if not chunk:
                raise BrowserError(f"no answer to {awaited}; the browser's log:\n{self.process.log()}")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.console.append(event["params"]["exceptionDetails"]["text"])
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.console.append(event["params"]["entry"]["text"])


def _pipe() -> tuple[int, int]:
    """A pipe whose numbers are above 4, which the browser's are about to be."""
    ends = os.pipe()
    try:
        read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    finally:
        for end in ends:
            os.close(end)
    return read, write
