"""How many workers: a row for each sentence."""

from __future__ import annotations

import pytest

from scgi.supervisor.policy import (
    LATER,
    PATIENCE,
    SOON,
    STALLS,
    Census,
    Decision,
    IdleRecord,
    Pace,
    PoolPolicy,
    RestartBudget,
    decide,
)

POLICY = PoolPolicy(minimum=2, maximum=5)
FROM_NOTHING = PoolPolicy(minimum=0, maximum=5)


@pytest.mark.parametrize(
    ("policy", "census", "pace", "decision"),
    [
        pytest.param(POLICY, Census(0), Pace(), Decision(2, Pace(), SOON), id="the minimum is started at once"),
        pytest.param(POLICY, Census(1), Pace(), Decision(1, Pace(), SOON), id="and restored when one is lost"),
        pytest.param(POLICY, Census(1, starting=1), Pace(), Decision(1, Pace(), SOON), id="also while another starts"),
        pytest.param(
            POLICY,
            Census(3, starting=1, waiting=True),
            Pace(4),
            Decision(0, Pace(4), SOON),
            id="beyond it, one that starts is waited for before another is",
        ),
        pytest.param(
            POLICY,
            Census(2, idle=1, waiting=True),
            Pace(burst=4, streak=3),
            Decision(pace=Pace(rested=True), look_in=LATER),
            id="while somebody is idle nobody is started, and the pace is slow again",
        ),
        pytest.param(
            POLICY,
            Census(2, idle=1),
            Pace(rested=True),
            Decision(pace=Pace(rested=True), arm=True),
            id="idle twice in a row: rest until a worker rings",
        ),
        pytest.param(
            POLICY,
            Census(5, idle=1),
            Pace(),
            Decision(pace=Pace(rested=True), look_in=4 * LATER),
            id="at the maximum there is no hurry",
        ),
        pytest.param(
            POLICY, Census(5, waiting=True), Pace(4), Decision(look_in=4 * LATER), id="at the maximum: who is slow?"
        ),
        pytest.param(POLICY, Census(7, waiting=True), Pace(4), Decision(look_in=4 * LATER), id="the same beyond it"),
        pytest.param(
            POLICY,
            Census(2, stalled=True),
            Pace(4, 2),
            Decision(pace=Pace(), watch=True),
            id="all are busy with long requests and nobody waits: wake up when somebody comes",
        ),
        pytest.param(
            POLICY,
            Census(2, stalled=False),
            Pace(4, 2),
            Decision(pace=Pace(), look_in=LATER),
            id="all are busy but keep up: look again a little later",
        ),
        pytest.param(
            FROM_NOTHING,
            Census(0, stalled=False),
            Pace(),
            Decision(pace=Pace(), watch=True),
            id="without any worker only a connection wakes the pool",
        ),
        pytest.param(
            FROM_NOTHING,
            Census(0, waiting=True),
            Pace(),
            Decision(1, Pace(2), SOON),
            id="whoever waits then gets the first worker",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True),
            Pace(),
            Decision(1, Pace(2), SOON),
            id="somebody waits and nothing gets finished: one more at once",
        ),
        pytest.param(
            POLICY,
            Census(3, waiting=True),
            Pace(2),
            Decision(2, Pace(4), SOON),
            id="it was not enough: twice as many",
        ),
        pytest.param(
            POLICY,
            Census(4, waiting=True),
            Pace(4),
            Decision(1, Pace(8), SOON),
            id="as many as fit",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True, stalled=False),
            Pace(1, 0),
            Decision(pace=Pace(1, 1), look_in=SOON),
            id="somebody waits but requests get finished: his turn may come",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True, stalled=False, delay=SOON),
            Pace(1, PATIENCE - 1),
            Decision(1, Pace(2), SOON),
            id="somebody waited look after look, and will wait for long: one more",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True, stalled=False, delay=SOON / 2),
            Pace(1, PATIENCE - 1),
            Decision(pace=Pace(1, PATIENCE - 1), look_in=4 * LATER),
            id="but not for waits that are over before a worker could start",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True, stalled=False, delay=SOON, starved=True),
            Pace(2, PATIENCE - 1),
            Decision(pace=Pace(2), look_in=4 * LATER),
            id="nor where it would only take processor time from those that are there",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True, starved=True),
            Pace(2, stalls=1),
            Decision(pace=Pace(2, stalls=2), look_in=SOON),
            id="who finishes nothing but computes may have waited for a processor",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True, starved=True),
            Pace(2, stalls=STALLS - 1),
            Decision(2, Pace(4), SOON),
            id="but not for long",
        ),
        pytest.param(
            POLICY,
            Census(2, waiting=True, delay=0.0),
            Pace(1, PATIENCE - 1),
            Decision(1, Pace(2), SOON),
            id="where nothing gets finished every wait is long",
        ),
    ],
)
def test_the_number_of_workers(policy: PoolPolicy, census: Census, pace: Pace, decision: Decision) -> None:
    assert decide(policy, census, pace) == decision


def test_those_idle_for_the_whole_timeout_are_surplus() -> None:
    record = IdleRecord(4)
    for now, idle in ((0, 3), (5, 1), (8, 3), (12, 2)):
        record.note(idle, now)
    assert [record.surplus(10, now) for now in (9.9, 10, 17.9, 18, 30)] == [0, 1, 1, 2, 2]


def test_a_moment_in_which_nobody_is_idle_starts_the_time_anew() -> None:
    record = IdleRecord(2)
    record.note(2, 0)
    record.note(0, 9)
    record.note(2, 9.5)
    assert record.surplus(10, 12) == 0
    assert record.surplus(10, 19.5) == 2


def test_more_idle_workers_than_the_maximum_do_no_harm() -> None:
    record = IdleRecord(2)
    record.note(5, 0)
    assert record.surplus(1, 1) == 2


def test_the_first_loss_is_free_then_rests_double_up_to_ten_seconds() -> None:
    budget = RestartBudget()
    rests = [budget.lost(now) for now in range(10)]
    assert rests == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    assert budget.remaining(9) == 10
    assert budget.remaining(19) == 0
    for now in range(5000):
        assert budget.lost(now) == 10


def test_a_worker_that_is_well_and_was_born_after_the_losses_wipes_them_out() -> None:
    budget = RestartBudget()
    for now in (1, 2, 3):
        budget.lost(now)
    budget.settled(born=2)
    assert budget.lost(4) == 0.4
    budget.settled(born=4)
    assert budget.lost(5) == 0


def test_a_rest_for_another_reason_is_never_shortened() -> None:
    budget = RestartBudget()
    budget.rest(0.5, 10)
    budget.lost(10)
    assert budget.remaining(10) == 0.5
