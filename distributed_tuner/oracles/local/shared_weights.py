"""Weights that were made ready for a CPU, kept as a file, so that all processes of a machine map the same memory.

A file is known by the model's own files (their paths, sizes and times) and by what was made of them. The first
process writes it; a process that cannot write goes on with what it made. What has not been used for longest is removed.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

    Weights: TypeAlias = dict[str, Tensor]

log = logging.getLogger(__name__)

VERSION = "2"  # of what fused_layers.py makes of a layer's weights
LEAST_BYTES = 2**26  # smaller ones are not worth a file
MOST_BYTES = 2**33  # of all files together, and of free disk that one may not take


def fingerprint(files: Iterable[Path], *made: str) -> str:
    """Return the key of what is made of some files."""
    found = [VERSION, *made]
    for file in sorted(files):
        facts = file.stat()
        found.append(f"{file.resolve()} {facts.st_size} {facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:32]


def shared(folder: Path, key: str, make: "Callable[[], Weights]") -> "Weights":
    """Return the weights of a key, mapped from their file in ``folder``, which is written if it is not there.

    They are what ``make`` returns if that is small or the disk takes no file. They must not be written to.
    """
    from filelock import FileLock
    from safetensors import SafetensorError

    path = folder / f"{key}.safetensors"
    try:
        if path.exists():
            os.utime(path)  # used now
            return _mapped(path)
        made = make()
        size = sum(part.nbytes for part in made.values())
        if size < LEAST_BYTES:
            return made
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                _write(path, made, size)
        return _mapped(path) if path.exists() else made
    except (OSError, SafetensorError) as error:
        log.warning("weights are not shared among the processes of this machine (%s)", error)
        return make()


def _mapped(path: Path) -> "Weights":
    from safetensors.torch import load_file

    weights: Weights = load_file(path)
    return weights


def _write(path: Path, made: "Weights", size: int) -> None:
    """Write a file in one piece, where there is room for it and for others."""
    import shutil

    from safetensors.torch import save_file

    free = shutil.disk_usage(path.parent).free
    if size > MOST_BYTES or free - size < MOST_BYTES:
        log.info("weights of %.1f GiB are not shared: %.1f GiB of disk are free", size / 2**30, free / 2**30)
        return
    _make_room(path.parent, MOST_BYTES - size)
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        save_file(made, scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _make_room(folder: Path, most: int) -> None:
    """Remove the files that have not been used for longest; processes that have mapped them keep what they have."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    kept = 0
    for file in files:
        kept += file.stat().st_size
        if kept > most:
            file.unlink(missing_ok=True)
