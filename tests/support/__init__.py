"""What every test may lean on: real processes, real web servers, a real browser, and a wire of its own.

::

    facts.py        wait_until: poll a fact until its deadline
    programs.py     require_program: skip here, fail where CI=true
    addresses.py    free_port, short_folder, is_listening
    wire.py         an SCGI client that shares no code with src/, so that it can judge it
    processes.py    start a program, read its log, stop it, see that nothing is left behind
    generations.py  whose pools and workers they are
    room.py         servers as root or as an ordinary user, in a folder of their own
    users.py        an ordinary user, and a Python that such a user can run
    load.py         many clients, and what became of each request (load_clients.py, echo.py)
    fronts.py       nginx, Apache, lighttpd in front of an SCGI address
    apache_module.py  Apaches with our module
    overlays.py     whether a test can have a machine of its own
    hostile.py      SCGI servers that misbehave, by a table
    browser.py      a headless Chromium

Nothing here imports ``scgi``. The fixtures that wrap these live in ``tests/conftest.py``.
"""

from __future__ import annotations

from support.addresses import free_port, is_listening, short_folder
from support.browser import Chromium
from support.facts import wait_until
from support.fronts import Front, apache, lighttpd, nginx
from support.processes import Process, children_of, is_alive, resident_bytes, start
from support.programs import find_program, require_program
from support.wire import Reset, Response, build_request, netstring, parse_response, raw_exchange, scgi_request

__all__ = [
    "Chromium",
    "Front",
    "Process",
    "Reset",
    "Response",
    "apache",
    "build_request",
    "children_of",
    "find_program",
    "free_port",
    "is_alive",
    "is_listening",
    "lighttpd",
    "netstring",
    "nginx",
    "parse_response",
    "raw_exchange",
    "require_program",
    "resident_bytes",
    "scgi_request",
    "short_folder",
    "start",
    "wait_until",
]
