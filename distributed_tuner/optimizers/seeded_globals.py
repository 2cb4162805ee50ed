"""Keeps third-party optimizers away from the process's global random generators, and those generators from them."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from distributed_tuner.seeds import Key, seed_of


@contextmanager
def isolated_randomness(key: Key) -> Iterator[None]:
    """Within the block the global generators of numpy and Python follow ``key``; afterwards they are as before.

    Some members of nevergrad's registry draw from them behind the parametrization's own generator. Warnings within the
    block are dropped: they advise on settings that the user did not choose.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed_of((*key, "python")))
    np.random.seed(seed_of((*key, "numpy")))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
