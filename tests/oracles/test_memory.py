"""Free memory, and what running out of it is called, whatever torch or numpy call it."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from distributed_tuner.errors import OracleMemoryError
from distributed_tuner.oracles.local import device_memory
from distributed_tuner.oracles.local.device_memory import free_bytes, within_memory

HUGE = 2**60


def too_much_torch() -> object:
    import torch

    return torch.empty(HUGE, dtype=torch.uint8)


def too_much_numpy() -> object:
    return np.empty(HUGE, dtype=np.uint8)


def cuda_says_no() -> object:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("compute", [too_much_torch, too_much_numpy, cuda_says_no])
def test_running_out_of_memory_has_one_name_and_says_what_was_asked_for(compute: object) -> None:
    with pytest.raises(OracleMemoryError, match=r"must fit into the memory of the oracle's device, but .*allocate"):
        within_memory(compute)  # type: ignore[arg-type]


def test_other_errors_and_answers_pass() -> None:
    def broken() -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1") as caught:
        within_memory(broken)
    assert type(caught.value) is RuntimeError
    assert within_memory(lambda: 3) == 3


def test_what_the_computation_held_is_let_go() -> None:
    class Tensors:
        pass

    held: list[weakref.ref[Tensors]] = []

    def compute() -> None:
        tensors = Tensors()
        held.append(weakref.ref(tensors))
        raise MemoryError

    with pytest.raises(OracleMemoryError, match="MemoryError"):
        within_memory(compute)
    gc.collect()
    assert held[0]() is None


def test_a_cpu_tells_its_free_memory_and_an_unknown_device_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = free_bytes("cpu")
    assert free is not None
    assert 2**20 < free < 2**50
    assert free_bytes("mps") is None
    monkeypatch.setattr(device_memory, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1234 kB\n")
    assert free_bytes("cpu") == 1234 * 1024
    (tmp_path / "meminfo").unlink()
    assert free_bytes("cpu") is None
