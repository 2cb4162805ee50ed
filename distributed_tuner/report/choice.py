"""Choice of the returned prompt: the best tuned one, or the manual one where tuning is not shown to have helped."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import MeasureRow
from distributed_tuner.maths.intervals import paired_t
from distributed_tuner.report.trials import TrialSummary
from distributed_tuner.runs.recorded_config import Recorded

Kept: TypeAlias = Literal["tuned", "manual_prompt"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Choice of the returned prompt. ``p_value``: one-sided, that the tuned prompt's losses on dev are lower than the
    manual prompt's, both with the same kind of head; None if that was not tested."""

    kept: Kept
    p_value: float | None = None
    level: float | None = None


def choose(trial: TrialSummary | None, digest: Digest, config: Recorded) -> Choice:
    """Weigh the best trial against the manual prompt on the same split. Without both, the trial is returned.

    The losses are those of the rows of dev, each read by a head that was fitted without it; train, which steered the
    search, is left out.
    """
    level = config.settings.significance
    if trial is None or level is None or not trial.by_score:
        return Choice("tuned")
    manual = untuned(digest, "dev", trial.split_seed)
    rows = config.task.dev or 0
    if manual is None or not rows or len(manual.losses) != len(trial.losses) or len(trial.losses) < rows:
        return Choice("tuned")
    return weigh(manual.losses[-rows:], trial.losses[-rows:], level)


def weigh(manual: Sequence[float | None], tuned: Sequence[float | None], level: float) -> Choice:
    """Weigh losses of the rows of dev, pair by pair; those that are not known of both tell nothing."""
    pairs = zip(manual, tuned, strict=True)
    gains = np.array([theirs - ours for theirs, ours in pairs if theirs is not None and ours is not None])
    p_value = _p_value(gains)
    return Choice("tuned" if p_value <= level else "manual_prompt", p_value, level)


def untuned(digest: Digest, split: str, split_seed: int | None) -> MeasureRow | None:
    """Return what the manual prompt scored on one split of one draw: with the head, where there is one."""
    found = [row for row in digest.measures if row.split == split and row.split_seed == split_seed]
    ways = ("manual_prompt_with_head", "manual_prompt")
    return next((row for what in ways for row in found if row.what == what), None)


def _p_value(gains: "np.ndarray[Any, np.dtype[np.float64]]") -> float:
    from scipy.special import stdtr

    if len(gains) < 2:
        return 1.0
    t, degrees = paired_t(gains)
    return float(stdtr(degrees, -t))
