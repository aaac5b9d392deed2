"""Our Apache module, built once for a run of the tests, and Apaches that serve with it.

::

    with serving('SCGIMount /shop unix:/tmp/s') as web:      # mpm="prefork", modules=["ssl"], sanitized=True, …
        web.port, web.log(), web.children(), web.reload()

Each Apache has a folder and a port of its own, runs in the foreground as an ordinary user, and is gone at the end.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from signal import SIGUSR1

import pytest

from support.addresses import free_port, is_listening, short_folder
from support.facts import wait_until
from support.processes import Process, start
from support.programs import require_program

SOURCE = Path(__file__).parents[2] / "apache2"
MODULES = Path("/usr/lib/apache2/modules")
MPMS = ("event", "worker", "prefork")
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
FOUND = 99  # the exit status of a sanitizer or of valgrind that found something
VALGRIND = [
    "valgrind",
    "-q",
    f"--error-exitcode={FOUND}",
    "--trace-children=no",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    "--num-callers=30",
]

_THREADS = """
StartServers 1
ServerLimit 4
ThreadsPerChild 32
ThreadLimit 32
MinSpareThreads 1
MaxSpareThreads 128
MaxRequestWorkers 128
"""
_PREFORK = """
StartServers 4
MinSpareServers 1
MaxSpareServers 64
ServerLimit 64
MaxRequestWorkers 64
"""


# -- building ---------------------------------------------------------------------------------------------------------


@cache
def built(sanitized: bool = False) -> Path:
    """The module, for `LoadModule`. Processes that run tests side by side share it; the last of them removes it."""
    for name in ("cc", "make", "apache2"):
        require_program(name)
    require_program("apxs")
    folder = _common_folder()
    target = folder / ("sanitized" if sanitized else "plain")
    with (folder / "building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            making = folder / f"{target.name}-in-the-making"
            shutil.rmtree(making, ignore_errors=True)
            build(making, *([f"CFLAGS=-O1 -g {SANITIZERS}", f"LDFLAGS={SANITIZERS}"] if sanitized else []))
            making.rename(target)
    return product(target)


def build(target: Path, *variables: str) -> Path:
    """`make` in a copy of the sources, which web servers may read; a warning is a failure."""
    shutil.copytree(SOURCE, target, ignore=shutil.ignore_patterns("*.lo", "*.slo", "*.la", "*.o", ".libs", "*.so"))
    target.chmod(0o755)
    done = subprocess.run(["make", "-C", target, *variables], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr, done.stderr
    return product(target)


def product(folder: Path) -> Path:
    return next(folder.rglob("mod_scgi.so"))


@cache
def _common_folder() -> Path:
    """Of all processes of this run."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"pid-{os.getpid()}"
    folder = Path(tempfile.gettempdir()) / f"scgi-module-{run}"
    while True:
        folder.mkdir(mode=0o755, exist_ok=True)
        users = (folder / "users").open("w")
        fcntl.flock(users, fcntl.LOCK_SH)
        if (folder / "users").exists() and os.path.samestat(os.stat(users.name), os.fstat(users.fileno())):
            break
        users.close()  # its last user has just ended

    def leave() -> None:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # there are others
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(leave)
    return folder


# -- running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Apache:
    """A running Apache with our module."""

    process: Process
    folder: Path
    port: int
    tls_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://{self.address}"

    def log(self) -> str:
        """Its error log, and what it said at its start."""
        file = self.folder / "error.log"
        return self.process.log() + (file.read_text(errors="replace") if file.exists() else "")

    def codes(self) -> list[str]:
        """The codes of our module's messages, in their order."""
        return re.findall(r"\b(SCGI\d\d): ", self.log())

    def children(self) -> list[int]:
        """The processes that answer requests."""
        return self.process.children()

    def memory(self) -> int:
        """Bytes of their own that these have in memory."""
        found = 0
        for child in self.children():
            status = Path(f"/proc/{child}/status").read_text()
            match = re.search(r"RssAnon:\s*(\d+) kB", status)
            found += int(match[1]) * 1024 if match else 0
        return found

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{child}/fd")) for child in self.children())

    def reload(self, within: float = 20) -> None:
        """`apachectl graceful`: until new children serve. The old ones may still be at it."""
        before = set(self.children())
        self.process.signal(SIGUSR1)
        wait_until(lambda: set(self.children()) - before, within, "new children")


