"""Which of the prompts that were looked at is the trial's best: the dev set selects, the train set never does."""

import math
from dataclasses import dataclass
from typing import Literal

from distributed_tuner.values import Candidate

Rule = Literal["metric_then_loss", "metric"]


@dataclass(frozen=True, eq=False, slots=True)
class Selected:
    """The best prompt so far and how it scored on dev."""

    candidate: Candidate
    dev_metric: float
    dev_loss: float
    train_loss: float


def is_better(metric: float, loss: float, best: Selected | None, rule: Rule) -> bool:
    """Tell whether a look beats the best so far. A look whose dev loss is not finite never does."""
    if not (math.isfinite(metric) and math.isfinite(loss)):
        return False
    if best is None or metric > best.dev_metric:
        return True
    return rule == "metric_then_loss" and metric == best.dev_metric and loss < best.dev_loss
