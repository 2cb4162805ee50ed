"""Saved states as files that hold data and run nothing: a zip of a JSON tree and numpy arrays, read without pickle.

What goes in: None, numbers, strings, bytes, lists, tuples, dicts with any of these as keys, numpy arrays and scalars
that hold no objects, and frozen data of the classes that writer and reader both name. It comes out with the same bits
and types. A class that was renamed lists its FORMER_NAMES; one whose fields were has ``present_fields``, which turns
those of a state of any age into today's. Arrays and named data that appear in several places are one object again;
lists and dicts are copies.
"""

import dataclasses
import functools
import io
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distributed_tuner.errors import StateError
from distributed_tuner.storage.array_files import arrays_in
from distributed_tuner.storage.files import write_bytes

VERSION = 1
_TREE = "tree"
"""The array that holds the JSON, as UTF-8."""


def write_state(path: Path, value: Any, classes: Sequence[type] = ()) -> None:
    """Write ``value``. ``classes``: the dataclasses that may be in it.

    Raises:
        TypeError: something else is in it.
    """
    write_bytes(path, encode(value, classes))


def read_state(path: Path, classes: Sequence[type] = ()) -> Any:
    """Return what ``write_state`` wrote. Nothing in the file can name code: other classes are refused.

    Raises:
        OSError: it is not there.
        StateError: it is not whole, or none of ours.
    """
    return decode(path.read_bytes(), str(path), classes)


def encode(value: Any, classes: Sequence[type] = ()) -> bytes:
    """Return ``value`` as the bytes of a file; raise TypeError as ``write_state`` does."""
    writer = _Writer(classes)
    tree = {"version": VERSION, "value": writer.node(value), "made": writer.made}
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    file = io.BytesIO()
    raw = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    named: dict[str, Any] = {str(index): array for index, array in enumerate(writer.arrays)}
    np.savez(file, allow_pickle=False, **{_TREE: raw}, **named)
    return file.getvalue()


def decode(data: bytes, name: str, classes: Sequence[type] = ()) -> Any:
    """Return the value of ``encode``. ``name``: what a person calls the file. Raises StateError as ``read_state``."""
    try:
        arrays = arrays_in(data)
        tree = json.loads(arrays.pop(_TREE).tobytes().decode("utf-8", "surrogatepass"))
        if tree["version"] != VERSION:
            raise ValueError(f"version {tree['version']}, not {VERSION}")
        return _Reader(arrays, classes, tree["made"]).node(tree["value"])
    except (ValueError, TypeError, LookupError, RecursionError, MemoryError, struct.error) as error:
        raise StateError(
            f"a saved state must be a whole file that this version wrote, but {name} is not ({error or repr(error)});"
            " remove it to continue from the state before it, or start a new run"
        ) from None


class _Writer:
    """Turns values into JSON nodes: what JSON has as it is, all else as an object with one tag."""

    def __init__(self, classes: Sequence[type]) -> None:
        self._classes = set(classes)
        self._array_of: dict[int, int] = {}
        self._made_of: dict[int, int] = {}
        self._alive: list[Any] = []  # ids stay theirs
        self.arrays: list[npt.NDArray[Any]] = []
        self.made: list[Any] = []
        """Data of named classes, whatever it is made of before itself."""

    def node(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if np.isfinite(value) else {"float": struct.pack("<d", value).hex()}
        if kind is list:
            return [self.node(item) for item in value]
        if kind is tuple:
            return {"tuple": [self.node(item) for item in value]}
        if kind is dict:
            return {"dict": [[self.node(key), self.node(item)] for key, item in value.items()]}
        if kind is bytes:
            return {"bytes": self._array(np.frombuffer(value, dtype=np.uint8))}
        if kind is np.ndarray:
            return {"array": self._shared(value)}
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value))}
        if kind in self._classes:
            return {"made": self._data(value)}
        raise TypeError(f"a state holds plain data, arrays and the classes that were named, not {kind!r}")

    def _array(self, array: npt.NDArray[Any]) -> int:
        if array.dtype.hasobject:
            raise TypeError("a state holds arrays of numbers, not of objects")
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _shared(self, array: npt.NDArray[Any]) -> int:
        if id(array) not in self._array_of:
            self._array_of[id(array)] = self._array(array)
        return self._array_of[id(array)]

    def _data(self, value: Any) -> int:
        if id(value) not in self._made_of:
            fields = {one.name: self.node(getattr(value, one.name)) for one in dataclasses.fields(value)}
            self._alive.append(value)
            self.made.append([type(value).__name__, fields])
            self._made_of[id(value)] = len(self.made) - 1
        return self._made_of[id(value)]


class _Reader:
    """Turns nodes into values. Any error of shape or name is a LookupError, TypeError or ValueError."""

    def __init__(self, arrays: dict[str, npt.NDArray[Any]], classes: Sequence[type], made: list[Any]) -> None:
        self._arrays = arrays
        self._bytes = functools.cache(lambda place: arrays[place].tobytes())  # one object, however often it is named
        self._classes = {name: one for one in classes for name in (one.__name__, *getattr(one, "FORMER_NAMES", ()))}
        self._made: list[Any] = []
        for name, fields in made:
            if name not in self._classes:
                raise LookupError(f"it names {name!r}, which no state may hold")
            made_of = {key: self.node(node) for key, node in fields.items()}
            kind = self._classes[name]
            self._made.append(kind(**getattr(kind, "present_fields", dict)(made_of)))

    def node(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self.node(item) for item in node]
        if not isinstance(node, dict):
            return node
        ((tag, held),) = node.items()
        match tag:
            case "float":
                return struct.unpack("<d", bytes.fromhex(held))[0]
            case "tuple":
                return tuple(self.node(item) for item in held)
            case "dict":
                return {self.node(key): self.node(item) for key, item in held}
            case "bytes":
                return self._bytes(str(held))
            case "array":
                return self._arrays[str(held)]
            case "scalar":
                return self._arrays[str(held)][()]
            case "made":
                return self._made[held]
        raise LookupError(f"it holds {tag!r}, which this version does not know")
