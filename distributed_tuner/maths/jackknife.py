"""The jackknife: a statistic of a whole set as one number a row, so that sets can be compared pair by pair."""

import numpy as np

from distributed_tuner.values import Array64


def pseudo_values(whole: float, without: Array64) -> Array64:
    """Return N * whole - (N - 1) * without (N,): the pseudo-values of a statistic (Tukey 1958; Miller 1974, section 2).

    whole: of all N rows. without: of all rows but one, for each. Of a mean they are the rows' own values; of another
    smooth statistic they are about independent, with the statistic (less its bias) as their mean.
    """
    count = len(without)
    return np.asarray(count * whole - (count - 1) * without)
