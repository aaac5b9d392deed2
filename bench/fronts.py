"""The scenario behind nginx: all behind the same one.

It runs with a configuration of its own in the plan's folder; nothing of the machine's is touched.
"""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench import peers
from bench.load import Client
from bench.plan import Plan
from bench.rounds import AGAIN, Measured, Slice, run
from bench.servers import Server, running
from bench.tables import Aim, Column, Table, cpu_rows, twin_note

CPU = [
    Column("rate", "requests/s", 0), Column("p50", "p50 µs", 0), Column("p99", "p99 µs", 0),
    Column("p999", "p99.9 µs", 0),
]  # fmt: skip


LIVES = 4  # how often all are started anew, as in scenarios.py


@dataclass
class Through:
    """A Load in the sense of rounds.py, through a web server; it notes what that cost for each server behind it."""

    front: Server
    clients: dict[str, Client]  # for each server behind it, by name
    spent: dict[str, list[float]] = field(default_factory=dict)  # µs per request

    def __call__(self, server: Server, seconds: float, seed: int) -> Slice:
        before = self.front.cpu()
        part = self.clients[server.name](server, seconds, seed)
        self.spent.setdefault(server.name, []).append((self.front.cpu() - before) / part.requests * 1e6)
        return part


def program(*names: str) -> str:
    """The path of a web server's program, which is not on everybody's PATH; its first name if it is not there."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return next(filter(None, (shutil.which(name, path=path) for name in names)), names[0])


# -- Behind nginx ------------------------------------------------------------------------------------------------------

_FORWARDED = (
    "proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; "
    "proxy_set_header X-Forwarded-Proto $scheme;"
)
# What their manuals say, and how connections are kept to those that keep them.
LOCATIONS = {
    "scgi_pass": "include /etc/nginx/scgi_params; scgi_param SCRIPT_NAME ''; scgi_param PATH_INFO $document_uri; "
    "scgi_pass {upstream};",
    "uwsgi_pass": "include /etc/nginx/uwsgi_params; uwsgi_pass {upstream};",
    "proxy_pass": f"{_FORWARDED} proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://{{upstream}};",
    "proxy_pass, a connection for each request": f"{_FORWARDED} proxy_pass http://{{upstream}};",
}


def behind_nginx(plan: Plan) -> list[Table]:
    """What the application's server costs; what nginx costs beside it is shown, and counts for nobody."""
    ways = [
        (peers.ours(plan), "scgi_pass"),
        (peers.ours(plan, "scgi" + AGAIN), "scgi_pass"),
        (peers.uwsgi(plan, name="uWSGI by scgi_pass"), "scgi_pass"),
        (peers.uwsgi(plan, name="uWSGI by uwsgi_pass", socket="--socket"), "uwsgi_pass"),
        (gunicorn(plan, "gunicorn sync"), "proxy_pass"),
        (gunicorn(plan, "gunicorn gthread", "--worker-class", "gthread", "--threads", "4"), "proxy_pass"),
        (uvicorn(plan, "uvicorn"), "proxy_pass"),
        (uvicorn(plan, "uvicorn, not kept"), "proxy_pass, a connection for each request"),
        (granian(plan), "proxy_pass"),
    ]
    measured, seconds = Measured(), 0.1
    text = (
        "Hello world for a browser, through one nginx that has a worker of its own and keeps its clients' connections; "
        "four clients, unix sockets all the way. uvicorn runs the greeting as ASGI, the others as WSGI, gthread with "
        "four threads. nginx keeps connections to those that speak HTTP too, but for the last uvicorn; gunicorn's "
        "sync worker ends them all the same. The CPU time is that of the application's server alone; these servers had "
        "one CPU, nginx and the clients the others."
    )
    columns = [
        Column("cpu", "µs CPU per request"), Column("to_scgi", "× scgi", 2, spread=True), Column("front", "nginx's µs"),
        *CPU,
    ]  # fmt: skip
    table = Table("behind-nginx", "Behind nginx", text, columns, [], chart="cpu")
    behind = [server for server, _ in ways]
    entrances = {server.name: f"{server.address}.http" for server in behind}
    front = nginx(plan, [(entrances[server.name], way, server) for server, way in ways])
    clients = {name: Client(plan.client, http=True, address=where) for name, where in entrances.items()}
    load = Through(front, clients)
    for _ in range(LIVES):
        with running(behind, plan.strict, apart=True) as (started, notes), running([front], plan.strict) as (up, why):
            table.notes = [*why, *notes]
            if not up:
                return [table]
            run(started, load, rounds=plan.rounds(12), seconds=seconds, warm_up=0.4, into=measured)
    table.text += f" {measured.rounds} rounds of {seconds * 1000:g} ms each; all were started anew {LIVES} times."
    table.rows = cpu_rows(measured, {"to_scgi": "scgi"})
    for row in table.rows:
        row["front"] = statistics.median(load.spent[row["name"]])
    table.notes += [*peers.comparable(plan), *twin_note(measured)]
    table.trusted = measured.trusted()
    for peer, limit in (("gunicorn sync", 0.3), ("uvicorn", 1.0)):
        ratio = measured.ratio("scgi", peer)
        table.aims.append(Aim(f"Behind nginx: times the CPU of {peer}", ratio.median if ratio else None, limit))
    return [table]


def nginx(plan: Plan, ways: Sequence[tuple[str, str, Server]]) -> Server:
    """An nginx with an entrance, a unix socket, for each server; how it passes requests on is a key of LOCATIONS."""
    servers = []
    for place, (entrance, way, server) in enumerate(ways):
        location = LOCATIONS[way].format(upstream=f"upstream{place}")
        servers.append(
            f"upstream upstream{place} {{ server unix:{server.address}; keepalive 16; }}\n"
            f"server {{ listen unix:{entrance} backlog=1024; location / {{ {location} }} }}\n"
        )
    folder = plan.folder / "nginx"
    folder.mkdir()
    (folder / "nginx.conf").write_text(f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
access_log off;
client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
keepalive_requests 1000000;
{"".join(servers)}
}}
""")
    command = [program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    return Server("nginx", command, ways[0][0], protocol="http")


def gunicorn(plan: Plan, name: str, *options: str, app: str = "hello:application", workers: int = 1) -> Server:
    where = peers.address(plan, name)
    bound = ["--bind", f"unix:{where}", "--workers", str(workers), "--no-control-socket"]
    return _http_peer(plan, name, "gunicorn", where, *bound, *options, app)


def uvicorn(plan: Plan, name: str) -> Server:
    where = peers.address(plan, name)
    return _http_peer(plan, name, "uvicorn", where, "--uds", where, "--no-access-log", "hello:asgi")


def granian(plan: Plan) -> Server:
    where = peers.address(plan, "granian")
    bound = ["--uds", where, "--interface", "wsgi", "--no-access-log"]
    return _http_peer(plan, "granian", "granian", where, *bound, "hello:application")


def _http_peer(plan: Plan, name: str, package: str, where: str, *arguments: str) -> Server:
    """A server of the peers' environment that speaks HTTP."""
    version = peers.installed(plan, package)
    missing = "" if version else f"{package} is not installed in {plan.peers.parent.name}"
    command = [str(plan.peers / "python"), "-m", package, *arguments]
    return Server(name, command, where, version=version, missing=missing, protocol="http")
