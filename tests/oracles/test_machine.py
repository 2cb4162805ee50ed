"""Facts of a machine without torch: equal to torch's, and asked of torch if they are not certain."""

from pathlib import Path

import pytest

from distributed_tuner.oracles.local import loading, machine, speed
from distributed_tuner.oracles.local.machine import dtype_here, is_plain_cpu, processor_key
from distributed_tuner.oracles.local.speed import product_rate


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path))


def test_the_dtype_is_asked_of_torch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = str(loading.resolve_dtype("auto", "cpu")).removeprefix("torch.")
    assert dtype_here("cpu", "auto") == expected
    if processor_key() is not None:
        monkeypatch.setattr(loading, "resolve_dtype", None)
    assert dtype_here("cpu", "auto") == expected
    assert dtype_here("cpu", "float16") == "float16"


def test_another_processor_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", facts)
    keys = []
    for flags in ("fpu sse", "fpu sse avx512_bf16"):
        facts.write_text(f"processor : 0\nmodel name : some\nflags : {flags}\n\nprocessor : 1\n")
        processor_key.cache_clear()
        keys.append(processor_key())
    facts.write_text("processor : 0\n")
    processor_key.cache_clear()
    assert processor_key() is None
    processor_key.cache_clear()
    assert None not in keys and keys[0] != keys[1]


@pytest.mark.parametrize(
    ("build", "driver", "plain"),
    [
        ("2.13.0+cpu", True, True),
        ("2.13.0+cu130", True, False),
        ("2.13.0+cu130", False, True),
        ("2.13.0", False, True),
        ("2.13.0+rocm7", False, False),
    ],
)
def test_a_gpu_is_ruled_out_by_torch_s_build_or_a_missing_driver(
    build: str, driver: bool, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        if not driver:
            raise OSError(name)

    monkeypatch.setattr(machine, "version", lambda name: build)
    monkeypatch.setattr(machine.ctypes, "CDLL", load)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    machine._no_gpu.cache_clear()
    try:
        assert is_plain_cpu("auto") is plain
        assert is_plain_cpu("cpu") and not is_plain_cpu("cuda") and not is_plain_cpu("mps")
    finally:
        machine._no_gpu.cache_clear()


def test_the_rate_is_torch_s_own_or_numpy_s_here_and_now_times_what_was_measured_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "processor_key", lambda: ["some"])
    monkeypatch.setattr(speed, "processor_key", lambda: ["some"])
    monkeypatch.setattr(speed, "matmul_rate", lambda device, dtype, threads: 100.0 * threads)
    monkeypatch.setattr(speed, "_times_numpy", lambda dtype: 0.5)
    monkeypatch.setattr(speed, "numpy_rate", lambda threads: 300.0 * threads)
    assert product_rate("cpu", "float32", 2) == 200.0
    assert product_rate("cpu", "float32", 2) == 300.0
    assert product_rate("cpu", "bfloat16", 1) == 100.0
    monkeypatch.setattr(speed, "processor_key", lambda: None)
    assert product_rate("cpu", "float32", 2) == 200.0


def test_products_are_measured() -> None:
    assert speed.numpy_rate(1) > 0
