"""Step plan: how many steps a budget pays for. Pure arithmetic, used for schedules and by ``check``."""

import math
from dataclasses import dataclass

from distributed_tuner.budget import COUNTED
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.values import Cost

UNLIMITED_STEPS = 2000  # T of the ZOT paper, for budgets that limit only time or dollars
MOST_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Plan of a stage that nothing stops early: steps, evaluations, and their total cost.

    ``most`` is the number of steps after which the stage ends however much budget is left, as when steps were raced.
    ``candidates``: those of one step.
    """

    steps: int
    evaluations: int
    cost: Cost
    most: int
    candidates: int = 1


def plan_stage(
    limits: BudgetConfig,
    step: Cost,
    evaluation: Cost,
    eval_every: int,
    most: int | None = None,
    before: Cost | None = None,
) -> StagePlan:
    """Play the stage through: an evaluation of the start, steps with an evaluation every ``eval_every`` queries, an
    evaluation of the end.

    Args:
        limits: what the budget allows; seconds are not known beforehand and ignored.
        step: cost of one step, of all its candidates on all its examples.
        look: cost of one evaluation.
        eval_every: queries between two evaluations.
        most: steps after which the stage ends anyway.
        before: what earlier stages have taken from the same limits; not part of the plan's own cost.

    Returns:
        A plan; its steps are 0 when the budget pays for no step.
    """
    bounded = any(getattr(limits, unit) is not None for unit in COUNTED) or (limits.usd is not None and step.usd > 0)
    most = min(most or MOST_STEPS, MOST_STEPS if bounded else UNLIMITED_STEPS)
    before = before or Cost()
    spent, steps, evaluations, since = before + evaluation, 0, 1, 0
    while steps < most and fits(spent + step + evaluation, limits):
        spent, steps, since = spent + step, steps + 1, since + step.queries
        if since >= eval_every and steps < most:
            spent, evaluations, since = spent + evaluation, evaluations + 1, 0
    if since:
        spent, evaluations = spent + evaluation, evaluations + 1
    return StagePlan(steps, evaluations, spent - before, most, step.queries)


def fits(cost: Cost, limits: BudgetConfig) -> bool:
    """Tell whether a cost lies within the counted limits and the dollars."""
    counted = all(getattr(cost, unit) <= (getattr(limits, unit) or math.inf) for unit in COUNTED)
    return counted and (limits.usd is None or cost.usd < limits.usd)
