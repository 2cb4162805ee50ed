"""The budget of one trial: reserves before it spends, so that no limit is ever exceeded.

One owner (the trial), five units. The budget knows limits and costs; what a request costs is the oracle's to say, and
what to do when nothing is left is the stage's.
"""

import math
from typing import Any

from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.errors import BudgetExhausted
from distributed_tuner.values import Cost

COUNTED = ("queries", "forwards", "tokens")


class BudgetTracker:
    """Limits and what has been spent of them.

    ``seconds`` of the limits are wall-clock, given by the caller as ``elapsed``; ``seconds`` of a spent cost are device
    time and not limited in themselves.
    """

    def __init__(self, limits: BudgetConfig) -> None:
        self.limits = limits
        self.spent = Cost()

    def require(self, cost: Cost, elapsed: float) -> None:
        """Check that a request of this cost may be sent.

        Raises:
            BudgetExhausted: some unit would be exceeded; names it.
        """
        for unit in COUNTED:
            limit, spent, asked = getattr(self.limits, unit), getattr(self.spent, unit), getattr(cost, unit)
            if limit is not None and spent + asked > limit:
                raise BudgetExhausted(f"{unit}: {spent} of {limit} spent, the next request needs {asked}")
        if self.limits.usd is not None and self.spent.usd + cost.usd >= self.limits.usd:
            raise BudgetExhausted(
                f"usd: {self.spent.usd:.6f} of {self.limits.usd} spent, the next request needs {cost.usd:.6f}"
            )
        if self.limits.seconds is not None and elapsed >= self.limits.seconds:
            raise BudgetExhausted(f"seconds: {elapsed:.1f} of {self.limits.seconds} have passed")

    def deadline(self, cost: Cost, elapsed: float, usd_per_second: float) -> float:
        """Return the wall-clock seconds that a request may take before it must be given up; infinity when free.

        ``usd_per_second`` is the most that the devices working on the request can cost together. ``cost.usd`` is what
        it costs by the token.
        """
        left = math.inf if self.limits.seconds is None else max(0.0, self.limits.seconds - elapsed)
        if self.limits.usd is not None and usd_per_second > 0:
            left = min(left, max(0.0, self.limits.usd - self.spent.usd - cost.usd) / usd_per_second)
        return left

    def spend(self, cost: Cost) -> None:
        """Book a cost that was required before."""
        self.spent = self.spent + cost

    def state_dict(self) -> dict[str, Any]:
        """Return what was spent, as plain numbers."""
        return {unit: getattr(self.spent, unit) for unit in (*COUNTED, "output_tokens", "seconds", "usd")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what was spent."""
        self.spent = Cost(**state)
