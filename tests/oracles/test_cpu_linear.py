"""Methods of products on a CPU: all compute the same function; a measurement chooses one for each machine."""

from pathlib import Path

import pytest
import torch

from distributed_tuner.oracles.local import cpu_linear
from distributed_tuner.oracles.local.cpu_linear import LINEARS, Linear, fastest, gated, packing_works, product

WIDE = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(256, 256))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("linear", LINEARS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_computes_the_same(linear: Linear, bias: bool, dtype: torch.dtype) -> None:
    if not packing_works(dtype):
        pytest.skip("packed products are not there")
    torch.manual_seed(0)
    x, gate, up = (torch.randn(size).to(dtype) for size in ((5, 40), (24, 40), (24, 40)))
    biases = [torch.randn(24).to(dtype) if bias else None for _ in range(2)]
    layers = [product(linear, weight, b) for weight, b in zip((gate, up), biases, strict=True)]
    linears = [
        torch.nn.functional.linear(x.float(), w.float(), None if b is None else b.float())
        for w, b in zip((gate, up), biases, strict=True)
    ]
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    with torch.inference_mode():
        got = gated(linear, *layers, x, x.new_empty((5, 24)), x.new_empty((5, 24)))
        residual = torch.ones(5, 24, dtype=dtype)
        layers[1].add_to(residual, x)
    wanted = torch.nn.functional.silu(linears[0]) * linears[1]
    torch.testing.assert_close(got.float(), wanted, atol=tolerance * float(wanted.abs().max()), rtol=0)
    torch.testing.assert_close(residual.float(), 1 + linears[1], atol=tolerance * float(linears[1].abs().max()), rtol=0)


def test_a_machine_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def measure(inner: int, hidden: int, dtype: torch.dtype) -> Linear:
        measured.append((inner, hidden, dtype))
        return "packed"

    monkeypatch.setattr(cpu_linear, "_measured", measure)
    monkeypatch.setattr(cpu_linear, "processor_key", lambda: ["this one"])
    assert [fastest(WIDE), fastest(WIDE)] == ["packed", "packed"]
    assert measured == [(256, 256, torch.float32)]
    assert fastest(WIDE.bfloat16()) == "packed"
    assert measured[1:] == [(256, 256, torch.bfloat16)]
    WIDE.float()


def test_without_a_cache_every_run_measures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path / "file" / "folder"))
    monkeypatch.setattr(cpu_linear, "_measured", lambda *shape: "packed")
    assert fastest(WIDE) == "packed"
    assert "cannot be kept" in caplog.text


def test_an_unknown_processor_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = iter(["packed", "plain"])
    monkeypatch.setattr(cpu_linear, "_measured", lambda *shape: next(ways))
    monkeypatch.setattr(cpu_linear, "processor_key", lambda: None)
    assert [fastest(WIDE), fastest(WIDE)] == ["packed", "plain"]


def test_what_is_measured_is_a_way_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_linear, "processor_key", lambda: None)
    monkeypatch.setattr(cpu_linear, "packing_works", lambda dtype: False)
    assert fastest(WIDE) == "plain"
    monkeypatch.setattr(cpu_linear, "packing_works", packing_works)
    assert fastest(WIDE) in LINEARS


def test_small_weights_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_linear, "_measured", lambda *shape: pytest.fail("measured"))
    assert fastest(WIDE[0]) == fastest(torch.nn.LayerNorm(3)) == "plain"


@pytest.mark.model
def test_an_actor_computes_as_another_one_chose(tmp_path: Path) -> None:
    if not packing_works(torch.float32):
        pytest.skip("packed products are not there")
    from dataclasses import replace

    from tiny_models import save_tiny

    from actors.pool.worker import OracleWorker
    from distributed_tuner import oracles
    from distributed_tuner.config.oracle import TransformersOracleConfig

    model = str(save_tiny("llama", tmp_path))
    config = TransformersOracleConfig(kind="transformers", model=model, dtype="float32", threads=1, linear="plain")
    host = OracleWorker.__new__(OracleWorker)  # without the process that Ray makes it in
    host._config, host._oracle = config, oracles.build(config)
    first = host._oracle
    host.compute_as(first.info)
    assert host._oracle is first, "nothing is loaded anew where both compute alike"
    host.compute_as(replace(first.info, extra={"linear": "packed"}))
    assert host.info().extra["linear"] == "packed" and host._oracle is not first
