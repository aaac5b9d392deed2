"""nginx, Apache and lighttpd in front of an SCGI address, each configured as for production.

Each runs in the foreground, in a folder and on a port of its own, and is gone at the end of its ``with``.
``to`` is the SCGI address to forward to, ``mount`` the path it is mounted at. ``config`` replaces what these
two would write, ``extra`` comes on top of it; with nginx both are the inside of ``server {}``.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.addresses import free_port, short_folder, split_address
from support.processes import Process, start
from support.programs import require_program

# For a machine whose nginx comes without the file; otherwise the stock one is used.
SCGI_PARAMS = """
scgi_param REQUEST_METHOD $request_method;  scgi_param REQUEST_URI $request_uri;
scgi_param QUERY_STRING $query_string;      scgi_param CONTENT_TYPE $content_type;
scgi_param DOCUMENT_URI $document_uri;      scgi_param DOCUMENT_ROOT $document_root;
scgi_param SCGI 1;                          scgi_param SERVER_PROTOCOL $server_protocol;
scgi_param REQUEST_SCHEME $scheme;          scgi_param HTTPS $https if_not_empty;
scgi_param REMOTE_ADDR $remote_addr;        scgi_param REMOTE_PORT $remote_port;
scgi_param SERVER_PORT $server_port;        scgi_param SERVER_NAME $server_name;
"""


@dataclass(frozen=True, slots=True)
class Front:
    """A running web server."""

    process: Process
    port: int
    error_log: Path

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        """Its error log, and what it said at its start."""
        return self.process.log() + (self.error_log.read_text() if self.error_log.exists() else "")


@contextmanager
def nginx(
    to: str = "", mount: str = "/", *, config: str = "", extra: str = "", upload_limit: str = "2g"
) -> Iterator[Front]:
    """nginx with long timeouts. ``scgi_params`` may be included by that name."""
    program = require_program("nginx")
    with short_folder() as folder:
        port = free_port()
        stock = Path("/etc/nginx/scgi_params")
        (folder / "scgi_params").write_text(stock.read_text() if stock.exists() else SCGI_PARAMS)
        file = folder / "nginx.conf"
        file.write_text(f"""
{"user root;" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;  proxy_temp_path {folder}/proxy;  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;       scgi_temp_path {folder}/scgi;
  client_max_body_size {upload_limit};
  scgi_connect_timeout 5s;  scgi_send_timeout 300s;  scgi_read_timeout 300s;
  scgi_buffer_size 16k;  scgi_buffers 8 16k;  scgi_busy_buffers_size 32k;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {folder};
    {config or _nginx_location(to, mount)}
    {extra}
  }}
}}
""")
        command = [program, "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")]
        with _running(command, folder, port) as front:
            yield front


def _nginx_location(to: str, mount: str) -> str:
    where = split_address(to)
    upstream = f"{where[0]}:{where[1]}" if isinstance(where, tuple) else f"unix:{where}"
    if mount == "/":
        match, script, path = "/", '""', "$document_uri"
    else:
        match, script, path = f"~ ^{mount}(?<path_info>/.*)?$", mount, "$path_info"
    return f"""
    location {match} {{
      include scgi_params;
      scgi_param SCRIPT_NAME {script};
      scgi_param PATH_INFO {path};
      scgi_param HTTP_PROXY "";
      scgi_pass {upstream};
    }}"""


@contextmanager
def apache(to: str = "", mount: str = "/", *, config: str = "", extra: str = "") -> Iterator[Front]:
    """Apache with mod_proxy_scgi. ``extra`` may load more modules, from the folder ``${MODULES}``."""
    program = require_program("apache2")
    modules = Path("/usr/lib/apache2/modules")
    if not modules.is_dir():
        modules = Path(program).parent.parent / "modules"
    wanted = ["mpm_event", "authz_core", "alias", "setenvif", "proxy", "proxy_scgi"]
    loads = [
        f"LoadModule {name}_module {modules}/mod_{name}.so" for name in wanted if (modules / f"mod_{name}.so").exists()
    ]
    with short_folder() as folder:
        port = free_port()
        (folder / "page").touch()  # any existing file: it marks where SCRIPT_NAME ends
        file = folder / "apache.conf"
        file.write_text(f"""
ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
{os.linesep.join(loads)}
Define MODULES {modules}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
ErrorLog {folder}/error.log
LogLevel info
DocumentRoot {folder}
Timeout 300
UseCanonicalName On
AllowEncodedSlashes NoDecode
<Directory {folder}>
  Require all granted
