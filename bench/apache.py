"""The scenarios under Apache: CGI beside SCGI, and our module beside the one that Apache has.

Each Apache runs with a configuration of its own in the plan's folder; nothing of the machine's is touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path

from bench import peers
from bench.fronts import CPU, LIVES, Through, program
from bench.load import Client, compiled
from bench.plan import HERE, ROOT, Plan
from bench.rounds import AGAIN, Measured, run
from bench.servers import Missing, Server, free_port, running
from bench.tables import Aim, Column, Table, cpu_rows, twin_note

MODULES = Path("/usr/lib/apache2/modules")


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
    tally.touch()
    # Not the Python of an environment: that of its base. It starts sooner, and other users may run it.
    python = os.path.realpath(plan.python)
    folder = plan.folder / "apache"
    # Without ap_trust_cgilike_cl new Apaches send what comes by CGI and SCGI in chunks.
    server = apache(
        plan,
        ("alias", "env", "cgid", "proxy", "proxy_scgi"),
        f"""
ScriptSock {folder}/cgid.sock
ScriptAlias /cgi {folder}/page.py
SetEnv CPU_TALLY {tally}
SetEnv ap_trust_cgilike_cl yes
ProxyPass /scgi unix:{scgi.address}|scgi://application
""",
    )
    page = folder / "page.py"
    page.write_text(f"#!{compiled(HERE / 'apps/timed.c', folder)} {python}\n" + (HERE / "apps/page.py").read_text())
    page.chmod(0o755)
    if os.geteuid() == 0:
        tally.chmod(0o660)
        # By way of a shell: what setpriv itself starts may still have root's capabilities.
        if subprocess.run([*_as_web_user(), "sh", "-c", 'exec "$0" -c ""', python], capture_output=True).returncode:
            raise Missing(f"CGI is left out: Apache's user may not run {Path(python).name}, as root's own.")
    return server


def apache(plan: Plan, modules: tuple[str, ...], config: str) -> Server:
    """An Apache with these modules of its own; raises Missing if it is not there."""
    for name in modules:
        if not (MODULES / f"mod_{name}.so").exists():
            raise Missing(f"Apache is left out: it is not installed, or has no mod_{name}.")
    folder = plan.folder / "apache"
    folder.mkdir(exist_ok=True)  # of another scenario
    command = [program("apache2", "httpd"), "-DFOREGROUND", "-f", str(folder / "apache.conf")]
    if os.geteuid() == 0:
        # Apache does not serve as root. As www-data with root's group it may use what root's group may.
        for path, mode in ((plan.folder, 0o750), (folder, 0o770)):
            path.chmod(mode)
        command = [*_as_web_user(), *command]
    where = free_port()
    loaded = "".join(
        f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in ("mpm_event", "authz_core", *modules)
    )
    (folder / "apache.conf").write_text(f"""
ServerRoot {folder}
ServerName 127.0.0.1
Listen {where}
{loaded}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
DocumentRoot {folder}
MaxKeepAliveRequests 0
MaxSpareThreads 400
{config}
<Directory {folder}>
  Require all granted
</Directory>
""")
    return Server("Apache", command, where, protocol="http")


def _as_web_user() -> list[str]:
    return [program("setpriv"), "--reuid", _web_user(), "--regid", "0", "--clear-groups"]


def _web_user() -> str:
    for name in ("www-data", "nobody"):
        try:
            return str(pwd.getpwnam(name).pw_uid)
        except KeyError:
            pass
    raise Missing("Apache is left out: there is neither a user www-data nor nobody.")


def apache_modules(plan: Plan) -> list[Table]:
    """What Apache itself spends on a request, with our module and with its own mod_proxy_scgi."""
    seconds, measured = 0.1, Measured()
    text = (
        "Hello world through one Apache (event) that has both modules, each with a path of its own, to the same SCGI "
        "server over a unix socket; four clients on kept connections. The CPU time is Apache's alone."
    )
    columns = [Column("cpu", "Apache's µs CPU per request"), Column("to_own", "× mod_proxy_scgi", 2, spread=True), *CPU]
    table = Table("apache-modules", "Apache's two modules", text, columns, [], chart="cpu")
    scgi = peers.ours(plan)
    try:
        front = apache(
            plan,
            ("env", "proxy", "proxy_scgi"),
            f"""
LoadModule scgi_module {built_module(plan)}
SCGIMount /ours unix:{scgi.address}
SCGIMount /again unix:{scgi.address}
SetEnv ap_trust_cgilike_cl yes
ProxyPass /own unix:{scgi.address}|scgi://application
""",
        )
    except Missing as error:
        if plan.strict:
            raise
        table.notes = [str(error)]
        return [table]
    paths = {"mod_scgi": "/ours", "mod_scgi" + AGAIN: "/again", "mod_proxy_scgi": "/own"}
    for _ in range(LIVES):
        with running([scgi], plan.strict, apart=True), running([front], plan.strict) as (fronts, table.notes):
            if not fronts:
                return [table]
            ways = [replace(front, name=name) for name in paths]
            clients = {
                name: Client(plan.client, http=True, path=path, address=front.address) for name, path in paths.items()
            }
            run(ways, Through(front, clients), rounds=plan.rounds(12), seconds=seconds, warm_up=0.4,
                cpu=lambda _: front.cpu(), into=measured)  # fmt: skip
    table.text += f" {measured.rounds} rounds of {seconds * 1000:g} ms each; all were started anew {LIVES} times."
    table.rows = cpu_rows(measured, {"to_own": "mod_proxy_scgi"})
    table.notes += twin_note(measured)
    table.trusted = measured.trusted()
    ratio = measured.ratio("mod_scgi", "mod_proxy_scgi")
    table.aims = [Aim("Apache with mod_scgi: times its CPU with mod_proxy_scgi", ratio.median if ratio else None, 0.95)]
    return [table]


def built_module(plan: Plan) -> Path:
    """mod_scgi.so, compiled in the plan's folder; raises Missing if it cannot be."""
    folder = plan.folder / "mod_scgi"
    shutil.copytree(ROOT / "apache2", folder, ignore=shutil.ignore_patterns("*.o", "*.so"))
    done = subprocess.run(["make", "-C", folder], capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"mod_scgi is left out: it cannot be compiled: {done.stderr.strip().splitlines()[-1]}")
    return folder / "mod_scgi.so"
