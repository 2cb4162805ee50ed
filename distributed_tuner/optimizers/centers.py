"""Centres that candidates refer to, with ids that cannot clash."""

import hashlib

from distributed_tuner.optimizers.base import frozen_copy
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array, Center


def make_center(key: Key, step: int, vector: Array) -> Center:
    """Return a centre holding a read-only copy of ``vector``, shape (P,).

    The id names key and step, and ends in a digest of the content: a trial that restarts from another's state passes
    the same step again with another vector, and actors that know the old centre must not take it for the new one.
    """
    copy = frozen_copy(vector)
    digest = hashlib.blake2b(copy.tobytes(), digest_size=8).hexdigest()
    return Center("/".join([*map(str, key), str(step), digest]), copy)
