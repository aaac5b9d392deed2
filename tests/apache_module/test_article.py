"""The article's steps and the how-to's, as they are typed there, on a machine of the test's own.

It has the file system of this one, with what is written going elsewhere, and a network of its own: so the real folders
of Apache are used, and the ports 80 and 4000.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scgi
from support import require_program, short_folder
from support.apache_module import SOURCE
from support.overlays import NAMESPACES, reason_against_machines

HOW_TO = Path(__file__).parents[2] / "docs/how-to/apache.md"

MACHINE = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$ROOM"
for folder in /etc/apache2 /usr/lib/apache2/modules /var/lib/apache2 /var/log/apache2 /var/www; do
    mkdir -p "$ROOM$folder.new" "$ROOM$folder.work"
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=$ROOM$folder.new,workdir=$ROOM$folder.work" "$folder"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/apache2
ip link set lo up
mkdir "$ROOM/bin"
printf '#!/bin/sh\\nexec "$@"\\n' > "$ROOM/bin/sudo"
printf '#!/bin/sh\\nexec apachectl "$1"\\n' > "$ROOM/bin/systemctl"
chmod 755 "$ROOM/bin/sudo" "$ROOM/bin/systemctl"
PATH="$ROOM/bin:$PATH:/usr/sbin:/sbin"
cp -r "$SOURCE" "$ROOM/apache2"
cd "$ROOM"
echo "ServerName localhost" > /etc/apache2/conf-enabled/name.conf
wait_for() { for n in $(seq 200); do curl -s -o /dev/null "$1" && return; sleep 0.05; done; echo "$1: nobody"; exit 1; }
"""
APPLICATION = """
(cd "$PACKAGE" && exec "$PYTHON" scgi_server.py) > server.log 2>&1 &
for n in $(seq 400); do
    if (exec 3<>/dev/tcp/127.0.0.1/4000) 2>/dev/null; then break; fi
    sleep 0.05
done
"""
CONFIGURATION = """
cat > /etc/apache2/conf-available/scgitest.conf <<'END'
<Location "/scgitest">
    SCGIHandler On
    Require local
</Location>
<Location "/scgitest/off">
    SCGIHandler Off
</Location>
<Location "/scgitest/closed">
    Require all denied
</Location>
SCGIMount /scgitest 127.0.0.1:4000
END
a2enconf -q scgitest
"""


def on_a_machine(script: str) -> str:
    """What the script prints there; all that it has started ends with it."""
    if reason := reason_against_machines():
        pytest.skip(reason)
    for name in ("make", "cc", "apxs"):
        require_program(name)
    with short_folder() as room:
        environment = {
            **os.environ,
            "ROOM": str(room),
            "SOURCE": str(SOURCE),
            "PACKAGE": str(Path(scgi.__file__).parent),
            "PYTHON": sys.executable,
        }
        done = subprocess.run(
            [*NAMESPACES, "--mount-proc", "bash", "-c", MACHINE + script],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def page(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+): '(.*)'$", text, re.MULTILINE))


def test_the_article_s_steps_show_its_page_at_scgitest() -> None:
    said = on_a_machine(
        """
(cd apache2 && make && sudo make install) > make.log 2>&1 || { cat make.log; exit 1; }
sudo a2enmod -q scgi
"""
        + APPLICATION
        + CONFIGURATION
        + """
apachectl start
wait_for http://localhost/
curl -sS http://localhost/scgitest
for path in off closed anything; do
    echo "$path $(curl -sS -o /dev/null -w '%{http_code}' "http://localhost/scgitest/$path")"
done
cat /etc/apache2/mods-enabled/scgi.load
"""
    )
    found = page(said)
    wanted = {
        "SCRIPT_NAME": "/scgitest",
        "PATH_INFO": "",
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "QUERY_STRING": "",
        "CONTENT_LENGTH": "0",
        "SERVER_NAME": "localhost",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "REQUEST_URI": "/scgitest",
        "SCGI": "1",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert {"SERVER_SOFTWARE", "DOCUMENT_ROOT", "SERVER_ADMIN", "REMOTE_PORT", "HTTP_USER_AGENT"} <= found.keys()
    assert "off 404\nclosed 403\nanything 200\n" in said
    assert re.search(r"^LoadModule scgi_module .*/mod_scgi\.so$", said, re.MULTILINE)


def test_the_steps_of_the_how_to_lead_to_an_apache_with_the_module() -> None:
    steps = next(
        block for block in re.findall(r"^```sh\n(.*?)^```$", HOW_TO.read_text(), re.M | re.S) if "make" in block
    )
    assert "sudo make install\n" in steps and "sudo a2enmod scgi\n" in steps
    typed = "".join(f"{line}\n" for line in steps.splitlines() if not line.startswith("sudo apt"))
    said = on_a_machine(
        f"""
apachectl start
{{ {typed}
}} > steps.log 2>&1 || {{ cat steps.log; exit 1; }}
"""
        + APPLICATION
        + CONFIGURATION
        + """
apachectl graceful
until curl -sS http://localhost/scgitest | grep "SCGI: '1'"; do sleep 0.05; done
"""
    )
    assert said.endswith("SCGI: '1'\n")


def test_make_install_writes_where_destdir_says(tmp_path: Path) -> None:
    """What makers of packages need, and who is not root."""
    for name in ("cc", "make", "apxs"):
        require_program(name)
    here = tmp_path / "apache2"
    subprocess.run(["cp", "-r", SOURCE, here], check=True)
    command = ["make", "-C", here, "install", f"DESTDIR={tmp_path}/root"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {str(file.relative_to(tmp_path / "root")) for file in (tmp_path / "root").rglob("*") if file.is_file()}
    assert found == {"usr/lib/apache2/modules/mod_scgi.so", "etc/apache2/mods-available/scgi.load"}
    load = (tmp_path / "root/etc/apache2/mods-available/scgi.load").read_text()
    assert "LoadModule scgi_module /usr/lib/apache2/modules/mod_scgi.so\n" in load
    assert (tmp_path / "root/usr/lib/apache2/modules/mod_scgi.so").stat().st_mode & 0o777 == 0o644
