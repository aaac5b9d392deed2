"""A page of docs/how-to that sets up a real application, run as it stands; then the test asks the application.

Blocks mean what tests/house/test_docs.py says, in the application's own environment, and some more::

    ```nginx                     the inside of a `server {}`: from here on an nginx answers, recipe.web["nginx"]
    $ scgi config nginx ... | sudo tee ...    so does a web server with what is printed; mod_scgi, apache, lighttpd too
    ```sh, perl, php, html       with a name in a comment of the first two lines (`# shop.sh`): this file is written

The page may show several forms of an application. A form is what stands below one heading::

    recipe.run()                    # what stands before the first heading of the second level
    recipe.run("As a handler")      # that section; servers go on until recipe.stop()

These words of a page are exchanged, so that pages can run side by side: the ports 4000, 4001, 8000, 63000 and the
folders /srv/NAME, /run/NAME, /var/log/NAME, which then lie in `recipe.machine`.
"""

from __future__ import annotations

import os
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

from house.test_docs import BLOCK, Page
from interop.webservers import web_server
from recipes.environments import ROOT
from support import nginx

HOW_TO = ROOT / "docs/how-to"
NAMED = re.compile(r"(?:#!.*\n)?(?:#|//|;|<!--) (?P<name>[\w./-]+\.\w+|[\w./-]*/[\w.-]+)(?: -->)?\n")
CONFIGURATION = re.compile(r"scgi config (?P<front>nginx|mod_scgi|apache|lighttpd) (?P<options>.*?) +\| sudo tee .*")
FILES = {"sh", "perl", "php", "html", "python", "toml", "ini", "text"}


def named(kind: str, content: str) -> str:
    """The name of the file that a block is, or "". It may stand below `#!` or `<?php`."""
    found = NAMED.match(content.replace("<?php\n", "", 1))
    return found["name"] if found and kind in FILES else ""


class Recipe(Page):
    """One page, and the web servers and servers that it has started."""

    def __init__(self, name: str, folder: Path, machine: Path, environment: Path | None, stack: ExitStack) -> None:
        super().__init__(folder, machine, None)
        self.name = name
        self.page = HOW_TO / f"{name}.md"
        self.stack = stack
        self.web: dict[str, str] = {}  # where each web server answers, without a slash at the end
        self.environment = environment
        if environment:
            path = os.environ["PATH"]
            self.environ["PATH"] = f"{environment}/bin:{path}"
            self.environ["VIRTUAL_ENV"] = str(environment)

    def local(self, text: str) -> str:
        """/srv/NAME/.venv is the application's environment."""
        front, self.front = self.front, ""  # http://localhost may change from one command to the next
        text = super().local(text)
        self.front = front
        for link in self.machine.glob("srv/*/.venv"):
            if self.environment and os.readlink(link) != str(self.environment):
                link.unlink()
                link.symlink_to(self.environment)
        return text

    def run(self, heading: str = "") -> None:
        """Run what stands below a heading, its subsections included; "": what stands before the first."""
        for kind, word, content, interrupt in BLOCK.findall(self.section(heading)):
            if interrupt:
                self.stop()
                continue
            content = self.local(content)
            if kind == "console":
                self.console(content, word)
            elif kind == "nginx":
                self.front = self.web[kind] = self.stack.enter_context(nginx(config=content)).url
            elif name := named(kind, content):
                self.write(name, content)

    def command(self, line: str, shown: str, fails: bool = False) -> None:
        if found := CONFIGURATION.fullmatch(line):
            front = self.stack.enter_context(web_server(found["front"], *shlex.split(found["options"])))
            self.front = self.web[found["front"]] = front.url
        else:
            super().command(line.replace("http://localhost", self.front), shown, fails)

    def section(self, heading: str) -> str:
        parts = re.split(r"^## (.*)\n", self.page.read_text(), flags=re.MULTILINE)
        sections = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
        return sections[heading]

    def write(self, name: str, content: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        if content.startswith("#!"):
            file.chmod(0o755)

    def log(self) -> str:
        """Of the servers that run."""
        return "".join(server.log() for server in self.servers)
