"""CPU per request of `scgi serve` against uWSGI, side by side in one run.

::

    python bench/compare.py [--rounds 7] [--seconds 1.5] [--clients 4] [--limit 1.3] [-- OPTIONS OF scgi serve]

Both servers run bench/hello.py on a unix socket, `scgi serve` with its default settings. In each round each of them is
loaded in turn by the same clients (bench/client.c, compiled here: it needs a C compiler), with a real browser's
headers; port, query and cookie change from request to request. What counts is the CPU time of the server's whole
process tree, read from /proc, per request answered; the clients' own time is not in it.

Quote the ratio; the absolute times belong to this machine at this hour. It is fair when both run the same Python, which
`make bench` sees to: Debian's uWSGI for Debian's Python, else pip builds one for the Python that runs this. With
--limit the exit status tells whether scgi costs at most so many times as much as uWSGI.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


def tree_cpu(root: int) -> float:
    """CPU seconds so far of a process, its descendants, and those of them that have ended."""
    children: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used[int(entry)] = sum(map(int, fields[11:15])) / TICK
        children.setdefault(int(fields[1]), []).append(int(entry))
    total, waiting = 0.0, [root]
    while waiting:
        pid = waiting.pop()
        total += used.get(pid, 0.0)
        waiting += children.get(pid, [])
    return total


class Server:
    """A server under test, listening on a unix socket."""

    def __init__(self, name: str, command: list[str], path: str) -> None:
        self.name = name
        self.path = path
        self.log = tempfile.TemporaryFile()
        environ = os.environ | {"SCGI_ALLOW_ROOT": "yes"}  # as root the others do not ask either
        self.process = subprocess.Popen(command, cwd=HERE, env=environ, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 15
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.process.kill()
                self.log.seek(0)
                raise SystemExit(f"{name} does not start:\n{self.log.read().decode(errors='replace')}")
            time.sleep(0.05)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(self.path) == 0

    def load(self, client: str, clients: int, seconds: float, seed: int) -> tuple[float, float]:
        """Run the clients; returns µs of CPU per request and requests per second."""
        before, start = tree_cpu(self.process.pid), time.monotonic()
        running = [
            subprocess.Popen(
                [client, self.path, str(seconds), str(seed + number * 10**7)], stdout=subprocess.PIPE, text=True
            )
            for number in range(clients)
        ]
        good = sum(int(one.communicate()[0] or 0) for one in running)
        took = time.monotonic() - start
        if any(one.returncode for one in running):
            raise SystemExit(f"{self.name} gave a wrong answer")
        return (tree_cpu(self.process.pid) - before) / good * 1e6, good / took

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()


def uwsgi_command(path: str) -> tuple[list[str], str]:
    """uWSGI's command and the version of the Python inside it: our own Python's if there is one, else any."""
    found: dict[str, list[str]] = {}
    for program in (Path(sys.executable).parent / "uwsgi", shutil.which("uwsgi"), shutil.which("uwsgi-core")):
        if program is None or not Path(program).exists():
            continue
        for plugin in ([], ["--plugin", "python3"]):
            command = [str(program), *plugin]
            said = subprocess.run([*command, "--python-version"], capture_output=True, text=True).stdout.split()
            if said and said[-1][0].isdigit():
                found.setdefault(said[-1], command)
    if not found:
        raise SystemExit("uWSGI is not installed: pip install uwsgi, or Debian's uwsgi-core and uwsgi-plugin-python3")
    version = platform.python_version() if platform.python_version() in found else next(iter(found))
    options = ["--scgi-socket", path, "--wsgi-file", "hello.py", "--master", "--processes", "1", "--disable-logging"]
    return [*found[version], *options], version


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each server is loaded")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each time")
    parser.add_argument("--clients", type=int, default=4, help="how many clients at once")
    parser.add_argument("--limit", type=float, help="fail if scgi costs more than so many times uWSGI")
    parser.add_argument("options", nargs="*", help="more options for scgi serve, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scgi-bench-") as folder:
        client = f"{folder}/client"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", client, str(HERE / "client.c")], check=True)
        peer, version = uwsgi_command(f"{folder}/uwsgi.sock")
        ours = [sys.executable, "-m", "scgi", "serve", "--listen", f"{folder}/scgi.sock", *given.options, "hello.py"]
        servers: list[Server] = []
        try:
            servers.append(Server("scgi serve", ours, f"{folder}/scgi.sock"))
            servers.append(Server("uWSGI", peer, f"{folder}/uwsgi.sock"))
            rounds = [
                [server.load(client, given.clients, given.seconds, turn * 10**8) for server in servers]
                for turn in range(given.rounds + 1)
            ][1:]  # the first warms up: workers are forked, caches filled
        finally:
            for server in servers:
                server.stop()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
          f"scgi on Python {platform.python_version()}, uWSGI on {version}; {given.clients} clients")  # fmt: skip
    if version != platform.python_version():
        print("NOT COMPARABLE: the two run different Pythons (is there a uWSGI for this one?)")
    print(f"{'':12}{'µs CPU/request':>16}{'requests/s':>12}   medians of {given.rounds} rounds")
    for place, server in enumerate(servers):
        cpu = statistics.median(one[place][0] for one in rounds)
        rate = statistics.median(one[place][1] for one in rounds)
        print(f"{server.name:12}{cpu:16.1f}{rate:12.0f}")
    ratios = [one[0][0] / one[1][0] for one in rounds]
    ratio = statistics.median(ratios)
    print(
        f"scgi serve costs {ratio:.2f} times uWSGI's CPU per request (rounds: {min(ratios):.2f} to {max(ratios):.2f})"
    )
    if given.limit is not None and version != platform.python_version():
        raise SystemExit("no limit can be judged between different Pythons")
    if given.limit is not None and ratio > given.limit:
        raise SystemExit(f"that is more than the limit of {given.limit:g}")


if __name__ == "__main__":
    main()
