"""Default size of a pool: oracle actors and threads where the settings leave them open. Arithmetic alone."""

import os
from pathlib import Path
from typing import TypeVar

from distributed_tuner.config.oracle import OracleBase

C = TypeVar("C", bound=OracleBase)

MEMORY_SHARE = 0.5  # of the free memory that the actors' models may take
CGROUP_CPUS = Path("/sys/fs/cgroup/cpu.max")  # the quota and the period of a container, in microseconds


def sized(config: C, *, slots: int, tiles: int, model_bytes: int = 0, free: int | None = None) -> C:
    """Return the settings with the pool's ``actors`` and ``threads`` in numbers, where they are "auto".

    Args:
        config: the oracle's settings.
        slots: cores, or GPUs where the actors have some, that the actors can take.
        tiles: tiles that are computed at the same time at most; more actors than these would have nothing to do.
        model_bytes: bytes that one actor's model takes, 0 where they are not known.
        free: free bytes of memory, None where they are not known.
    """
    actors = config.actors
    if actors == "auto":
        most = slots // config.thread_count if not config.gpus else int(slots / config.gpus)
        if free is not None and model_bytes:
            most = min(most, int(MEMORY_SHARE * free / model_bytes))
        actors = max(1, min(most, tiles)) if config.many_actors else 1
    return config.model_copy(update={"actors": actors, "threads": config.thread_count})


def usable_cores() -> int:
    """Return the cores of this machine that this process may use: by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPUS.read_text(encoding="ascii").split()
        cores = min(cores, int(quota) // int(period))
    except (OSError, ValueError):  # no container, or "max": no quota
        pass
    return max(1, cores)
