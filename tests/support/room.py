"""Servers under one roof: a folder, an address and an application of their own, of which nothing may be left."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.addresses import free_port, short_folder
from support.facts import wait_until
from support.generations import workers_of
from support.load import write_application
from support.processes import Process, start
from support.users import ordinary_user

ROOT = os.geteuid() == 0


class Room:
    """`as_root`: the servers are root's, their application is an ordinary user's; else all is that user's."""

    def __init__(self, folder: Path, as_root: bool, address: str) -> None:
        self.folder = folder
        self.address = address
        self.as_root = as_root
        self.person = ordinary_user()
        self.servers: list[Process] = []
        self.app = write_application(folder / "app.py", "1")
        (folder / "packages").mkdir()
        (folder / "run").mkdir(mode=0o700)
        if ROOT and not as_root:
            for path in (folder, folder / "run"):
                os.chown(path, self.person.uid, self.person.gid)
        self.environment = {
            **self.person.install(folder / "packages"),
            "RUNTIME_DIRECTORY": str(folder / "run"),  # for control sockets
            "SCGI_ALLOW_ROOT": "",
        }

    def run(
        self,
        *words: str | Path,
        address: str = "",
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> Process:
        """`scgi WORDS…`, as whoever the servers are; `wrapper` is the command that it is given to, if to any."""
        other = ROOT and not self.as_root
        process = start(
            [*wrapper, self.person.python, "-m", "scgi", *words],
            log_file=self.folder / f"log-{len(self.servers)}",
            address=address,
            cwd=self.folder,
            env={**self.environment, **(env or {})},
            user=self.person.uid if other else None,
            group=self.person.gid if other else None,
        )
        self.servers.append(process)
        return process

    def start(
        self,
        app: str | Path,
        *options: str,
        listen: str = "",
        wait: bool = True,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> Process:
        """`scgi serve` at `listen`, else at the room's own address; once something listens there."""
        address = listen or self.address
        user = ["--user", str(self.person.uid)] if self.as_root else []
        words = ["serve", "--listen", address, *user, *options, app]
        server = self.run(*words, address=address if wait else "", env=env, wrapper=wrapper)
        server.address = address
        return server

    def serve(self, app: str | Path, *options: str, workers: int = 1, env: Mapping[str, str] | None = None) -> Process:
        """A server of so many workers, at least and at most, once they are there."""
        count = ["--min-workers", str(workers), "--max-workers", str(workers)]
        server = self.start(app, *count, *options, env=env)
        wait_until(lambda: len(workers_of(server)) == workers or not server.running(), 10, f"{workers} workers")
        assert server.running(), server.log()
        return server

    def reload(self, server: Process, within: float = 20) -> tuple[int, str]:
        """`scgi reload` for the server: its exit status and what it said."""
        process = self.run("reload", server.address)
        return process.wait(within), process.log()

    def status(self, server: Process) -> dict[str, Any]:
        """What `scgi status --json` says."""
        process = self.run("status", server.address, "--json")
        assert process.wait() == 0, process.log()
        found: dict[str, Any] = json.loads(process.log())
        return found

    def limit(self, pids: Iterable[int], resource: str, number: int | None) -> None:
        """Set a soft limit of processes of one user; None lifts it. Only that user may, without special rights."""
        pids = list(pids)
        code = "import sys, resource as r\nfor pid in map(int, sys.argv[2:]):\n  hard = r.prlimit(pid, r.NAME)[1]\n"
        code += "  r.prlimit(pid, r.NAME, (int(sys.argv[1]) if sys.argv[1] else hard, hard))"
        ours = all(os.stat(f"/proc/{pid}").st_uid == os.geteuid() for pid in pids)
        whose: Any = {} if ours else {"user": self.person.uid, "group": self.person.gid, "extra_groups": []}
        words = ["" if number is None else str(number), *map(str, pids)]
        subprocess.run([self.person.python, "-c", code.replace("NAME", resource), *words], check=True, **whose)

    def leave(self) -> None:
        """Stop what still runs; whatever is left of anything is a failure."""
        for server in self.servers:
            if server.running():
                assert server.stop(within=40) == 0
            server.assert_nothing_left()

    def print_logs(self) -> None:
        for server in self.servers:
            print(f"--- the end of the log of {server.name} ---\n{server.log()[-10_000:]}")


@contextmanager
def room(*, as_root: bool, unix: bool) -> Iterator[Room]:
    with short_folder() as folder:
        found = Room(folder, as_root, f"unix:{folder}/s" if unix else f"127.0.0.1:{free_port()}")
        try:
            yield found
            found.leave()
        except BaseException:
            found.print_logs()
            raise
        finally:
            for server in found.servers:
                server.kill()
