"""CPU per request of `scgi serve` against peers, side by side in one run.

::

    python bench/compare.py [--rounds 5] [--seconds 2] [--clients 4] [--limit 1.3]

Every server runs bench/hello.py on a unix socket. In each round every server is loaded in turn by the same clients,
with the headers of a real browser; port, query and cookie change from request to request. What counts is the CPU time
of the server's whole process tree, read from /proc, per request answered: the clients' own time is not in it. Quote
the ratios; the absolute times belong to this machine at this hour. With --limit the exit status says whether ours
costs at most so many times uWSGI's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe, Process
from pathlib import Path

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")

BROWSER = [
    ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/shop/item?{query}"), ("QUERY_STRING", "{query}"),
    ("CONTENT_TYPE", ""), ("DOCUMENT_URI", "/shop/item"), ("DOCUMENT_ROOT", "/usr/share/nginx/html"), ("SCGI", "1"),
    ("SERVER_PROTOCOL", "HTTP/1.1"), ("REQUEST_SCHEME", "http"), ("REMOTE_ADDR", "127.0.0.1"),
    ("REMOTE_PORT", "{port}"), ("SERVER_PORT", "80"), ("SERVER_NAME", "shop.example"), ("SCRIPT_NAME", ""),
    ("PATH_INFO", "/shop/item"), ("HTTP_HOST", "shop.example"),
    ("HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"),
    ("HTTP_ACCEPT", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("HTTP_ACCEPT_LANGUAGE", "en-GB,en;q=0.7,de;q=0.3"), ("HTTP_ACCEPT_ENCODING", "gzip, deflate, br, zstd"),
    ("HTTP_REFERER", "http://shop.example/shop"), ("HTTP_CONNECTION", "keep-alive"),
    ("HTTP_COOKIE", "session={cookie}; theme=dark"), ("HTTP_UPGRADE_INSECURE_REQUESTS", "1"),
]  # fmt: skip


def request(number: int) -> bytes:
    """One request; no two are alike."""
    values = {"query": f"id={number}&page={number % 7}", "port": 20000 + number % 40000, "cookie": f"{number:032x}"}
    items = [("CONTENT_LENGTH", "0"), *((name, value.format(**values)) for name, value in BROWSER)]
    block = "".join(f"{name}\0{value}\0" for name, value in items).encode()
    return b"%d:%b," % (len(block), block)


def client(path: str, seed: int, commands) -> None:
    """Asks as fast as answers come, for the seconds it is told; reports the number of good answers."""
    requests = [request(seed + number) for number in range(2000)]
    while (seconds := commands.recv()) is not None:
        end, good, turn = time.monotonic() + seconds, 0, 0
        while time.monotonic() < end:
            for _ in range(20):
                turn += 1
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(path)
                    sock.sendall(requests[turn % 2000])
                    answer = b""
                    while piece := sock.recv(65536):
                        answer += piece
                good += answer.endswith(b"Hello, world\n")
                if not answer.endswith(b"Hello, world\n"):
                    raise SystemExit(f"a wrong answer: {answer[:200]!r}")
        commands.send(good)


def tree_cpu(root: int) -> float:
    """CPU seconds so far of a process, its descendants, and those of them that have ended."""
    parents: dict[int, list[tuple[int, float]]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            used = sum(map(int, fields[11:15])) / TICK
            parents.setdefault(int(fields[1]), []).append((int(entry), used))
            if int(entry) == root:
                total = used
    waiting = [root]
    while waiting:
        for pid, used in parents.get(waiting.pop(), []):
            total += used
            waiting.append(pid)
    return total


class Server:
    """A server under test and its clients."""

    def __init__(self, name: str, command: list[str], path: str, clients: int) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, cwd=HERE, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(path)
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.log.seek(0)
                    raise SystemExit(f"{name} does not start:\n{self.log.read().decode()}") from None
                time.sleep(0.05)
        self.pipes = []
        for number in range(clients):
            ours, theirs = Pipe()
            Process(target=client, args=(path, number * 10**6, theirs), daemon=True).start()
            self.pipes.append(ours)

    def load(self, seconds: float) -> tuple[float, float]:
        """Run the clients; returns µs of CPU per request and requests per second."""
        before, start = tree_cpu(self.process.pid), time.monotonic()
        for pipe in self.pipes:
            pipe.send(seconds)
        good = sum(pipe.recv() for pipe in self.pipes)
        took = time.monotonic() - start
        return (tree_cpu(self.process.pid) - before) / good * 1e6, good / took

    def stop(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()


def servers(folder: str) -> dict[str, tuple[list[str], str]]:
    """Command and socket of every server that is installed here."""
    ours = f"{folder}/ours.sock"
    found = {"scgi serve": ([sys.executable, "-m", "scgi", "serve", "--listen", ours, "hello.py"], ours)}
    if uwsgi := shutil.which("uwsgi") or shutil.which("uwsgi-core"):
        peer = f"{folder}/uwsgi.sock"
        plugin = ["--plugin", "python3"] if "core" in os.path.realpath(uwsgi) else []
        found["uWSGI"] = (
            [uwsgi, *plugin, "--scgi-socket", peer, "--wsgi-file", "hello.py", "--master", "--processes", "1",
             "--disable-logging", "--die-on-term", "--listen", "100"],
            peer,
        )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--limit", type=float, help="fail if scgi costs more than so many times uWSGI")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scgi-bench-") as folder:
        found = servers(folder)
        running = [Server(name, command, path, options.clients) for name, (command, path) in found.items()]
        try:
            for server in running:
                server.load(min(1.0, options.seconds))  # warm up: workers are forked, caches are filled
            rounds = [{s.name: s.load(options.seconds) for s in running} for _ in range(options.rounds)]
        finally:
            for server in running:
                server.stop()
    print(f"{'server':12} {'µs CPU/request':>15} {'requests/s':>11}   (medians of {options.rounds} rounds)")
    for name in found:
        print(f"{name:12} {statistics.median(r[name][0] for r in rounds):15.1f} "
              f"{statistics.median(r[name][1] for r in rounds):11.0f}")  # fmt: skip
    if "uWSGI" not in found:
        raise SystemExit("uWSGI is not installed (Debian: uwsgi-core and uwsgi-plugin-python3): nothing to compare")
    ratios = [r["scgi serve"][0] / r["uWSGI"][0] for r in rounds]
    ratio = statistics.median(ratios)
    print(f"scgi serve / uWSGI: {ratio:.2f} (rounds: {min(ratios):.2f} to {max(ratios):.2f})")
    if options.limit is not None and ratio > options.limit:
        raise SystemExit(f"more than the limit of {options.limit}")


if __name__ == "__main__":
    main()
