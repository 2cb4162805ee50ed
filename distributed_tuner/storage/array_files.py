"""numpy's files, read without pickle and into no more memory than they are long: somebody else may have made them."""

import io
import math
import tokenize
import zipfile
from pathlib import Path
from typing import Any

import numpy.typing as npt
from numpy.lib import format as npy

from distributed_tuner.errors import StateError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_ODD = (LookupError, TypeError, EOFError, OSError, SyntaxError, RuntimeError, MemoryError, ArithmeticError)
"""Exceptions of numpy and zipfile for invalid files, in addition to ValueError and the two below."""


def read_array(path: Path) -> npt.NDArray[Any]:
    """Return the array of an ``.npy`` file.

    Raises:
        StateError: it is not whole, holds objects, or announces more than it holds.
    """
    try:
        return array_in(path.read_bytes())
    except ValueError as error:
        raise _spoiled(path, error) from None


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of an ``.npz`` file by name.

    Raises:
        StateError: as `read_array`.
    """
    try:
        return arrays_in(path.read_bytes())
    except ValueError as error:
        raise _spoiled(path, error) from None


def array_in(data: bytes) -> npt.NDArray[Any]:
    """Return the array that the bytes of an ``.npy`` file hold; raise ValueError where they are none."""
    try:
        file = io.BytesIO(data)
        shape, _, dtype = _HEADERS[npy.read_magic(file)](file)
        told, held = math.prod(shape) * max(1, dtype.itemsize), len(data) - file.tell()
        if not dtype.hasobject and told > held:
            raise ValueError(f"an array announces {told} bytes, but there are {held}")
        array: npt.NDArray[Any] = npy.read_array(io.BytesIO(data), allow_pickle=False)
        return array
    except (*_ODD, tokenize.TokenError) as error:
        raise ValueError(f"no array: {error!r}") from None


def arrays_in(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays by name that the bytes of an ``.npz`` file hold; raise ValueError where they are none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            entries = file.infolist()
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("it unpacks to more than it holds; a saved zip is not compressed")
            return {entry.filename.removesuffix(".npy"): array_in(file.read(entry)) for entry in entries}
    except (*_ODD, zipfile.BadZipFile) as error:
        raise ValueError(f"no zip of arrays: {error!r}") from None


def _spoiled(path: Path, error: ValueError) -> StateError:
    return StateError(f"{path} must hold arrays as a run has written them, but does not ({error}); start a new run")