</Directory>
{config or _apache_mount(to, mount, folder)}
{extra}
""")
        with _running([program, "-DFOREGROUND", "-f", str(file)], folder, port, unprivileged=True) as front:
            yield front


def _apache_mount(to: str, mount: str, folder: Path) -> str:
    where = split_address(to)
    if isinstance(where, tuple):
        backend = f"scgi://{where[0]}:{where[1]}"
        timeouts = "timeout=300 retry=0 connectiontimeout=5"
    else:
        backend = f"unix:{where}|scgi://application"
        timeouts = "timeout=300 retry=0"
    path = "(/.*)" if mount == "/" else f"{mount}(/.*)?"
    return f"""
AliasMatch "^{path}$" "{folder}/page$1"
<LocationMatch "^{path}$">
  ProxySCGIInternalRedirect Off
  CGIPassAuth On
  SetHandler "proxy:{backend}"
</LocationMatch>
<Proxy "{backend}">
  ProxySet {timeouts}
</Proxy>"""


@contextmanager
def lighttpd(to: str = "", mount: str = "/", *, config: str = "", extra: str = "") -> Iterator[Front]:
    program = require_program("lighttpd")
    with short_folder() as folder:
        port = free_port()
        file = folder / "lighttpd.conf"
        file.write_text(f"""
server.document-root = "{folder}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/error.log"
server.pid-file = "{folder}/lighttpd.pid"
server.upload-dirs = ( "{folder}" )
server.modules = ( "mod_scgi" )
server.max-request-size = 2097152
server.stream-response-body = 2
{config or _lighttpd_mount(to, mount)}
{extra}
""")
        with _running([program, "-D", "-f", str(file)], folder, port) as front:
            yield front


def _lighttpd_mount(to: str, mount: str) -> str:
    where = split_address(to)
    if isinstance(where, tuple):
        backend = f'"host" => "{where[0]}", "port" => {where[1]}'
    else:
        backend = f'"socket" => "{where}"'
    fix = '"fix-root-scriptname" => "enable", ' if mount == "/" else ""
    limits = '"connect-timeout" => 5, "read-timeout" => 300, "write-timeout" => 300'
    server = f'scgi.server = ( "{mount}" => (( {backend}, "check-local" => "disable", {fix}{limits} )) )'
    return server if mount == "/" else f'$HTTP["url"] =~ "^{mount}(/|$)" {{ {server} }}'


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int, unprivileged: bool = False) -> Iterator[Front]:
    """Start a front, fail with its error log if it does not come up, stop it at the end."""
    user = group = None
    if unprivileged and os.geteuid() == 0:
        # Apache will not serve as root. As www-data with root's group it may still use our 0660 sockets.
        user, group = _web_user(), 0
        shutil.chown(folder, user)
    error_log = folder / "error.log"
    try:
        process = start(command, log_file=folder / "start.log", address=f"127.0.0.1:{port}", user=user, group=group)
    except pytest.fail.Exception as failure:
        details = error_log.read_text() if error_log.exists() else "(none)"
        raise AssertionError(f"{failure}\nerror log:\n{details}") from None
    front = Front(process, port, error_log)
    try:
        yield front
        process.stop(20)  # Apache may miss that it is to end; its own patience with its children is 10 s
        process.assert_nothing_left()
    finally:
        process.kill()
        print(f"--- error log of {Path(command[0]).name} ---\n{front.log()}")


def _web_user() -> int:
    for name in ("www-data", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            pass
    raise LookupError("neither www-data nor nobody exists here")