def configuration(
    folder: Path,
    port: int,
    config: str,
    *,
    mpm: str = "event",
    modules: Sequence[str] = (),
    tls_port: int = 0,
    sanitized: bool = False,
    limits: str = "",
) -> Path:
    """A whole configuration file around `config`, which is at server level."""
    (folder / "pages").mkdir(exist_ok=True)
    (folder / "pages/static.txt").write_text("a file\n")
    wanted = [f"mpm_{mpm}", "authz_core", "alias", *modules]
    loads = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n" for name in dict.fromkeys(wanted))
    file = folder / "apache.conf"
    file.write_text(f"""
ServerRoot {folder}
ServerName localhost
Listen 127.0.0.1:{port}
{f"Listen 127.0.0.1:{tls_port}" if tls_port else ""}
{loads}
LoadModule scgi_module {built(sanitized)}
{limits or (_PREFORK if mpm == "prefork" else _THREADS)}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
LogLevel info
DocumentRoot {folder}/pages
Timeout 60
<Directory />
  Require all granted
</Directory>
{config}
""")
    return file


@contextmanager
def serving(
    config: str,
    *,
    mpm: str = "event",
    modules: Sequence[str] = (),
    tls_config: str = "",
    sanitized: bool = False,
    wrapper: Sequence[str] = (),
    options: Sequence[str] = ("-DFOREGROUND",),
    limits: str = "",
    status: int | None = 0,
) -> Iterator[Apache]:
    """`tls_config` is the inside of a `<VirtualHost>` of its own with TLS; `wrapper` a command to run Apache under.

    `status` is what it is to end with.
    """
    program = require_program("apache2")
    with short_folder() as folder:
        port, tls_port = free_port(), free_port() if tls_config else 0
        if tls_config:
            modules = [*modules, "socache_shmcb", "ssl"]
            config += _tls_host(folder, tls_port, tls_config)
        file = configuration(
            folder, port, config, mpm=mpm, modules=modules, tls_port=tls_port, sanitized=sanitized, limits=limits
        )
        user, group = who_serves(folder)
        process = start(
            [*wrapper, program, *options, "-f", file],
            log_file=folder / "start.log",
            user=user,
            group=group,
            env=_sanitizer_environment() if sanitized else {},
        )
        web = Apache(process, folder, port, tls_port)
        try:
            wait_until(lambda: is_listening(web.address) or not process.running(), 30, "Apache to listen")
            if not process.running():
                pytest.fail(f"Apache ended with status {process.popen.returncode} at once")
            yield web
            ended = process.stop(30)
            assert status is None or ended == status, f"Apache ended with status {ended}"
            process.assert_nothing_left(15)
        finally:
            process.kill()
            print(f"--- error log of Apache ---\n{web.log()}")


def refusal(config: str, *, modules: Sequence[str] = ()) -> str:
    """What `apachectl configtest` says of this configuration; "" if it is accepted."""
    with short_folder() as folder:
        file = configuration(folder, free_port(), config, modules=modules)
        done = subprocess.run([require_program("apache2"), "-t", "-f", file], capture_output=True, text=True)
        return "" if done.returncode == 0 else done.stderr


def who_serves(folder: Path) -> tuple[int | None, int | None]:
    """Apache does not serve as root. As www-data with root's group it may still use our sockets of mode 0660."""
    if os.geteuid() != 0:
        return None, None
    for name in ("www-data", "nobody"):
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, 0)
        return uid, 0
    raise LookupError("neither www-data nor nobody exists here")


def _tls_host(folder: Path, port: int, config: str) -> str:
    command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files: list[str | Path] = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run([require_program("openssl"), *command, *files], check=True, capture_output=True)
    return f"""
<VirtualHost 127.0.0.1:{port}>
  ServerName localhost
  SSLEngine On
  SSLCertificateFile {folder}/certificate.pem
  SSLCertificateKeyFile {folder}/key.pem
  {config}
</VirtualHost>
"""


def _sanitizer_environment() -> dict[str, str]:
    """Apache itself is not instrumented, so the runtime is put before it. It leaves its own memory to the kernel."""
    libraries = [
        subprocess.run(["cc", f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode={FOUND}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={FOUND}",
    }
