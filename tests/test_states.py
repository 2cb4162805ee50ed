"""Saved states: every bit comes back, and nothing in a file is ever run."""

import io
import json
import math
import pickle
import random
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from distributed_tuner.errors import StateError
from distributed_tuner.storage.array_files import read_array, read_arrays
from distributed_tuner.storage.serialization import decode, encode, read_state, write_state

BIG = np.zeros(10**6)


@dataclass(frozen=True, eq=False, slots=True)
class Place:
    name: str
    at: Any


@dataclass(frozen=True, slots=True)
class Other:
    name: str


def back(value: Any) -> Any:
    return decode(encode(value, (Place,)), "the state", (Place,))


def identical(left: Any, right: Any) -> bool:
    """Tell whether two values have the same types and bits all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray | np.generic):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and (left == right or left != left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(identical, left, right))
    if isinstance(left, dict):
        return identical(list(left.items()), list(right.items()))
    if isinstance(left, Place):
        return identical((left.name, left.at), (right.name, right.at))
    return bool(left == right)


numbers = arrays.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.uint64, "<U5"]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
leaves = keys | st.floats() | numbers | st.sampled_from([np.float32(0.1), np.int64(-3), np.bool_(True)])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.builds(Place, st.text(), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_every_value_comes_back_with_its_bits_and_types(value: Any) -> None:
    assert identical(back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        2**200,
        -0.0,
        math.nextafter(0.1, 1),
        [float("nan"), float("-inf")],
        {"tuple": [1], "array": 0},
        {1: "a", "1": "b", (1,): "c", None: "d"},
        random.Random(3).getstate(),
        "\ud800 and \udc00",
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12).reshape(3, 4)[:, ::2],
    ],
    ids=repr,
)
def test_what_json_would_lose_is_kept(value: Any) -> None:
    assert identical(back(value), value)


def test_generators_go_on_from_their_states() -> None:
    for bits in (np.random.Philox(5), np.random.MT19937(5), np.random.PCG64(5)):
        bits.random_raw(7)
        other = type(bits)()
        other.state = back(bits.state)
        assert other.random_raw(5).tolist() == bits.random_raw(5).tolist()


def test_columns_stay_columns() -> None:
    """A product's last bits depend on how its factors lie in memory."""
    assert back(np.asfortranarray(np.ones((2, 3)))).flags.f_contiguous


def test_what_is_one_object_is_one_again() -> None:
    array = np.arange(3.0)
    place = Place("a", array)
    first, again, alone, twin = back([place, place, array, Place("a", array)])
    assert first is again
    assert first is not twin
    assert first.at is alone is twin.at


@pytest.mark.parametrize("value", [Other("a"), object(), {1, 2}, Counter("a"), np.array([None]), len, Other])
def test_what_no_state_may_hold_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError, match="a state holds"):
        encode({"deep": [value]}, (Place,))


