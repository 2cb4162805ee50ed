"""Memory of a device: how much is free, and what running out of it is called."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from distributed_tuner.errors import OracleMemoryError

T = TypeVar("T")

MEMINFO = Path("/proc/meminfo")
SIGNS = ("can't allocate memory", "out of memory", "alloc_failed")  # of a RuntimeError of torch that is about memory


def free_bytes(device: str) -> int | None:
    """Return the free bytes of a torch device by its type; None where it does not tell."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return _free_ram() if device == "cpu" else None


def _free_ram() -> int | None:
    try:
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # no Linux
        return None


def within_memory(compute: Callable[[], T]) -> T:
    """Return what ``compute`` returns. When memory runs out, what it held and what torch kept in reserve is let go.

    Raises:
        OracleMemoryError: there was not enough memory; says what was asked for.
    """
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    # Here and not in the handler: the error holds the frames of the computation, and they its tensors.
    torch = sys.modules.get("torch")  # an oracle without a model does without it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OracleMemoryError(f"a tile must fit into the memory of the oracle's device, but {reason}")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device, or the machine, had no memory left."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)
