"""Intervals and tests: Wilson intervals of proportions, and paired t tests on losses."""

from distributed_tuner.maths.losses import Array64


def wilson(share: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's interval of a share of ``total`` independent draws; z = 1.96 for 95 %."""
    if total <= 0:
        return 0.0, 1.0
    scale = 1 + z * z / total
    middle = (share + z * z / (2 * total)) / scale
    half = z / scale * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_t(gains: Array64) -> tuple[float, int]:
    """Return Student's t of the mean of paired differences (n,), n >= 2, and its degrees of freedom n - 1.

    Infinite where all gains are the same and not zero, 0 where they are all zero.
    """
    n = len(gains)
    mean, spread = float(gains.mean()), float(gains.std(ddof=1))
    if spread == 0:
        return (float("inf") if mean > 0 else float("-inf") if mean < 0 else 0.0), n - 1
    return mean / (spread / n**0.5), n - 1
