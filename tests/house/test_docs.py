"""Every program, configuration and command in the README and docs/ is run as it stands there.

A page is one test, run from top to bottom in a folder of its own. What a block does is in its first line::

    ```python, toml, ini    with a comment as first line (`# hello.py`): this file is written
    ```python               without one: it is run
    ```console              the lines after `$ ` are run; the lines below each are its output, `...` is anything
    ```console server       the last command goes on until `<!-- Ctrl-C -->` or the page's end
    ```nginx                the inside of a `server {}`: from here on an nginx answers at http://localhost/
    ```sh                   what changes the machine: not run

An .ini file is a systemd unit; its ExecStart is started as a server is. Ports and folders of the machine are
exchanged for others, so that pages can run side by side.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import Process, free_port, is_listening, require_program, start, wait_until

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# These three begin with whole configurations of a web server and are run with the web servers' own tests.
ELSEWHERE = {"nginx.md", "apache.md", "lighttpd.md"}
# And these with the applications that they set up.
ELSEWHERE |= {
    file.stem.removeprefix("test_").replace("_", "-") + ".md" for file in (ROOT / "tests/recipes").glob("test_*.py")
}
PROGRAMS = {"curl", "busybox", "make"}  # that a machine may not have

BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$|^(<!-- Ctrl-C -->)$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
FILE_NAME = re.compile(r"# (\S+\.\w+)\n")
PORT = re.compile(r"(?<![\d.])(4000|4001|8000|63000)(?!\d)")
FOLDER = re.compile(r"(?<![\w.])/(run|srv|var/log)/(\w+)")
ADDRESS = re.compile(r"(?<!--upstream )(127\.0\.0\.1:\d+|unix:[\w/.-]+)")


class Page:
    """One page while it is run."""

    def __init__(self, folder: Path, machine: Path, nginx: Any) -> None:
        self.folder = folder
        self.machine = machine  # stands for the root of the file system
        self.nginx = nginx
        self.front = ""
        self.ports: dict[str, str] = {}
        self.servers: list[Process] = []
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("SCGI_")}
        if os.geteuid() == 0:
            self.environ["SCGI_ALLOW_ROOT"] = "yes"  # pages are written for ordinary users
        self.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        (machine / ".curlrc").write_text("silent\nshow-error\n")
        self.environ["CURL_HOME"] = str(machine)
        self.environ["SCGI_LISTEN"] = self.local("127.0.0.1:4000")  # which is the default

    def local(self, text: str) -> str:
        """The text with ports and folders that nobody else has."""

        def folder(found: re.Match[str]) -> str:
            here = self.machine / found[1] / found[2]
            here.mkdir(parents=True, exist_ok=True)
            if found[1] == "srv" and not (here / ".venv").exists():
                (here / ".venv").symlink_to(sys.prefix)
            return str(here)

        text = PORT.sub(lambda found: self.ports.setdefault(found[1], str(free_port())), text)
        if os.geteuid() == 0:
            text = re.sub(r"(scgi\.serve\(\w+)", r"\1, allow_root=True", text)
        return FOLDER.sub(folder, text).replace("http://localhost", self.front or "http://localhost")

    def run(self, text: str) -> None:
        if "make -C cgi2scgi" in text:
            shutil.copytree(ROOT / "cgi2scgi", self.folder / "cgi2scgi")
        for kind, word, content, interrupt in BLOCK.findall(text):
            content = self.local(content)
            if interrupt:
                self.stop()
            elif kind == "console":
                self.console(content, word)
            elif kind == "nginx":
                self.front = self.nginx(config=content).url
            elif kind in ("python", "toml", "ini") and (name := FILE_NAME.match(content)):
                (self.folder / name[1]).write_text(content)
                if kind == "ini":
                    self.unit(content)
            elif kind == "python":
                self.command(f"{sys.executable} - <<'END'\n{content}END", "")

    def console(self, content: str, word: str) -> None:
        commands = [(line, shown) for line, shown in COMMAND.findall(content.replace("\\\n", ""))]
        assert commands, f"a console block without a command:\n{content}"
        last = commands.pop() if word == "server" else None
        for line, shown in commands:
            self.command(line, shown, fails=word == "fails")
        if last:
            self.serve(*last)

    def command(self, line: str, shown: str, fails: bool = False) -> None:
        """Run it; what it prints may take a moment to become true (a signal travels)."""
        for program in PROGRAMS & set(line.split()):
            require_program(program)
        said: list[str] = []

        def as_shown() -> bool:
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=30
            )
            said[:] = [done.stdout + done.stderr, str(done.returncode)]
            return (done.returncode != 0) == fails and bool(pattern(shown).fullmatch(said[0]) or not shown)

        try:
            wait_until(as_shown, 5)
        except pytest.fail.Exception:
            pytest.fail(f"$ {line}\nshown:\n{shown}\nfound (status {said[1]}):\n{said[0]}", pytrace=False)

    def serve(self, line: str, shown: str, cwd: Path | None = None) -> None:
        for program in PROGRAMS & set(line.split()):
            require_program(program)
        log = self.machine / f"server-{len(self.servers)}.log"
        server = start(["bash", "-c", line], log_file=log, cwd=cwd or self.folder, env=self.environ)
        self.servers.append(server)
        addresses = ADDRESS.findall(line)
        if "scgi serve" in line and "--listen" not in line:
            addresses.append(self.environ["SCGI_LISTEN"])

        def up() -> bool:
            assert server.running(), f"$ {line}\n{server.log()}"
            if not addresses:
                return "serving" in server.log()
            return all(is_listening(address) for address in addresses)

        wait_until(up, 20, f"the server of: {line}")
        if shown:
            wait_until(lambda: pattern(shown).search(server.log()), 10, f"{shown}\nin the log:\n{server.log()}")

    def unit(self, content: str) -> None:
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(content)
        if parser.has_section("Service"):
            service = parser["Service"]
            self.serve(service["ExecStart"], "", Path(service["WorkingDirectory"]))

    def stop(self) -> None:
        """Ctrl-C: all processes of the terminal get the signal; all end, and leave nothing."""
        while self.servers:
            server = self.servers.pop()
            if server.running():
                os.killpg(server.pid, signal.SIGINT)
                server.wait()
            server.assert_nothing_left()


def pattern(shown: str) -> re.Pattern[str]:
    """`...` stands for anything in its line; at the line's end, for any lines that follow too."""
    anything = {"...": ".*", "...\n": "(?s:.*)"}
    return re.compile("".join(anything.get(part) or re.escape(part) for part in re.split(r"(\.{3}\n?)", shown)))


