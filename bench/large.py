"""The scenarios of large bodies: up and down, many of 1 MB and single ones of 1 GiB; and readers that do not read."""

from __future__ import annotations

import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from bench import peers
from bench.cpu import descendants
from bench.load import Client
from bench.plan import Plan
from bench.rounds import Series, Spread
from bench.scenarios import compare
from bench.servers import Server, connect, running
from bench.tables import Aim, Column, Row, Table

MB, GIB = 2**20, 2**30
READERS = 1000
END = "the end\n"


def uploads(plan: Plan) -> list[Table]:
    """Bodies of 1 MB, one after another."""
    servers = [peers.ours(plan, app="apps/bodies.py"), peers.uwsgi(plan, app="apps/bodies.py")]
    count = f"{MB}\n"
    table, _ = compare(
        plan, "uploads", "Uploads of 1 MB",
        "The application reads bodies of 1 MB in blocks of 64 KB; over a unix socket, four clients, one worker to "
        "begin with.",
        servers, Client(plan.client, path="/upload", body=MB, length=len(count), tail=count), rounds=25, seconds=0.05,
        apart=False,
    )  # fmt: skip
    table.columns = [column for column in table.columns if column.key != "to_floor"]
    return [table]


# -- 1 GiB -------------------------------------------------------------------------------------------------------------


def gigabyte(plan: Plan) -> list[Table]:
    """One body of 1 GiB at a time, either way: how long, at what cost, and how much memory it takes."""
    file = plan.folder / "gigabyte"
    with open(file, "wb") as out:
        out.seek(GIB - len(END))  # a hole before it: that takes no room on the disk
        out.write(END.encode())
    env = {"BENCH_FILE": str(file)}
    keeping = ("--post-buffering", "65536")  # larger bodies go to a file before the application starts, as with us
    servers = [
        replace(peers.ours(plan, app="apps/bodies.py"), env=env),
        replace(peers.uwsgi(plan, app="apps/bodies.py"), env=env),
        replace(peers.uwsgi(plan, *keeping, app="apps/bodies.py", name="uWSGI buffering"), env=env),
    ]
    ways = {
        "upload": Client(plan.client, 1, path="/upload", body=GIB, length=len(f"{GIB}\n"), tail=f"{GIB}\n"),
        "download": Client(plan.client, 1, path="/download", length=GIB, tail=END),
    }
    rounds = plan.rounds(7)
    text = (
        "One body of 1 GiB at a time over a unix socket. The application reads the upload in blocks of 64 KB, and "
        "sends the download from a file, all of it cached, by wsgi.file_wrapper. scgi, and uWSGI with "
        "--post-buffering, take a body whole, into a file, before the application starts. The memory is the resident "
        f"part of the server's largest process, before and at its peak. Medians of {rounds} rounds."
    )
    columns = [
        Column("seconds", "seconds", 2), Column("to_uwsgi", "× uWSGI's time", 2, spread=True),
        Column("cpu", "CPU seconds", 2), Column("before", "MB before"), Column("peak", "MB at most"),
    ]  # fmt: skip
    table = Table("gigabyte", "Bodies of 1 GiB", text, columns, [], chart="seconds")
    if (free := shutil.disk_usage(tempfile.gettempdir()).free) < 2 * GIB:
        table.notes = [f"Left out: the folder for temporary files has only {free / GIB:.1f} GiB left, and needs 2."]
        return [table]
    with running(servers, plan.strict) as (started, table.notes):
        for way, client in ways.items():
            rows, ratio = _in_turn(started, client, rounds)
            table.rows += [row | {"name": f"{row['name']}, {way}"} for row in rows]
            more = rows[0]["peak"] - rows[0]["before"]
            table.aims += [
                Aim(f"1 GiB by {way}: times uWSGI's time", ratio, 1.3),
                Aim(f"1 GiB by {way}: MB of memory more", more, 4),
            ]
    return [table]


