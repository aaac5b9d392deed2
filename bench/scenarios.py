"""The scenarios in which a client speaks SCGI to the server itself: hello world and its relatives, start and reload."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench import peers
from bench.load import Client, WrongAnswer
from bench.plan import Plan
from bench.rounds import AGAIN, Measured, run
from bench.servers import Server, connect, running
from bench.tables import CPU_COLUMNS, Aim, Column, Table, cpu_rows, twin_note

GREETING = "Hello world for a browser's 24 headers, {where}, one worker. {clients}"
AS_WEB_SERVERS = "One client, which has four requests under way and waits for all of them at once, as web servers do."
SLEEPERS = "Four clients with one request at a time, which sleep until it is answered: waking them is part of the cost."


def like_a_web_server(plan: Plan, connections: int = 4, **more: Any) -> Client:
    return Client(plan.client, clients=1, connections=connections, **more)


def compare(
    plan: Plan, name: str, title: str, text: str, servers: Sequence[Server], client: Client, *,
    rounds: int, seconds: float = 0.1, lives: int = 4, apart: bool = True,
) -> tuple[Table, Measured]:  # fmt: skip
    """Load them all in turn; a table of CPU per request.

    They are started anew `lives` times, each time for so many rounds: how memory was laid out for a process, or how
    many workers there happened to be, must not count as what a request costs.
    """
    measured, notes = Measured(), list[str]()
    for _ in range(lives):
        with running(servers, plan.strict, apart) as (started, left_out):
            run(started, client, rounds=plan.rounds(rounds), seconds=seconds, warm_up=0.4, into=measured)
            notes = left_out
    text += f" {measured.rounds} rounds of {seconds * 1000:g} ms each; all were started anew {lives} times."
    text += " The servers had one CPU, the clients the others." if apart else ""
    table = Table(name, title, text, CPU_COLUMNS, cpu_rows(measured), chart="cpu")
    table.notes = [*notes, *peers.comparable(plan), *twin_note(measured)]
    table.trusted = measured.trusted()
    return table, measured


def at_most(plan: Plan, measured: Measured, text: str, base: str, limit: float) -> Aim:
    """That scgi costs at most so many times as much as `base`; the mean of both instances, one as good as the other."""
    found = [measured.ratio(name, base) for name in ("scgi", "scgi" + AGAIN)]
    medians = [ratio.median for ratio in found if ratio is not None]
    if not medians or (base == "uWSGI" and peers.comparable(plan)):
        return Aim(text, None, limit)
    return Aim(text, statistics.mean(medians), limit)


def hello_unix(plan: Plan) -> list[Table]:
    servers = [
        peers.ours(plan), peers.ours(plan, "scgi" + AGAIN), peers.uwsgi(plan), peers.floor(plan), peers.aioscgi(plan),
        peers.reference(plan),
    ]  # fmt: skip
    text = GREETING.format(where="over a unix socket", clients=AS_WEB_SERVERS)
    text += " The reference is asked over TCP, since it knows no other."
    title = "Hello world over a unix socket"
    table, measured = compare(plan, "hello-unix", title, text, servers, like_a_web_server(plan), rounds=30)
    slower = measured.ratio("reference", "scgi")
    table.aims = [
        at_most(plan, measured, "Hello world over a unix socket: times uWSGI's CPU", "uWSGI", 1.0),
        at_most(plan, measured, "Hello world over a unix socket: times the floor's CPU", "floor", 1.7),
        Aim("The reference scgi 2.2: times our CPU", slower.median if slower else None, 5.0, at_least=True),
    ]
    return [table]


def hello_sleepers(plan: Plan) -> list[Table]:
    servers = [peers.ours(plan), peers.ours(plan, "scgi" + AGAIN), peers.uwsgi(plan), peers.floor(plan)]
    table, _ = compare(
        plan, "hello-sleepers", "Hello world for clients that sleep",
        GREETING.format(where="over a unix socket", clients=SLEEPERS), servers, Client(plan.client), rounds=20,
    )  # fmt: skip
    return [table]


def hello_tcp(plan: Plan) -> list[Table]:
    servers = [
        peers.ours(plan, tcp=True), peers.ours(plan, "scgi" + AGAIN, tcp=True), peers.uwsgi(plan, tcp=True),
        peers.floor(plan, tcp=True), peers.reference(plan), peers.flup(plan), peers.aioscgi(plan, tcp=True),
    ]  # fmt: skip
    table, measured = compare(
        plan, "hello-tcp", "Hello world over TCP",
        GREETING.format(where="over TCP on the loopback", clients=AS_WEB_SERVERS), servers, like_a_web_server(plan),
        rounds=30,
    )  # fmt: skip
    table.aims = [at_most(plan, measured, "Hello world over TCP: times uWSGI's CPU", "uWSGI", 1.0)]
    return [table]


def hello_threads(plan: Plan) -> list[Table]:
    servers = [
        peers.ours(plan, "scgi", "--threads", "4"), peers.ours(plan, "scgi" + AGAIN, "--threads", "4"),
        peers.uwsgi(plan, "--threads", "4"), peers.floor(plan),
    ]  # fmt: skip
    table, _ = compare(
        plan, "hello-threads", "Hello world in a worker of four threads",
        "Hello world over a unix socket; each server's worker has four threads, the floor one. One client, which has "
        "eight requests under way.",
        servers, like_a_web_server(plan, 8), rounds=15,
    )  # fmt: skip
    return [table]


def apache_headers(plan: Plan) -> list[Table]:
    servers = [peers.ours(plan), peers.ours(plan, "scgi" + AGAIN), peers.uwsgi(plan), peers.floor(plan)]
    table, _ = compare(
        plan, "apache-headers", "Hello world for Apache's 40 variables",
        "The same as hello world over a unix socket, with 40 variables as Apache sends them instead of 24.",
        servers, like_a_web_server(plan, apache=True), rounds=15,
    )  # fmt: skip
    return [table]


def sizes(plan: Plan) -> list[Table]:
    """Answers of 1 KB, 64 KB, 1 MB, each size compared by itself."""
    rows, notes, trusted = [], [], True
    for size, named in ((1024, "1 KB"), (65536, "64 KB"), (1048576, "1 MB")):
        servers = [
            peers.ours(plan, app="answers.py"), peers.ours(plan, "scgi" + AGAIN, app="answers.py"),
            peers.uwsgi(plan, app="answers.py"), peers.floor(plan, size=size),
        ]  # fmt: skip
        client = like_a_web_server(plan, path=f"/bytes/{size}", length=size, tail="x\n")
        table, _ = compare(plan, "", "", "", servers, client, rounds=12)
        rows += [row | {"name": f"{row['name']}, {named}"} for row in table.rows]
        notes += [f"{named}: {note}" for note in table.notes]
        trusted = trusted and table.trusted
    text = "Answers of three sizes over a unix socket, for a browser's 24 headers; one worker, four requests under way."
    return [
        Table("sizes", "Larger answers", text, CPU_COLUMNS, rows, chart="cpu", notes=notes, trusted=trusted),
    ]


def crowd(plan: Plan) -> list[Table]:
    four = ("--min-workers", "4", "--max-workers", "4")
    servers = [
        peers.ours(plan, "scgi", *four), peers.ours(plan, "scgi" + AGAIN, *four),
        peers.uwsgi(plan, "--listen", "2048", processes=4), peers.floor(plan),
    ]  # fmt: skip
    table, _ = compare(
        plan, "crowd", "A thousand connections at once on four workers",
        "One client keeps 1,000 requests under way over a unix socket; four workers, the floor has one.",
        servers, like_a_web_server(plan, 1000), rounds=20, seconds=0.2, lives=2, apart=False,
    )  # fmt: skip
    return [table]


def slow_mix(plan: Plan) -> list[Table]:
    """What one slow request in a hundred does to the others."""
    fixed = ("--min-workers", "4", "--max-workers", "4")
    servers = [
        peers.ours(plan, "scgi", app="answers.py"),
        peers.ours(plan, "scgi, four workers", *fixed, app="answers.py"),
        peers.uwsgi(plan, app="answers.py", processes=4, name="uWSGI, four processes"),
    ]
    client = Client(plan.client, clients=8, slow_every=100)
    with running(servers, plan.strict) as (started, notes):
        measured = run(started, client, rounds=plan.rounds(9), seconds=1.0)
    columns = [column for column in CPU_COLUMNS if not column.key.startswith("to_")]
    text = (
        "Every hundredth request takes 50 ms. Eight clients over a unix socket; the latencies are those of the others. "
        f"scgi alone has its default settings: it adds workers by itself. {plan.rounds(9)} rounds of 1 s each."
    )
    return [Table("slow-mix", "One slow request in a hundred", text, columns, cpu_rows(measured, {}), "p99", [], notes)]


def start_and_reload(plan: Plan) -> list[Table]:
    """From the command to the first answer, and from the signal to the first answer of the new code."""
    turns = plan.rounds(9)
    ways = [
        (peers.ours(plan, app="answers.py"), signal.SIGHUP),
        (peers.uwsgi(plan, app="answers.py"), signal.SIGHUP),
        (peers.reference(plan), None),
        (peers.aioscgi(plan), None),
    ]
    rows, notes = [], []
    for server, signum in ways:
        began: list[float] = []
        renewed: list[float] = []
        refused = 0
        for _ in range(turns):
            one = replace(server, poll=0.001)
            start = time.monotonic()
            with running([one], plan.strict) as (started, left_out):
                notes += [note for note in left_out if note not in notes]
                if not started:
                    break
                began.append((time.monotonic() - start) * 1000)
                if signum is not None:
                    took, lost = reload_of(one, signum)
                    renewed.append(took * 1000)
                    refused += lost
        if began:
            rows.append({
                "name": server.name, "version": server.version, "start": statistics.median(began),
                "reload": statistics.median(renewed) if renewed else None, "refused": refused if renewed else None,
            })  # fmt: skip
    columns = [
        Column("start", "start-up, ms"), Column("reload", "reload, ms"), Column("refused", "requests not answered", 0)
    ]  # fmt: skip
    text = (
        "From the command to the first answer; and after HUP, from the signal to the first answer by the application "
        "imported anew, while one client goes on asking: how many of its requests got no answer. "
        f"Medians of {turns}."
    )
    return [Table("start", "Start-up and reload", text, columns, rows, "start", [], notes)]


def reload_of(server: Server, signum: int) -> tuple[float, int]:
    """Seconds until new code answers, and how many requests found nobody."""
    before = imported(server)
    start = time.monotonic()
    server.send_signal(signum)
    lost = 0
    while time.monotonic() - start < server.within:
        now = imported(server)
        if now is None:
            lost += 1
        elif now != before:
            return time.monotonic() - start, lost
        time.sleep(0.001)
    raise WrongAnswer(f"{server.name}: no new code within {server.within:g} s of its reload")


def imported(server: Server) -> bytes | None:
    """When the application that answers was imported; None if nobody answers."""
    variables = (
        b"CONTENT_LENGTH\x000\x00SCGI\x001\x00REQUEST_METHOD\x00GET\x00SCRIPT_NAME\x00\x00PATH_INFO\x00/import\x00"
    )
    said = b""
    try:
        with connect(server.address) as sock:
            sock.sendall(b"%d:%b," % (len(variables), variables))
            while more := sock.recv(4096):
                said += more
    except OSError:
        return None
    return said.split()[-1] if said else None