# ------------------------------------------------------------------------------------------------------- bad files
class Gadget:
    """Runs something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


def gadgets(witness: Path) -> list[bytes]:
    """Return pickles that would make the file ``witness``."""
    import os

    inner = pickle.dumps(Gadget(os.system, f"touch {witness}"))
    return [
        inner,
        pickle.dumps(Gadget(eval, f"open({str(witness)!r}, 'w')")),
        pickle.dumps(Gadget(np.save, str(witness), np.zeros(1))),
        pickle.dumps({"state": {"optimizer": {"strategy": Gadget(os.system, f"touch {witness}")}}}),
        pickle.dumps(Gadget(pickle.loads, inner)),
    ]


@pytest.mark.parametrize("which", range(5))
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, which: int) -> None:
    witness = tmp_path / "witness"
    path = tmp_path / "trial.state"
    path.write_bytes(gadgets(witness)[which])
    with pytest.raises(StateError, match="a saved state must be a whole file") as refused:
        read_state(path, (Place,))
    assert str(path) in str(refused.value)
    assert not any(tmp_path.glob("witness*"))


def test_a_pickle_inside_an_array_is_refused_and_not_run(tmp_path: Path) -> None:
    """An array of objects is a pickle, in a zip or alone."""
    witness, path = tmp_path / "witness", tmp_path / "trial.state"
    import os

    evil = np.array([Gadget(os.system, f"touch {witness}")], dtype=object)
    tree = np.frombuffer(b'{"version":1,"value":{"array":0},"made":[]}', dtype=np.uint8)
    with path.open("wb") as file:
        np.savez(file, tree=tree, **{"0": evil})
    with pytest.raises(StateError, match="allow_pickle"):
        read_state(path)
    with path.open("wb") as file:
        np.save(file, evil, allow_pickle=True)
    with pytest.raises(StateError, match="no zip of arrays"):
        read_state(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ('{"version":1,"value":{"made":0},"made":[["Other",{"name":"a"}]]}', "names 'Other'"),
        ('{"version":1,"value":{"made":0},"made":[["os.system",{"command":"id"}]]}', "names 'os.system'"),
        ('{"version":1,"value":{"made":0},"made":[["Place",{"name":"a"}]]}', "missing"),
        ('{"version":1,"value":{"made":1},"made":[]}', "range"),
        ('{"version":1,"value":{"call":[]},"made":[]}', "'call'"),
        ('{"version":1,"value":{"array":7},"made":[]}', "'7'"),
        ('{"version":2,"value":1,"made":[]}', "version 2, not 1"),
        ('{"value":1}', "version"),
        ("[" * 100000, "recursion"),
        ("{", "Expecting"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, tree: str, why: str) -> None:
    path = tmp_path / "trial.state"
    with path.open("wb") as file:
        np.savez(file, tree=np.frombuffer(tree.encode(), dtype=np.uint8))
    with pytest.raises(StateError, match=why):
        read_state(path, (Place,))


def told(**header: Any) -> bytes:
    """Return an array's file of 64 bytes that tells of something else."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": (8,), "fortran_order": False, "descr": "<f8", **header})
    return file.getvalue() + bytes(64)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (told(shape=(5 * 10**14,)), "announces 4000000000000000 bytes, but there are 64"),
        (told(descr="<U9000000"), "announces 288000000 bytes"),
        (told(shape=(10**12,), descr="<U0"), "announces 1000000000000 bytes"),
        (told(shape=(-8,)), "negative"),
        (told(shape="eight"), "not valid"),
        (told(descr="|O"), "allow_pickle"),
        (told().replace(b"(8,)", b"((((")[:100], "read"),
        (b"\x93NUMPY\x09\x00", "no array"),
        (b"", "EOF"),
    ],
)
def test_an_array_that_tells_of_more_than_it_holds_is_refused_before_it_is_made(
    tmp_path: Path, data: bytes, why: str
) -> None:
    (tmp_path / "prompt.npy").write_bytes(data)
    with pytest.raises(StateError, match=why):
        read_array(tmp_path / "prompt.npy")
    with zipfile.ZipFile(tmp_path / "trial.state", "w") as file:
        file.writestr("tree.npy", data)
    with pytest.raises(StateError, match="a saved state must be a whole file"):
        read_state(tmp_path / "trial.state")


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trial.state"
    with path.open("wb") as file:
        np.savez_compressed(file, tree=np.frombuffer(b'{"version":1,"value":1,"made":[]}', dtype=np.uint8), big=BIG)
    with pytest.raises(StateError, match="unpacks to more than it holds"):
        read_state(path)
    with pytest.raises(StateError, match="unpacks to more than it holds"):
        read_arrays(path)


def test_bytes_that_are_named_often_are_there_once() -> None:
    value = back([b"x" * 1000])
    (place,) = json.loads(np.load(io.BytesIO(encode(value)))["tree"].tobytes())["value"]
    tree = json.dumps({"version": 1, "value": [place] * 3, "made": []}).encode()
    file = io.BytesIO()
    np.savez(file, tree=np.frombuffer(tree, dtype=np.uint8), **{"0": np.frombuffer(value[0], dtype=np.uint8)})
    first, *others = decode(file.getvalue(), "the state")
    assert all(one is first for one in others)


def test_a_torn_or_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trial.state"
    write_state(path, {"x": np.arange(100.0)})
    whole = path.read_bytes()
    for torn in (b"", whole[:-1], whole[: len(whole) // 2], b"PK", whole.replace(np.float64(7).tobytes(), bytes(8))):
        path.write_bytes(torn)
        with pytest.raises(StateError, match="whole file"):
            read_state(path)
    with pytest.raises(FileNotFoundError):
        read_state(tmp_path / "none")
