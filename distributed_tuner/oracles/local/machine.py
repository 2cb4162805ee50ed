"""This machine as torch sees it, without torch where that is known: its device, and what it computes in fast.

Importing torch takes seconds. A processor's abilities do not change, and where there is no driver of an NVIDIA GPU
torch finds none. Whatever is less certain is asked of torch.
"""

import ctypes
import functools
import hashlib
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed_tuner.oracles.local.machine_cache import keep, recall

CPUINFO = Path("/proc/cpuinfo")
DRIVER = "libcuda.so.1"  # without it torch's CUDA finds no GPU
TRAITS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")


def dtype_here(device: str, dtype: str) -> str:
    """Return the name of the dtype that the settings of an oracle mean on this machine.

    Raises:
        ModelError: the device is not there, or there is no such dtype.
    """
    key = None if dtype != "auto" or not is_plain_cpu(device) else processor_key()
    if key is not None and (known := recall("dtype", key)) is not None:
        return str(known)
    if dtype != "auto" and is_plain_cpu(device):
        return dtype
    from distributed_tuner.oracles.local.loading import resolve_device, resolve_dtype

    found = str(resolve_dtype(dtype, resolve_device(device))).removeprefix("torch.")
    if key is not None:
        keep("dtype", key, found)
    return found


def is_plain_cpu(device: str) -> bool:
    """Tell whether a setting means the CPU for certain: by name, or since torch can find nothing else here."""
    return device == "cpu" or (device == "auto" and _no_gpu())


@functools.cache
def _no_gpu() -> bool:
    build = version("torch").partition("+")[2]
    if build == "cpu":
        return True
    if sys.platform != "linux" or not (build == "" or build.startswith("cu")):
        return False
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return True
    return False


@functools.cache
def processor_key() -> Any:
    """Return an identifier of the CPU's features and of torch's and numpy's use of them; None if unknown."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        return None
    traits = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if not traits.get("flags"):
        return None
    digest = hashlib.sha256(repr([traits.get(name) for name in TRAITS]).encode()).hexdigest()
    return [platform.machine(), digest, version("torch"), version("numpy")]
