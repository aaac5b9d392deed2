"""The comparison with other servers: its page shows what was measured, and what measures can be trusted."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import peers, render
from bench.cpu import tree_cpu
from bench.load import Client, WrongAnswer, compiled
from bench.plan import HERE, Plan
from bench.rounds import AGAIN, Measured, Slice, run
from bench.servers import Missing, Server, running
from bench.tables import Aim, Column, Table

from support.programs import require_program


def test_an_aim_is_missed_when_its_figure_is_beyond_the_limit() -> None:
    assert Aim("at most", 1.0, 1.0).met is True
    assert Aim("at most", 1.01, 1.0).met is False
    assert Aim("at least", 4.9, 5.0, at_least=True).met is False
    assert Aim("not measured", None, 1.0).met is None


def test_a_run_whose_twins_differ_says_so_on_the_page() -> None:
    table = Table(
        "toy", "A toy", "Two of a kind.", [Column("cpu", "µs")], [{"name": "scgi", "cpu": 1.0}], trusted=False
    )
    run = {"command": "make bench", "date": "2026-01-01", "machine": {}, "tables": [table.data()]}
    assert "NOT TO BE TRUSTED" in render.page(run)
    table.trusted = True
    assert "NOT TO BE TRUSTED" not in render.page(run | {"tables": [table.data()]})


class Toys:
    """Servers that are no processes: what each request costs them is given."""

    def __init__(self, **costs: float) -> None:
        self.costs = costs
        self.spent = dict.fromkeys(costs, 0.0)
        self.order: list[str] = []
        self.servers = [Server(name, [], "") for name in costs]

    def load(self, server: Server, seconds: float, seed: int) -> Slice:
        self.order.append(server.name)
        self.spent[server.name] += self.costs[server.name] * 100
        return Slice(100, seconds, Counter({50_000: 99, 900_000: 1}))

    def cpu(self, server: Server) -> float:
        return self.spent[server.name]


def test_ratios_are_those_of_the_same_round() -> None:
    toys = Toys(ours=30e-6, theirs=20e-6)
    measured = run(toys.servers, toys.load, rounds=8, cpu=toys.cpu)
    ratio = measured.ratio("ours", "theirs")
    assert ratio is not None and ratio.median == pytest.approx(1.5)
    assert measured.ratio("ours", "nobody") is None
    assert measured.series["ours"].percentile(0.5) == 50
    assert measured.series["ours"].percentile(0.999) == 900


def test_the_order_changes_from_round_to_round() -> None:
    toys = Toys(a=1e-6, b=1e-6, c=1e-6)
    run(toys.servers, toys.load, rounds=10, cpu=toys.cpu)
    rounds = [tuple(toys.order[at : at + 3]) for at in range(3, len(toys.order), 3)]
    assert len(rounds) == 10 and len(set(rounds)) > 2
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)


def test_twins_that_differ_by_more_than_two_hundredths_are_not_trusted() -> None:
    for cost, trusted in ((1.015, True), (0.985, True), (1.03, False), (0.97, False)):
        toys = Toys(**{"scgi": 10e-6, "scgi" + AGAIN: cost * 10e-6})
        assert run(toys.servers, toys.load, rounds=5, cpu=toys.cpu).trusted() is trusted


def test_a_dearer_server_takes_part_in_some_rounds_only() -> None:
    toys = Toys(ours=1e-6, dear=9e-6)
    toys.servers[1] = replace(toys.servers[1], every=5)
    measured = run(toys.servers, toys.load, rounds=10, cpu=toys.cpu)
    measured = run(toys.servers, toys.load, rounds=10, cpu=toys.cpu, into=measured)
    assert len(measured.series["ours"].cpu) == 20 and len(measured.series["dear"].cpu) == 4
    ratio = measured.ratio("dear", "ours")
    assert ratio is not None and ratio.median == pytest.approx(9)


BURNER = """
import os, sys, time
def burn():
    while time.process_time() < 0.5:
        pass
for _ in range(2):
    if not os.fork():
        burn()
        os._exit(0)
    os.wait()                       # its time is in our cutime now
if not os.fork():
    burn()
    print("ready", flush=True)      # its time is its own: it stays
    sys.stdin.read()
    os._exit(0)
os.wait()
"""


def test_cpu_time_is_that_of_children_too_and_of_those_that_have_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", BURNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        spent = tree_cpu(process.pid)
        process.communicate()
    assert 1.45 < spent < 2.45  # three times 0.5 and the start of Python; 0.5 more at least if one counted twice
    assert tree_cpu(process.pid) == 0


def test_a_server_that_cannot_take_part_is_named_and_ours_cannot_be_missing() -> None:
    peer = Server("peer", ["/nonexistent/peer"], "/nonexistent/socket")
    with running([peer]) as (started, notes):
        assert started == []
        assert notes == ["peer is left out: /nonexistent/peer is not installed."]
    with pytest.raises(Missing), running([peer], strict=True):
        pass
    with pytest.raises(Missing), running([replace(peer, ours=True)]):
        pass


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    require_program("cc")
    folder = tmp_path_factory.mktemp("bench")
    return Plan(folder, compiled(HERE / "client.c", folder), compiled(HERE / "floor.c", folder))


@pytest.fixture
def floor(programs: Plan, short_tmp: Path) -> Iterator[Server]:
    plan = replace(programs, folder=short_tmp)
    with running([peers.floor(plan, size=1000)], strict=True) as (started, _):
        yield started[0]


def test_the_client_counts_right_answers(programs: Plan, floor: Server) -> None:
    client = Client(programs.client, clients=3, length=1000, tail="x\n")
    part = client(floor, 0, 1)  # nobody asks more than once
    assert part.requests == 3 == part.histogram.total()
    assert client(floor, 0.05, 2).requests > 3
    many = Client(programs.client, clients=1, connections=50, length=1000, tail="x\n")
    assert many(floor, 0, 3).requests == 50


@pytest.mark.parametrize("expected", [{"length": 999, "tail": "x\n"}, {"length": 1000, "tail": "y\n"}])
def test_the_client_does_not_take_a_wrong_answer(programs: Plan, floor: Server, expected: dict[str, Any]) -> None:
    with pytest.raises(WrongAnswer, match="floor: a wrong answer: status 200 with 1000 bytes"):
        Client(programs.client, **expected)(floor, 0.05, 1)


def test_the_client_says_when_nobody_answers(programs: Plan) -> None:
    with pytest.raises(WrongAnswer, match="nobody: cannot connect: No such file"):
        Client(programs.client)(Server("nobody", [], "/nonexistent/socket"), 0.05, 1)


def test_our_server_can_be_measured(programs: Plan, short_tmp: Path) -> None:
    servers = [peers.ours(replace(programs, folder=short_tmp)), peers.floor(replace(programs, folder=short_tmp))]
    with running(servers, strict=True) as (started, _):
        measured = run(started, Client(programs.client), rounds=2, seconds=0.02, warm_up=0.02)
    assert isinstance(measured, Measured) and measured.ratio("scgi", "floor") is not None
    assert all(one.requests > 0 for one in measured.series.values())
