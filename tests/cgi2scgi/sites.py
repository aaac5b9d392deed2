"""Web servers that run cgi2scgi: Apache with mod_cgid or mod_cgi, and busybox's httpd, which speaks nothing but CGI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support import Front, Process, apache, free_port, require_program, start


def install(program: Path, folder: Path, name: str = "app", settings: str = "") -> Path:
    """Put it into a `cgi-bin` of its own, as `name`, with the settings beside it."""
    place = folder / "cgi-bin"
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    shutil.copy(program, place / name)
    (place / name).chmod(0o755)
    if settings:
        (place / f"{name}.conf").write_text(settings)
        (place / f"{name}.conf").chmod(0o644)
    return place


@contextmanager
def cgi_apache(place: Path, kind: str = "cgid", config: str = "") -> Iterator[Front]:
    """Apache with the folder of CGI programs at `/cgi-bin/`, by way of mod_cgid (its default) or mod_cgi."""
    extra = f"""
LoadModule {kind}_module ${{MODULES}}/mod_{kind}.so
LoadModule env_module ${{MODULES}}/mod_env.so
"""
    whole = f"""
ScriptAlias "/cgi-bin/" "{place}/"
<Directory "{place}">
  Require all granted
  CGIPassAuth On
</Directory>
{config}
"""
    with apache(config=extra + whole) as front:
        yield front


@contextmanager
def busybox(place: Path, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """busybox's httpd with the folder that `cgi-bin` is in; its `address` says where."""
    program = require_program("busybox")
    address = f"127.0.0.1:{free_port()}"
    root = place.parent
    command = [program, "httpd", "-f", "-p", address, "-h", str(root)]
    process = start(command, log_file=root / "busybox.log", address=address, env={**os.environ, **(env or {})})
    try:
        yield process
        process.stop()
        process.assert_nothing_left()
    finally:
        process.kill()
        print(f"--- log of busybox ---\n{process.log()}")