@pytest.fixture
def page(tmp_path: Path, short_tmp: Path, nginx: Any) -> Iterator[Page]:
    page = Page(tmp_path, short_tmp, nginx)
    try:
        yield page
        page.stop()
    finally:
        for server in page.servers:
            server.kill()


@pytest.mark.parametrize("file", [file for file in PAGES if file.name not in ELSEWHERE], ids=lambda file: file.stem)
def test_what_a_page_shows_is_true(page: Page, file: Path) -> None:
    page.run(file.read_text())


def test_every_link_leads_somewhere() -> None:
    dead = []
    for file in [*PAGES, *ROOT.glob("*.md")]:
        text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if re.match(r"\w+:", path):
                continue
            found = (file.parent / path) if path else file
            if not found.exists() or (anchor and anchor not in anchors(found)):
                dead.append(f"{file.relative_to(ROOT)}: {target}")
    assert not dead


def anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_map() -> None:
    index = (ROOT / "docs/index.md").read_text()
    pages = [str(file.relative_to(ROOT / "docs")) for file in PAGES[1:] if file.name != "index.md"]
    assert not [page for page in pages if f"({page})" not in index]


def test_every_make_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        named = set(re.findall(r"(?:`|^ {4})make ([\w-]+)", file.read_text(), re.MULTILINE))
        assert named <= targets, file.name
