"""Selection of a trial's best prompt among those evaluated: by cross-validation over train and dev, or by dev."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from distributed_tuner.values import Array64, Candidate

Rule = Literal["cross_validation", "metric_then_loss", "metric"]


@dataclass(frozen=True, eq=False, slots=True)
class Selected:
    """The best prompt so far, how it scored on dev, and by cross-validation over train and dev (``score``).

    ``head``: what was fitted to read it by, as the head's ``state_dict`` tells.
    """

    candidate: Candidate
    dev_metric: float
    dev_loss: float
    train_loss: float
    score: float = math.nan
    head: Mapping[str, Array64] = field(default_factory=dict)


def is_better(metric: float, loss: float, score: float, best: Selected | None, rule: Rule) -> bool:
    """Tell whether an evaluation beats the best so far. An evaluation whose loss is not finite never does."""
    if rule == "cross_validation":
        return math.isfinite(score) and (best is None or not score >= best.score)
    if not (math.isfinite(metric) and math.isfinite(loss)):
        return False
    if best is None or metric > best.dev_metric:
        return True
    return rule == "metric_then_loss" and metric == best.dev_metric and loss < best.dev_loss
