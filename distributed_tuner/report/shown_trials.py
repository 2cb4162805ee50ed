"""The trials that a page shows, where it cannot show all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

IN_TABLE = 1000
"""Rows of the trials' table: more would make the page too large for a browser."""
IN_LINEAGE = 60
"""Lanes of the picture of lineages: more cannot be read."""


def shown_trials(trials: Sequence[Mapping[str, Any]], best: str | None, most: int) -> list[Mapping[str, Any]]:
    """Return ``most`` trials of a summary in their order: the ``best``, and those with the highest dev metric."""

    def rank(place: int) -> tuple[bool, float]:
        metric = trials[place]["dev_metric"]
        return trials[place]["trial_id"] != best, math.inf if metric is None else -metric

    return [trials[place] for place in sorted(sorted(range(len(trials)), key=rank)[:most])]
