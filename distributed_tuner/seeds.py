"""Counter-based randomness: a key names a random stream, and the same key gives the same numbers on every machine.

Keys are tuples such as ``(run_seed, trial_id, stage, step, candidate)``. Two different keys share no noise, whatever
order they are drawn in and wherever they are drawn. Nothing here keeps state.
"""

import hashlib
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Key: TypeAlias = tuple[int | str, ...]
FloatArray: TypeAlias = npt.NDArray[np.float32]


def generator(key: Key) -> np.random.Generator:
    """Return the generator of the stream named by ``key`` (Philox, a counter-based bit generator)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def standard_normal(key: Key, size: int) -> FloatArray:
    """Return ``z ~ N(0, I_size)``, float32, shape ``(size,)``, of the stream ``key``."""
    return generator(key).standard_normal(size, dtype=np.float32)


def seed_of(key: Key) -> int:
    """Return a 31-bit seed derived from ``key``, for libraries that take an integer."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF
