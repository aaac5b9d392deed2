"""Every promise is tested twice where tests run as root: with a server of root's, whose application is `nobody`'s, and
with a server that is `nobody`'s as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import Process, free_port, short_folder, start, wait_until
from support.generations import workers_of
from support.load import write_application
from support.users import ordinary_user

PAGES = Path(__file__).with_name("pages.py")
ROOT = os.geteuid() == 0


@dataclass
class House:
    """Starts servers, as one user, in a folder of their own; nothing may be left of them."""

    folder: Path
    as_root: bool  # the server; its application never is
    address: str
    servers: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.person = ordinary_user()
        (self.folder / "packages").mkdir()
        self.environment = self.person.install(self.folder / "packages")
        self.app = write_application(self.folder / "app.py", "1")
        self.pages = self.folder / "pages.py"
        self.pages.write_bytes(PAGES.read_bytes())
        if ROOT and not self.as_root:
            os.chown(self.folder, self.person.uid, self.person.gid)

    def command(self, app: str | Path, *options: str) -> list[str | Path]:
        """`scgi serve` with these options, as the user in question."""
        user = ["--user", str(self.person.uid)] if self.as_root else []
        return [self.person.python, "-m", "scgi", "serve", *user, *options, app]

    def start(
        self, app: str | Path, *options: str, listen: str = "", wait: bool = True, env: dict[str, str] | None = None
    ) -> Process:
        """`scgi serve` at `listen`, else at the house's own address; once something listens there."""
        address = listen or self.address
        other = ROOT and not self.as_root
        server = start(
            self.command(app, "--listen", address, *options),
            log_file=self.folder / f"log-{len(self.servers)}",
            address=address if wait else "",
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            user=self.person.uid if other else None,
            group=self.person.gid if other else None,
        )
        server.address = address
        self.servers.append(server)
        return server

    def serve(self, app: str | Path, *options: str, workers: int = 1, **others: object) -> Process:
        """A server of so many workers, at least and at most, once they are there."""
        count = ["--min-workers", str(workers), "--max-workers", str(workers)]
        server = self.start(app, *count, *options, **others)  # type: ignore[arg-type]
        wait_until(lambda: len(workers_of(server)) == workers, 10, f"{workers} workers")
        return server

    def leave(self) -> None:
        for server in self.servers:
            if server.running():
                assert server.stop() == 0
            server.assert_nothing_left()


WHOSE = ["root", "ordinary"] if ROOT else ["ordinary"]


def house(as_root: bool, unix: bool) -> Iterator[House]:
    with short_folder() as folder:
        found = House(folder, as_root, f"unix:{folder}/s" if unix else f"127.0.0.1:{free_port()}")
        try:
            yield found
            found.leave()
        finally:
            for server in found.servers:
                server.kill()
                print(f"--- log of {server.name} ---\n{server.log()[-10_000:]}")


@pytest.fixture(name="house", params=WHOSE)
def house_fixture(request: pytest.FixtureRequest) -> Iterator[House]:
    """Over TCP."""
    yield from house(request.param == "root", unix=False)


@pytest.fixture(params=WHOSE)
def unix_house(request: pytest.FixtureRequest) -> Iterator[House]:
    """Over a unix socket."""
    yield from house(request.param == "root", unix=True)


@pytest.fixture(params=[(whose, kind) for whose in WHOSE for kind in ("unix", "tcp")], ids="-".join)
def either_house(request: pytest.FixtureRequest) -> Iterator[House]:
    """Over both, one after the other."""
    yield from house(request.param[0] == "root", unix=request.param[1] == "unix")
