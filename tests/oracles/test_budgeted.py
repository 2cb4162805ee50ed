"""A budget in front of an oracle: what is not paid for is not sent."""

import math
from typing import Any

import numpy as np
import pytest
from tiny_models import MIXED, SPEC

from distributed_tuner.budget import BudgetTracker
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.oracle import AnalyticOracleConfig, Price, Tile
from distributed_tuner.errors import BudgetExhausted, OracleTimeout
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.oracles.wrappers.budgeted import BudgetedOracle
from distributed_tuner.values import Cost, Evaluation, Point, Request

CONFIG = AnalyticOracleConfig(kind="analytic", width=8)
ROWS = len(MIXED.examples)


class Watched(AnalyticOracle):
    """An analytic oracle that tells what reached it, and gives up when it is told to."""

    def __init__(self, config: AnalyticOracleConfig, gives_up: bool = False) -> None:
        super().__init__(config)
        self.timeouts: list[float] = []
        self._gives_up = gives_up

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        self.timeouts.append(timeout)
        if self._gives_up:
            raise OracleTimeout("given up")
        return super().evaluate(request, timeout)


def request(count: int) -> Request:
    return Request(tuple(Point(np.full(SPEC.length * 8, i, dtype=np.float32)) for i in range(count)), MIXED, SPEC)


def budgeted(config: AnalyticOracleConfig = CONFIG, elapsed: float = 0.0, gives_up: bool = False, **limits: Any) -> Any:
    inner, tracker = Watched(config, gives_up), BudgetTracker(BudgetConfig(**({"queries": None} | limits)))
    return BudgetedOracle(inner, tracker, config, lambda: elapsed), inner, tracker


def test_requests_are_sent_and_booked_as_long_as_they_are_paid_for() -> None:
    oracle, inner, tracker = budgeted(queries=5)
    oracle.evaluate(request(3))
    oracle.evaluate(request(2))
    assert (tracker.spent.queries, tracker.spent.forwards) == (5, 5 * ROWS)
    assert tracker.spent.tokens == inner.cost(request(5)).tokens
    with pytest.raises(BudgetExhausted, match="queries: 5 of 5 spent, the next request needs 1"):
        oracle.evaluate(request(1))
    assert len(inner.timeouts) == 2


@pytest.mark.parametrize("unit", ["queries", "forwards", "tokens"])
def test_a_request_that_would_exceed_a_limit_is_never_sent(unit: str) -> None:
    needed = getattr(AnalyticOracle(CONFIG).cost(request(2)), unit)
    oracle, inner, tracker = budgeted(**{unit: needed - 1})
    with pytest.raises(BudgetExhausted, match=f"{unit}: 0 of {needed - 1} spent, the next request needs {needed}"):
        oracle.evaluate(request(2))
    assert inner.timeouts == []
    assert tracker.spent == Cost()
    exact, _, paid = budgeted(**{unit: needed})
    exact.evaluate(request(2))
    assert getattr(paid.spent, unit) == needed


def test_what_is_to_be_kept_stays_in_the_purse() -> None:
    oracle, inner, _ = budgeted(queries=5)
    with pytest.raises(BudgetExhausted):
        oracle.evaluate(request(4), keep=Cost(queries=2))
    assert inner.timeouts == []
    oracle.evaluate(request(3), keep=Cost(queries=2))
    oracle.evaluate(request(2))


def test_a_part_of_a_request_counts_as_the_queries_that_are_said() -> None:
    oracle, _, tracker = budgeted(queries=2)
    answers = [oracle.evaluate(request(3), queries=count) for count in (1, 0, 1)]
    assert [answer.cost.queries for answer in answers] == [1, 0, 1]
    assert (tracker.spent.queries, tracker.spent.forwards) == (2, 9 * ROWS)
    with pytest.raises(BudgetExhausted, match="queries: 2 of 2 spent, the next request needs 1"):
        oracle.evaluate(request(3), queries=1)


def test_what_is_required_is_checked_and_not_booked() -> None:
    oracle, inner, tracker = budgeted(queries=5)
    oracle.require(oracle.cost(request(5)))
    with pytest.raises(BudgetExhausted, match="queries: 0 of 5 spent, the next request needs 6"):
        oracle.require(oracle.cost(request(6)))
    assert tracker.spent == Cost()
    assert inner.timeouts == []


def test_without_limits_of_time_or_dollars_a_request_may_take_for_ever() -> None:
    oracle, inner, _ = budgeted(queries=5)
    oracle.evaluate(request(1))
    assert inner.timeouts == [math.inf]


def test_seconds_left_bound_a_request_and_none_is_sent_when_they_are_over() -> None:
    oracle, inner, _ = budgeted(seconds=10.0, elapsed=7.5)
    oracle.evaluate(request(1))
    assert inner.timeouts == [2.5]
    late, idle, _ = budgeted(seconds=10.0, elapsed=10.0)
    with pytest.raises(BudgetExhausted, match=r"seconds: 10\.0 of 10\.0 have passed"):
        late.evaluate(request(1))
    assert idle.timeouts == []


@pytest.mark.parametrize("tokens_price", [0.0, 50.0])
def test_a_request_that_is_given_up_never_costs_more_than_the_limit(tokens_price: float) -> None:
    price = Price(usd_per_device_hour=3.6, usd_per_million_input_tokens=tokens_price)
    config = CONFIG.model_copy(update={"price": price, "tile": Tile(candidates=2, examples=4)})
    oracle, inner, tracker = budgeted(config, gives_up=True, usd=0.06)
    with pytest.raises(BudgetExhausted, match="given up after"):
        oracle.evaluate(request(4))
    tiles, by_token = 4, inner.cost(request(4)).usd
    assert inner.timeouts == [pytest.approx((0.06 - by_token) / (tiles * 3.6 / 3600))]
    assert tracker.spent.usd == pytest.approx(0.06)
    assert tracker.spent.usd <= 0.06 * (1 + 1e-9)
    assert (tracker.spent.queries, tracker.spent.seconds) == (4, pytest.approx(tiles * inner.timeouts[0]))
    with pytest.raises(BudgetExhausted, match="usd"):
        oracle.evaluate(request(1))
    assert len(inner.timeouts) == 1


def test_dollars_by_the_token_are_required_before_a_request_is_sent() -> None:
    config = CONFIG.model_copy(update={"price": Price(usd_per_million_input_tokens=1e6)})
    oracle, inner, _ = budgeted(config, usd=10.0)
    assert oracle.cost(request(1)).usd > 10
    with pytest.raises(BudgetExhausted, match="usd"):
        oracle.evaluate(request(1))
    assert inner.timeouts == []
