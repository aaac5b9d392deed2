"""`make soak`: the scenarios in full, with their figures. ARGS="--only killing --seconds 10" for some, or for less."""

from __future__ import annotations

import argparse
import random
import time
import traceback
from collections.abc import Callable

import pytest

from apache_module import rounds
from soak import scenarios
from support import Process, short_folder
from support.room import ROOT, Room, room

Soak = Callable[[argparse.Namespace, bool], object]
SCENARIOS: dict[str, tuple[str, Soak]] = {}


def serve(here: Room) -> Process:
    return here.serve("app.py", workers=4)


def scenario(what: str) -> Callable[[Soak], Soak]:
    def keep(run: Soak) -> Soak:
        SCENARIOS[run.__name__] = (what, run)
        return run

    return keep


@scenario("{total} requests of 1 ms, with a reload every second and without")
def reloads(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        return scenarios.reload_every_second(serve(here), here.app, total=given.total, pause=0.001)


@scenario("{total} requests as fast as they go, with a reload every second and without")
def reloads_at_full_speed(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        return scenarios.reload_every_second(serve(here), here.app, total=given.total, pause=0.0)


@scenario("100 HUPs within a second")
def storm(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        return scenarios.storm(serve(here), here.app)


@scenario("TERM with 200 waiting")
def waiting(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        return scenarios.term_with_waiting(serve(here))


@scenario("TERM under load, {stops} times")
def term(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        reports = [
            # TCP: what connects in the very instant of the end cannot always be told from what is refused.
            scenarios.term_under_load(serve(here), exact=not tcp)
            for _ in range(given.stops)
        ]
    return f"{sum(report.answered for report in reports)} answered, 0 lost"


@scenario("kills and stops at random for {seconds:g} s (seed {seed})")
def killing(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        return scenarios.killing(serve(here), seconds=given.seconds, seed=given.seed)


@scenario("reloads, kills and stops in any order for {seconds:g} s (seed {seed})")
def chaos(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        return scenarios.chaos(serve(here), here.app, seconds=given.seconds, seed=given.seed)


@scenario("{total} requests, and long ones, with a worker killed every 50 ms, for {seconds:g} s at least (seed {seed})")
def guarding(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        server = here.serve("app.py", workers=24)
        return scenarios.guarding(server, total=given.total, seconds=given.seconds, seed=given.seed)


@scenario("`apachectl graceful` {rounds} times under load")
def graceful(given: argparse.Namespace, tcp: bool) -> object:
    with short_folder() as folder, rounds.two_servers(folder, tcp) as (web, _):
        return rounds.graceful(web, given.rounds)


@scenario("one of two servers behind mod_scgi killed {rounds} times under load")
def failover(given: argparse.Namespace, tcp: bool) -> object:
    with short_folder() as folder, rounds.two_servers(folder, tcp) as (web, servers):
        return rounds.killing(web, servers, folder, given.rounds)


@scenario("500 slow and {fast} fast requests through mod_scgi while one of two servers is killed each second")
def crowded(given: argparse.Namespace, tcp: bool) -> object:
    with short_folder() as folder, rounds.two_servers(folder, tcp, limits=rounds.MANY) as (web, servers):
        return rounds.crowded(web, servers, folder, 500, given.fast)


@scenario("the master killed under load, {stops} times")
def master_killed(given: argparse.Namespace, tcp: bool) -> object:
    with room(as_root=ROOT, unix=not tcp) as here:
        serve(here)
        reports = [scenarios.master_killed(here.servers[-1], lambda: serve(here)) for _ in range(given.stops)]
    return f"{sum(report.answered for report in reports)} answered, 0 lost"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=sorted(SCENARIOS), help="this scenario alone (repeatable)")
    parser.add_argument("--kind", choices=["unix", "tcp"], help="over this kind of socket alone")
    parser.add_argument("--total", type=int, default=100_000, help="requests with a reload every second")
    parser.add_argument("--seconds", type=float, default=60, help="how long there is killing")
    parser.add_argument("--stops", type=int, default=10, help="how often there is an end under load")
    parser.add_argument("--rounds", type=int, default=100, help="how often Apache reloads, or a server behind it dies")
    parser.add_argument("--fast", type=int, default=50_000, help="fast requests beside 500 slow ones")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the random instants")
    given = parser.parse_args()
    broken = []
    for kind in [given.kind] if given.kind else ["unix", "tcp"]:
        for name in given.only or SCENARIOS:
            what, run = SCENARIOS[name]
            title = f"{what.format_map(vars(given))}, {kind}"
            print(f"== {title}", flush=True)
            began = time.monotonic()
            try:
                figures = str(run(given, kind == "tcp"))
            except (Exception, pytest.fail.Exception):
                print(traceback.format_exc(limit=-3), flush=True)
                broken.append(title)
            else:
                print(f"{figures}\n   kept ({time.monotonic() - began:.0f} s)", flush=True)
    if broken:
        raise SystemExit("NOT KEPT:\n" + "\n".join(broken))


if __name__ == "__main__":
    main()