def _in_turn(servers: list[Server], client: Client, rounds: int) -> tuple[list[Row], float | None]:
    """A row per server, and how many times as long as uWSGI the first one took."""
    seconds: dict[str, list[float]] = {server.name: [] for server in servers}
    cpu: dict[str, list[float]] = {server.name: [] for server in servers}
    before: dict[str, float] = {}
    peak: dict[str, float] = {}
    for server in servers:
        before[server.name] = _largest(server, "VmRSS")
        _forget_peaks(server)
        client.ask(server, 0, 0)  # the file is in the cache from now on
    shuffle = random.Random(rounds).sample
    for turn in range(1, rounds + 1):
        for server in shuffle(servers, len(servers)):
            spent = server.cpu()
            seconds[server.name].append(client.ask(server, 0, turn)["seconds"])
            cpu[server.name].append(server.cpu() - spent)
            peak[server.name] = _largest(server, "VmHWM")
    rows, ratio = [], None
    for server in servers:
        row: Row = {
            "name": server.name, "version": server.version, "seconds": statistics.median(seconds[server.name]),
            "cpu": statistics.median(cpu[server.name]), "before": before[server.name], "peak": peak[server.name],
        }  # fmt: skip
        if "uWSGI" in seconds:
            pairs = zip(seconds[server.name], seconds["uWSGI"], strict=True)
            spread = Spread.of([ours / theirs for ours, theirs in pairs])
            row |= {"to_uwsgi": spread.median, "to_uwsgi_low": spread.low, "to_uwsgi_high": spread.high}
            ratio = ratio or spread.median
        rows.append(row)
    return rows, ratio


def _largest(server: Server, what: str) -> float:
    """MB of the process of the tree that has most: VmRSS is now, VmHWM the most since its peak was last forgotten."""
    found = []
    for pid in descendants(server.pid):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        found += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(what)]
    return max(found)


def _forget_peaks(server: Server) -> None:
    for pid in descendants(server.pid):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


# -- Readers that do not read ------------------------------------------------------------------------------------------


def slow_readers(plan: Plan) -> list[Table]:
    """Whether a thousand clients that take nothing stop those that take their answers at once."""
    servers = [
        peers.ours(plan, app="answers.py"),
        peers.uwsgi(plan, "--listen", "2048", app="answers.py", processes=4),
    ]
    seconds = 2.0
    text = (
        f"{READERS:,} clients ask for 1 MB each and read nothing of it; then four others ask for the greeting. Shown "
        "is how these fare before that and meanwhile, and how long after the last of the thousand the first of them "
        f"has its answer. Over a unix socket; uWSGI has four processes. {seconds:g} s each."
    )
    columns = [
        Column("first", "s to the first answer", 3), Column("rate", "requests/s", 0), Column("p50", "p50 µs", 0),
        Column("p99", "p99 µs", 0), Column("p999", "p99.9 µs", 0),
    ]  # fmt: skip
    table = Table("slow-readers", "A thousand readers that do not read", text, columns, [])
    for server in servers:
        with running([server], plan.strict) as (started, notes), ExitStack() as stack:
            table.notes += notes
            for state in ("before", "meanwhile") if started else ():
                if state == "meanwhile":
                    stack.enter_context(_readers(server))
                row: Row = {"name": f"{server.name}, {state}", "version": server.version}
                table.rows.append(row)
                began = time.monotonic()
                if not server.answers():
                    table.notes.append(f"{row['name']}: nobody is answered within {time.monotonic() - began:.0f} s.")
                    continue
                row["first"] = time.monotonic() - began
                part = Client(plan.client)(server, seconds, 1)
                series = Series(server, histogram=part.histogram)
                row["rate"] = part.requests / part.seconds
                row |= {"p50": series.percentile(0.5), "p99": series.percentile(0.99), "p999": series.percentile(0.999)}
    return [table]


@contextmanager
def _readers(server: Server) -> Iterator[None]:
    """So many connections on which an answer of 1 MB is asked for and not taken."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    variables = {
        "CONTENT_LENGTH": "0",
        "SCGI": "1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": f"/bytes/{MB}",
    }
    head = "".join(f"{name}\0{value}\0" for name, value in variables.items()).encode()
    with ExitStack() as stack:
        for _ in range(READERS):
            stack.enter_context(connect(server.address)).sendall(b"%d:%b," % (len(head), head))
        yield
