"""The scenarios behind a web server: all behind the same nginx, and CGI beside SCGI under the same Apache.

Each web server runs with a configuration of its own in the plan's folder; nothing of the machine's is touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import peers
from bench.load import Client, compiled
from bench.plan import HERE, Plan
from bench.rounds import AGAIN, Measured, Slice, run
from bench.servers import Missing, Server, free_port, running
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
    measured, seconds = Measured(), 0.03
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
            run(started, load, rounds=plan.rounds(30), seconds=seconds, warm_up=0.4, into=measured)
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


# -- Under Apache ------------------------------------------------------------------------------------------------------


def cgi_vs_scgi(plan: Plan) -> list[Table]:
    """The claim of the article: how much dearer a CGI program is than the same one that stays."""
    rounds, seconds = plan.rounds(9), 1.0
    text = (
        "The same small program in Python under the same Apache: started for each request by mod_cgid, and as an "
        "application of scgi serve by mod_proxy_scgi over a unix socket. It imports nothing, so the factor is the "
        "least there can be: what a program imports, CGI imports for each request. Four clients on kept connections. "
        f"The CPU time is that of everything: Apache, and programs or server. {rounds} rounds of {seconds:g} s each."
    )
    columns = [
        Column("cpu", "µs CPU per request"), Column("to_scgi", "× SCGI", 1, spread=True),
        Column("front", "Apache's µs"), *CPU,
    ]  # fmt: skip
    table = Table("cgi-vs-scgi", "CGI and SCGI", text, columns, [], chart="cpu")
    scgi = replace(peers.ours(plan, app="apps/page.py"), name="SCGI by mod_proxy_scgi")
    tally = plan.folder / "tally"
    try:
        apache = apache_with_cgi(plan, scgi, tally)
    except Missing as error:
        if plan.strict:
            raise
        table.notes = [str(error)]
        return [table]
    with running([scgi], plan.strict), running([apache], plan.strict) as (fronts, table.notes):
        if not fronts:
            return [table]
        cgi = replace(apache, name="CGI by mod_cgid")  # no server of its own: Apache, and what it starts
        clients = {
            one.name: Client(plan.client, http=True, path=path, address=apache.address)
            for one, path in ((scgi, "/scgi"), (cgi, "/cgi"))
        }
        load = Through(apache, clients)

        def everything(server: Server) -> float:
            return apache.cpu() + (scgi.cpu() if server is scgi else sum(map(int, tally.read_text().split())) / 1e6)

        measured = run([scgi, cgi], load, rounds=rounds, seconds=seconds, cpu=everything)
    table.rows = cpu_rows(measured, {"to_scgi": scgi.name})
    for row in table.rows:
        row["front"] = statistics.median(load.spent[row["name"]])
    factor = measured.ratio(cgi.name, scgi.name)
    table.aims = [Aim("CGI under Apache: times SCGI's CPU", factor.median if factor else None, 30, at_least=True)]
    return [table]


def apache_with_cgi(plan: Plan, scgi: Server, tally: Path) -> Server:
    """An Apache that has page.py at /cgi and the SCGI server at /scgi; raises Missing if it cannot be set up."""
    apache2 = program("apache2", "httpd")
    modules = Path("/usr/lib/apache2/modules")
    folder = plan.folder / "apache"
    folder.mkdir()
    tally.touch()
    # Not the Python of an environment: that of its base. It starts sooner, and other users may run it.
    python = os.path.realpath(plan.python)
    page = folder / "page.py"
    page.write_text(f"#!{compiled(HERE / 'apps/timed.c', folder)} {python}\n" + (HERE / "apps/page.py").read_text())
    page.chmod(0o755)
    command = [apache2, "-DFOREGROUND", "-f", str(folder / "apache.conf")]
    if os.geteuid() == 0:
        # Apache does not serve as root. As www-data with root's group it may use what root's group may.
        for path, mode in ((plan.folder, 0o750), (folder, 0o770), (tally, 0o660)):
            path.chmod(mode)
        as_user = [program("setpriv"), "--reuid", _web_user(), "--regid", "0", "--clear-groups"]
        command = [*as_user, *command]
        # By way of a shell: what setpriv itself starts may still have root's capabilities.
        if subprocess.run([*as_user, "sh", "-c", 'exec "$0" -c ""', python], capture_output=True).returncode:
            raise Missing(f"CGI is left out: Apache's user may not run {Path(python).name}, as root's own.")
    if not (modules / "mod_cgid.so").exists():
        raise Missing("Apache is left out: it is not installed, or has no mod_cgid.")
    where = free_port()
    wanted = ("mpm_event", "authz_core", "alias", "env", "cgid", "proxy", "proxy_scgi")
    # Without ap_trust_cgilike_cl new Apaches send what comes by CGI and SCGI in chunks.
    (folder / "apache.conf").write_text(f"""
ServerRoot {folder}
ServerName 127.0.0.1
Listen {where}
{"".join(f"LoadModule {name}_module {modules}/mod_{name}.so{os.linesep}" for name in wanted)}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
DocumentRoot {folder}
MaxKeepAliveRequests 0
MaxSpareThreads 400
ScriptSock {folder}/cgid.sock
ScriptAlias /cgi {page}
SetEnv CPU_TALLY {tally}
SetEnv ap_trust_cgilike_cl yes
ProxyPass /scgi unix:{scgi.address}|scgi://application
<Directory {folder}>
  Require all granted
</Directory>
""")
    return Server("Apache", command, where, protocol="http")


def _web_user() -> str:
    for name in ("www-data", "nobody"):
        try:
            return str(pwd.getpwnam(name).pw_uid)
        except KeyError:
            pass
    raise Missing("Apache is left out: there is neither a user www-data nor nobody.")
