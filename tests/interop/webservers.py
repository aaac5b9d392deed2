"""Real web servers, each with a whole configuration as `scgi config` prints it.

A machine's own main file reads such a configuration in from a folder; the main files here are as short as can be and
do the same, so what is printed is run as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import Front, apache_module, free_port, require_program, short_folder
from support.fronts import _running as running

NAMES = ("nginx", "mod_scgi", "apache", "lighttpd")
_MODULES = (
    "mpm_event",
    "authz_core",
    "alias",
    "proxy",
    "proxy_scgi",
    "slotmem_shm",
    "proxy_balancer",
    "lbmethod_byrequests",
)


def printed(front: str, *options: str) -> str:
    """What `scgi config` prints."""
    command = [sys.executable, "-m", "scgi", "config", front, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@contextmanager
def web_server(front: str, *options: str) -> Iterator[Front]:
    """That web server with the configuration for these options, on a port of its own."""
    port = free_port()
    if front != "lighttpd":  # its port is in the main file
        options = (*options, f"--listen=127.0.0.1:{port}")
    with configured(front, printed(front, *options), port) as web:
        yield web


@contextmanager
def configured(front: str, text: str, port: int) -> Iterator[Front]:
    with short_folder() as folder:
        (folder / "site.conf").write_text(text)
        command = {"nginx": _nginx, "apache": _apache, "mod_scgi": _mod_scgi, "lighttpd": _lighttpd}[front](
            folder, port
        )
        with running(command, folder, port, unprivileged="apache" in command[0] or "httpd" in command[0]) as web:
            yield web


def _nginx(folder: Path, port: int) -> list[str]:
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
access_log off;
{temporary}
include {folder}/site.conf;
}}
""")
    return [require_program("nginx"), "-p", str(folder), "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]


def _apache(folder: Path, port: int, more: str = "") -> list[str]:
    program = require_program("apache2")
    modules = Path("/usr/lib/apache2/modules")
    if not modules.is_dir():
        modules = Path(program).parent.parent / "modules"
    loads = "".join(
        f"LoadModule {name}_module {modules}/mod_{name}.so\n"
        for name in _MODULES
        if (modules / f"mod_{name}.so").exists()
    )
    (folder / "apache.conf").write_text(f"""
ServerRoot {folder}
ServerName main.invalid
Listen 127.0.0.1:{port}
{loads}{more}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
LogLevel info
DocumentRoot {folder}
<Directory />
  AllowOverride None
  Require all denied
</Directory>
<Directory /var/www/>
  Require all granted
</Directory>
Include {folder}/site.conf
""")
    return [program, "-DFOREGROUND", "-f", f"{folder}/apache.conf"]


def _mod_scgi(folder: Path, port: int) -> list[str]:
    return _apache(folder, port, f"LoadModule scgi_module {apache_module.built()}\n")


def _lighttpd(folder: Path, port: int) -> list[str]:
    (folder / "lighttpd.conf").write_text(f"""
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/error.log"
server.pid-file = "{folder}/lighttpd.pid"
server.upload-dirs = ( "{folder}" )
include "{folder}/site.conf"
""")
    return [require_program("lighttpd"), "-D", "-f", f"{folder}/lighttpd.conf"]
