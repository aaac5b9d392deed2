"""The Django project of apps/djangosized.py as an application of the servers under test, and many requests at once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench import peers
from bench.fronts import gunicorn
from bench.load import WrongAnswer
from bench.plan import HERE, Plan
from bench.servers import Missing, Server, connect

APP = "djangosized.py"
WARM = {"BENCH_WARM": "yes"}  # in its environment: a page is made before workers are forked


def ours(plan: Plan, *options: str) -> Server:
    return _with_project(plan, peers.ours(plan, "scgi", *options, app=APP))


def uwsgi(plan: Plan, *options: str, processes: int = 1, name: str = "uWSGI") -> Server:
    return _with_project(plan, peers.uwsgi(plan, *options, app=APP, processes=processes, name=name))


def with_gunicorn(plan: Plan, name: str, *options: str, workers: int) -> Server:
    return _with_project(plan, gunicorn(plan, name, *options, app="djangosized:application", workers=workers))


def _with_project(plan: Plan, server: Server) -> Server:
    """The server in the project's folder; raises Missing if there is no Django."""
    if not peers.installed(plan, "django"):
        raise Missing(f"The Django project is left out: Django is not installed in {plan.peers.parent.name}.")
    packages = next(plan.peers.parent.glob("lib/python*/site-packages"))
    return replace(server, cwd=HERE / "apps", env={"BENCH_PACKAGES": str(packages)})


@dataclass(frozen=True)
class Answered:
    """What the last line of an answer says."""

    pid: int
    began: float  # by time.monotonic, which is the same in all processes


def at_once(server: Server, count: int, path: str, query: str = "") -> list[Answered]:
    """So many requests at the same moment; returns when all are answered. Raises WrongAnswer if one is not."""
    if server.protocol == "http":
        request = f"GET {path}?{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode()
    else:
        variables = {
            "CONTENT_LENGTH": "0", "SCGI": "1", "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path,
            "QUERY_STRING": query, "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
        }  # fmt: skip
        head = "".join(f"{name}\0{value}\0" for name, value in variables.items()).encode()
        request = b"%d:%b," % (len(head), head)
    with ExitStack() as stack:
        try:
            sockets = [stack.enter_context(connect(server.address, 60)) for _ in range(count)]
            for sock in sockets:
                sock.sendall(request)
            answers = [stack.enter_context(sock.makefile("rb")).read() for sock in sockets]
        except OSError as error:
            raise WrongAnswer(f"{server.name}: {error}") from None
    try:
        lines = [answer.splitlines()[-1].split() for answer in answers]
        return [Answered(int(pid), float(began)) for pid, began in lines]
    except (IndexError, ValueError):
        raise WrongAnswer(f"{server.name}: not the project's answer to {path}") from None
