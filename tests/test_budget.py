"""The budget: what it lets through, what it refuses, and how long a request may take."""

import math

import pytest

from distributed_tuner.budget import BudgetTracker
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.values import Cost


def tracker(**limits: float) -> BudgetTracker:
    """Return a budget with only these limits."""
    return BudgetTracker(BudgetConfig.model_validate({"queries": None, **limits}))


@pytest.mark.parametrize("unit", ["queries", "forwards", "tokens"])
def test_a_counted_unit_may_be_spent_to_the_last_one(unit: str) -> None:
    some = tracker(**{unit: 10})
    some.spend(Cost(**{unit: 7}))
    some.require(Cost(**{unit: 3}), elapsed=1e9)
    with pytest.raises(BudgetExhausted, match=rf"^{unit}: 7 of 10 spent, the next request needs 4$"):
        some.require(Cost(**{unit: 4}), elapsed=0)


@pytest.mark.parametrize("unit", ["queries", "forwards", "tokens"])
def test_a_unit_without_a_limit_is_never_refused(unit: str) -> None:
    other = "tokens" if unit == "queries" else "queries"
    some = tracker(**{unit: 1})
    some.require(Cost(**{other: 10**12}), elapsed=0)


def test_dollars_by_the_token_are_refused_when_they_would_reach_the_limit() -> None:
    some = tracker(usd=1.0)
    some.spend(Cost(usd=0.75))
    some.require(Cost(usd=0.2), elapsed=0)
    with pytest.raises(BudgetExhausted, match=r"^usd: 0\.750000 of 1\.0 spent, the next request needs 0\.300000$"):
        some.require(Cost(usd=0.3), elapsed=0)


def test_no_request_is_sent_once_the_time_is_over() -> None:
    some = tracker(seconds=5.0)
    some.require(Cost(queries=1), elapsed=4.999)
    with pytest.raises(BudgetExhausted, match=r"^seconds: 5\.0 of 5\.0 have passed$"):
        some.require(Cost(), elapsed=5.0)


def test_device_seconds_are_not_wall_clock() -> None:
    some = tracker(seconds=5.0)
    some.spend(Cost(seconds=100.0))
    some.require(Cost(queries=1), elapsed=1.0)
    assert some.deadline(Cost(), elapsed=1.0, usd_per_second=0.0) == 4.0


@pytest.mark.parametrize(
    ("limits", "spent", "cost", "elapsed", "rate", "deadline"),
    [
        ({}, 0.0, 0.0, 3.0, 2.0, math.inf),
        ({"seconds": 10}, 0.0, 0.0, 3.0, 0.0, 7.0),
        ({"seconds": 10}, 0.0, 0.0, 12.0, 0.0, 0.0),
        ({"usd": 1}, 0.5, 0.0, 3.0, 0.0, math.inf),  # devices cost nothing: time is free
        ({"usd": 1}, 0.5, 0.0, 3.0, 0.25, 2.0),
        ({"usd": 1}, 0.5, 0.25, 3.0, 0.25, 1.0),  # what the request costs by the token is put aside first
        ({"usd": 1}, 1.5, 0.0, 3.0, 0.25, 0.0),
        ({"usd": 1, "seconds": 4}, 0.5, 0.0, 3.0, 0.25, 1.0),  # the nearer of both
        ({"usd": 1, "seconds": 9}, 0.5, 0.0, 3.0, 0.25, 2.0),
    ],
)
def test_a_request_may_take_what_time_and_dollars_leave(
    limits: dict[str, float], spent: float, cost: float, elapsed: float, rate: float, deadline: float
) -> None:
    some = tracker(**limits)
    some.spend(Cost(usd=spent))
    assert some.deadline(Cost(usd=cost), elapsed, rate) == pytest.approx(deadline)


def test_what_was_spent_survives_a_state_and_counts_on() -> None:
    some, again = tracker(queries=10), tracker(queries=10)
    some.spend(Cost(4, 40, 400, 1.5, 0.25))
    again.load_state_dict(some.state_dict())
    again.spend(Cost(1, 10, 100, 0.5, 0.25))
    assert again.spent == Cost(5, 50, 500, 2.0, 0.5)
    assert some.spent == Cost(4, 40, 400, 1.5, 0.25)
    with pytest.raises(BudgetExhausted):
        again.require(Cost(queries=6), elapsed=0)
