"""An oracle with a budget: every request is paid for before it is sent. What is bought is the stage's business."""

from collections.abc import Callable
from dataclasses import replace

from distributed_tuner.budget import BudgetTracker
from distributed_tuner.config.oracle import OracleConfig
from distributed_tuner.errors import BudgetExhausted, OracleTimeout
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.tiling import tile_count
from distributed_tuner.values import Cost, Evaluation, Request


class BudgetedOracle:
    """Sends requests to ``oracle`` as long as ``tracker`` pays for them.

    ``elapsed`` returns the wall-clock seconds since the trial's first query.
    """

    def __init__(
        self, oracle: LossOracle, tracker: BudgetTracker, config: OracleConfig, elapsed: Callable[[], float]
    ) -> None:
        self._oracle = oracle
        self._tracker = tracker
        self._config = config
        self._elapsed = elapsed

    def require(self, cost: Cost) -> None:
        """Check that ``cost`` can still be paid.

        Raises:
            BudgetExhausted: it is more than is left.
        """
        self._tracker.require(cost, self._elapsed())

    def evaluate(self, request: Request, keep: Cost | None = None, queries: int | None = None) -> Evaluation:
        """Answer the request and book its cost; ``keep`` is left in the budget for what must still come.

        ``queries`` is what a request that is part of a larger one counts as; else each candidate is a query.

        Raises:
            BudgetExhausted: the request and what is to be kept cost more than is left, or it ran out of its time. In
                that case what was asked is booked, with all the device time that it can have taken.
        """
        asked = _counted(self._oracle.cost(request), queries)
        self.require(asked + (keep or Cost()))
        device_usd = self._config.price.usd_per_device_hour / 3600
        tiles = tile_count(request, self._config.tile)
        timeout = self._tracker.deadline(asked, self._elapsed(), device_usd * tiles)
        try:
            answer = self._oracle.evaluate(request, timeout)
        except OracleTimeout as error:
            busy = Cost(seconds=timeout * tiles, usd=timeout * tiles * device_usd)
            self._tracker.spend(asked + busy)
            raise BudgetExhausted(
                f"a request was given up after {timeout:.1f} s, when the budget of time or dollars ended"
            ) from error
        counts_as = queries if answer.cost.queries else None  # answers that were kept from before are no query
        answer = replace(answer, cost=_counted(answer.cost, counts_as))
        self._tracker.spend(answer.cost)
        limit = self._tracker.limits.seconds
        if limit is not None and self._elapsed() > limit:
            raise BudgetExhausted(f"seconds: {limit} had passed when the answer to the last request arrived")
        return answer

    def cost(self, request: Request) -> Cost:
        """Return what the oracle says that the request costs."""
        return self._oracle.cost(request)


def _counted(cost: Cost, queries: int | None) -> Cost:
    return cost if queries is None else replace(cost, queries=queries)
