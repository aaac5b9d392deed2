"""The scenarios. Each asserts what must hold, and returns the figures that it found.

They are given a server of `load.write_application`'s code with as many workers at least as at most.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from support import Process, is_alive, wait_until
from support.generations import is_stopped, pools_of, workers_of
from support.load import Load, Loss, Report, write_application


def pass_time_until(instant: float) -> None:
    """For what is to happen at an instant, not after a fact."""
    time.sleep(max(0.0, instant - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Reloads:
    without: Report
    during: Report
    reloads: int

    def __str__(self) -> str:
        more = (self.during.longest_gap - self.without.longest_gap) * 1000
        return f"without: {self.without}\nwith {self.reloads} reloads: {self.during}\ngap: {more:+.0f} ms"


def reload_every_second(
    server: Process, app: Path, *, total: int, pause: float, clients: int = 64, every: float = 1.0
) -> Reloads:
    """`total` requests without a reload, and as many with one every second, each of new code."""
    with Load(server.address, clients=clients, total=total, pause=pause) as load:
        without = load.wait(within=300)
    reloads = 0
    with Load(server.address, clients=clients, total=total, pause=pause) as load:
        next_reload = time.monotonic() + every / 2
        while load.answered + load.lost < total:
            pass_time_until(next_reload)
            write_application(app, f"{server.pid}.{reloads + 1}")
            generations(server)
            server.signal(signal.SIGHUP)
            reloads += 1
            next_reload += every
        during = load.wait()
    for report in (without, during):
        assert report.lost == [] and report.refused == 0, (str(report), report.lost[:10])
        assert report.answered == total
    # Wishes that come while a generation is loading are one; the last may have come when the requests were over.
    assert len(during.versions) > reloads / 2, (reloads, during.versions)
    assert during.longest_gap <= without.longest_gap + 0.2, during.gaps
    return Reloads(without, during, reloads)


def generations(server: Process) -> int:
    """How many there are; never more than two."""
    found = len(server.children())
    assert found <= 2, f"{found} generations at once"
    return found


def storm(server: Process, app: Path, *, pause: float = 0.002, signals: int = 100, clients: int = 64) -> Report:
    """So many HUPs within a second, and then one more reload, which has to bring its new code."""
    before = workers_of(server)
    with Load(server.address, clients=clients, pause=pause) as load:
        load.wait_for_more(500)
        began = time.monotonic()
        for number in range(signals):
            pass_time_until(began + number / signals)
            server.signal(signal.SIGHUP)
            generations(server)
        load.wait_for_more(500)
        write_application(app, f"{server.pid}.storm")
        server.signal(signal.SIGHUP)
        wait_until(lambda: generations(server) == 1 and not set(before) & set(workers_of(server)), 20)
        wait_until(lambda: len(workers_of(server)) == len(before))
        load.wait_for_more(500)
    assert load.report.lost == [] and load.report.refused == 0, (str(load.report), load.report.lost[:10])
    assert f"{server.pid}.storm" in load.report.versions
    return load.report


def term_with_waiting(server: Process, *, waiting: int = 200, pause: float = 0.05) -> Report:
    """TERM when so many clients have asked and wait: all of them are answered, and nothing is left."""
    with Load(server.address, clients=waiting, total=waiting, pause=pause) as load:
        wait_until(lambda: load.waiting + load.answered >= waiting, what="all requests to have arrived")
        assert load.waiting > waiting // 2, "the server was too quick for this test"
        status = server.stop(within=30)
        report = load.wait()
    assert status == 0
    assert report.answered == waiting and report.lost == [] and report.refused == 0, (str(report), report.lost[:10])
    server.assert_nothing_left()
    return report


def term_under_load(server: Process, *, clients: int = 64, pause: float = 0.002, exact: bool = True) -> Report:
    """TERM while clients come and go: what was connected is answered, whoever comes later is refused.

    Not `exact`: what connected after TERM may be lost, as TCP has it where new connections cannot be kept out.
    """
    with Load(server.address, clients=clients, pause=pause) as load:
        load.wait_for_more(500)
        told = time.monotonic()
        assert server.stop(within=30) == 0
        wait_until(lambda: load.refused > clients, what="clients to be refused")
    lost = [loss for loss in load.report.lost if exact or loss.began < told]
    assert lost == [], (str(load.report), lost[:10])
    server.assert_nothing_left()
    return load.report


@dataclass(slots=True)
class Killings:
    report: Report | None = None
    kills: list[float] = field(default_factory=list)  # when workers were killed
    killed_pools: int = 0
    stopped_pools: int = 0
    healed: list[float] = field(default_factory=list)  # how long it took after a kill
    woken: list[float] = field(default_factory=list)  # and after a stop
    named: int = 0  # lost requests that the log names with their worker's death

    def __str__(self) -> str:
        return (
            f"{self.report}\nkilled: {len(self.kills)} workers, {self.killed_pools} pools; stopped: "
            f"{self.stopped_pools} pools\nwhole again after at most {max(self.healed, default=0):.2f} s, "
            f"after a stop {max(self.woken, default=0):.2f} s; the log names {self.named} of the lost"
        )


def killing(
    server: Process,
    *,
    seconds: float,
    seed: int,
    clients: int = 64,
    pause: float = 0.002,
    whole_within: float = 1.0,
    watch_time: float = 10.0,
) -> Killings:
    """KILL for workers and pools, STOP for pools, at random instants: a lost request is one whose worker was killed."""
    chance = random.Random(seed)
    found = Killings()
    full = len(workers_of(server))
    struck: set[int] = set()

    def whole() -> bool:
        workers = workers_of(server)
        return (
            len(workers) == full
            and not struck & {*workers, *pools_of(server)}
            and not any(is_stopped(pid) for pid in pools_of(server))
        )

    def strike(pids: list[int], number: int) -> None:
        pid = chance.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        struck.add(pid)

    with Load(server.address, clients=clients, pause=pause) as load:
        load.wait_for_more(500)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass_time_until(time.monotonic() + chance.uniform(0, 0.5))
            dice = chance.random() if pools_of(server) else 0.0
            began = time.monotonic()
            if dice < 0.6:
                for victim in chance.sample(workers_of(server), chance.choice((1, 1, 1, 2, 3))):
                    found.kills.append(time.monotonic())
                    strike([victim], signal.SIGKILL)
            elif dice < 0.85:
                strike(pools_of(server), signal.SIGKILL)
                found.killed_pools += 1
            else:
                strike(pools_of(server), signal.SIGSTOP)
                found.stopped_pools += 1
            wait_until(whole, 20, "all workers to be there again")
            (found.healed if dice < 0.85 else found.woken).append(time.monotonic() - began)
            load.wait_for_more(100)
    report = found.report = load.report
    log = server.log()
    found.named = sum(f"(request load-{loss.number}, " in log for loss in report.lost)
    assert report.refused == 0, str(found)
    assert not_explained(report.lost, found.kills) == [], (str(found), not_explained(report.lost, found.kills))
    assert max(found.healed, default=0) <= whole_within, (str(found), found.healed)
    assert max(found.woken, default=0) <= watch_time + whole_within, (str(found), found.woken)
    return found


def chaos(
    server: Process,
    app: Path,
    *,
    seconds: float,
    seed: int,
    clients: int = 64,
    pause: float = 0.002,
    longest_gap: float = 7.0,  # the watch time, and what a restart takes
) -> Killings:
    """Reloads, good and broken ones, KILL and STOP for whoever there is, all without waiting for what came before."""
    chance = random.Random(seed)
    found = Killings()
    full = len(workers_of(server))
    with Load(server.address, clients=clients, pause=pause) as load:
        load.wait_for_more(500)
        end = time.monotonic() + seconds
        number = 0
        while time.monotonic() < end:
            pass_time_until(time.monotonic() + chance.choice((0.0, 0.001, 0.01, 0.1, 0.5)) * chance.random() * 2)
            number += 1
            dice = chance.random()
            pools, workers = server.pools(), workers_of(server)
            if dice < 0.4:
                if chance.random() < 0.3:
                    write_application(app, "broken", first="raise RuntimeError\n")
                    server.signal(signal.SIGHUP)
                    pass_time_until(time.monotonic() + 0.05)
                write_application(app, f"{server.pid}.{number}")
                server.signal(signal.SIGHUP)
            elif dice < 0.7 and workers:
                found.kills.append(time.monotonic())
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
            elif dice < 0.95 and pools:
                found.killed_pools += 1
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(pools), signal.SIGKILL)
            elif pools:
                found.stopped_pools += 1
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(pools), signal.SIGSTOP)
        write_application(app, f"{server.pid}.last")
        server.signal(signal.SIGHUP)
        began = time.monotonic()
        wait_until(
            lambda: len(server.pools()) == 1 and len(workers_of(server)) == full, 30, "one generation, and whole"
        )
        found.healed.append(time.monotonic() - began)
        load.wait_for_more(500)
    report = found.report = load.report
    log = server.log()
    found.named = sum(f"(request load-{loss.number}, " in log for loss in report.lost)
    assert f"{server.pid}.last" in report.versions, list(report.versions)[-3:]
    assert report.refused == 0, str(found)
    assert report.longest_gap < longest_gap, (str(found), report.gaps)
    assert not_explained(report.lost, found.kills) == [], (str(found), not_explained(report.lost, found.kills))
    return found


def master_killed(server: Process, restart: Callable[[], Process]) -> Report:
    """KILL for the master while its workers are busy: they finish and go, and the next server binds at once.

    Fewer clients than workers: what waits in the queue dies with its listener.
    """
    workers = workers_of(server)
    with Load(server.address, clients=len(workers) - 1, pause=0.05) as load:
        load.wait_for_more(20)
        killed = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        successor = restart()
        wait_until(lambda: not any(map(is_alive, workers)), killed + 1.1 - time.monotonic(), "the workers' end")
        load.wait_for_more(20)
    server.assert_nothing_left(within=1)
    accepted = [loss for loss in load.report.lost if loss.began < killed - 0.01]
    assert accepted == [], (str(load.report), accepted)
    assert successor.running()
    return load.report


@dataclass(frozen=True, slots=True)
class Guarding:
    short: Report
    long: Report
    kills: int
    clean: int  # 502s with the request's own id
    empty: int  # closed without an answer

    def __str__(self) -> str:
        return (
            f"short: {self.short}\nlong: {self.long}\n"
            f"{self.kills} kills; {self.clean} clients got a 502 of their own, {self.empty} nothing"
        )


def guarding(
    server: Process, *, total: int, seconds: float, seed: int, every: float = 0.05, clients: int = 16
) -> Guarding:
    """`total` short requests at least and for so many seconds at least, long ones beside them, and a worker killed
    every 50 ms: whoever gets an answer gets its own, whole and once; or a 502 with its own id; or nothing, or its
    answer's beginning. Nothing is not for those that had run for half a second."""
    chance = random.Random(seed)
    kills = []
    with (
        Load(server.address, clients=clients) as short,
        Load(server.address, clients=4, pause=LONG, first=10**9) as long,
    ):
        end = time.monotonic() + seconds
        next_kill = time.monotonic() + every
        while short.answered < total or next_kill < end:
            pass_time_until(next_kill)
            next_kill += every
            if workers := workers_of(server):
                kills.append(time.monotonic())
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
    lost = [*short.report.lost, *long.report.lost]
    clean = [loss for loss in lost if loss.what == f"a wrong answer: {own_502(loss.number)!r}"]
    empty = [loss for loss in lost if loss.what.startswith(EMPTY)]
    begun = [loss for loss in lost if is_beginning(loss)]
    found = Guarding(short.report, long.report, len(kills), len(clean), len(empty))
    others = [loss for loss in lost if loss not in clean and loss not in empty and loss not in begun]
    assert others == [], (str(found), others[:10])
    # One that is killed may still take a connection before it dies.
    unexplained = not_explained([loss._replace(began=loss.began - 0.05) for loss in lost], kills)
    assert unexplained == [], (str(found), unexplained[:10])
    ages = {int(number): float(age) for number, age in RAN.findall(server.log())}
    # How long a request ran is at most what its client waited, and at most what the pool says that saw the death late.
    ran = {loss: min(loss.ended - loss.began, ages.get(loss.number, 0.0)) for loss in empty}
    unguarded = [loss for loss, seconds in ran.items() if GUARDED <= seconds < LONG - 0.05]
    assert unguarded == [], (str(found), unguarded[:10])
    assert clean, str(found)
    return found


LONG = 1.0  # seconds that a request takes which may be guarded
GUARDED = 0.65  # half a second, and what the log rounds off and a busy machine needs
RAN = re.compile(r"\(request load-(\d+), (\d+\.\d) s\)")  # in the line about a worker's death
EMPTY = ("closed without an answer", "ConnectionResetError after", "BrokenPipeError after")


def own_502(number: int) -> bytes:
    """What a client gets whose worker died."""
    body = f"502 Bad Gateway\nRequest load-{number}\n"
    head = f"Status: 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def is_beginning(loss: Loss) -> bool:
    """Whether what came is its own answer's beginning."""
    return loss.what.startswith("a wrong answer: b'Status: 200 OK") and f" {loss.number} " in loss.what


def not_explained(lost: list[Loss], kills: list[float], after: float = 1.0) -> list[Loss]:
    """The losses for which no kill remains that came while the request was under way, and not long before its end."""
    remaining = sorted(kills)
    left = []
    for loss in sorted(lost, key=lambda loss: loss.ended):
        kill = next((at for at in remaining if loss.began <= at <= loss.ended <= at + after), None)
        if kill is None:
            left.append(loss)
        else:
            remaining.remove(kill)
    return left
