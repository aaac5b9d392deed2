"""When a worker has done enough: a table, and what the lot may change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgi.supervisor.recycle import Ration

MIB = 1 << 20


@pytest.mark.parametrize(
    ("ration", "used", "reason"),
    [
        (Ration(), {"served": 10**9, "age": 10**9, "memory": 10**12}, None),
        (Ration(max_requests=100), {"served": 99, "age": 0}, None),
        (Ration(max_requests=100), {"served": 100, "age": 0}, "it has served 100 requests"),
        (Ration(max_requests=100), {"served": 107, "age": 0}, "it has served 107 requests"),
        (Ration(max_age=60), {"served": 0, "age": 59.9}, None),
        (Ration(max_age=60), {"served": 0, "age": 60.2}, "it is 60.2 s old"),
        (Ration(max_age=3600), {"served": 0, "age": 3600.4}, "it is 3600 s old"),
        (Ration(max_age=0.5), {"served": 0, "age": 0.7}, "it is 0.7 s old"),
        (Ration(max_memory=64 * MIB), {"served": 0, "age": 0, "memory": 64 * MIB}, None),
        (
            Ration(max_memory=64 * MIB),
            {"served": 0, "age": 0, "memory": 97 * MIB + MIB // 2},
            "it has 97.5 MiB of memory, more than 64",
        ),
        (Ration(max_memory=64 * MIB), {"served": 0, "age": 0, "memory": None}, None),
        (Ration(100, 60, MIB), {"served": 100, "age": 60, "memory": 2 * MIB}, "it has served 100 requests"),
    ],
)
def test_a_worker_is_due_when_it_has_used_up_its_ration(ration: Ration, used: dict, reason: str | None) -> None:
    assert ration.due(**used) == reason


def test_without_limits_there_is_nothing_to_watch() -> None:
    assert not Ration()
    assert all([Ration(max_requests=1), Ration(max_age=1), Ration(max_memory=1)])


@given(requests=st.integers(1, 10**9), age=st.floats(0.001, 10**9), chance=st.floats(0, 1, exclude_max=True))
def test_a_worker_may_be_spared_a_tenth_of_its_ration_and_no_more(requests: int, age: float, chance: float) -> None:
    share = Ration(requests, age, MIB).share(chance)
    assert 0.9 * requests <= share.max_requests <= requests
    assert 0.9 * age <= share.max_age <= age
    assert share.max_memory == MIB


def test_workers_that_began_together_do_not_end_together() -> None:
    shares = [Ration(max_requests=1000, max_age=600).share(chance / 10) for chance in range(10)]
    assert len({share.max_requests for share in shares}) == 10
    assert len({share.max_age for share in shares}) == 10


def test_the_smallest_ration_is_one_request() -> None:
    assert Ration(max_requests=1).share(0.999).max_requests == 1


def test_the_lot_adds_no_limit() -> None:
    assert not Ration().share(0.5)
