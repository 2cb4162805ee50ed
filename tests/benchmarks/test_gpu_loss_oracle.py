"""The GPU script in small, on the CPU: both shapes run, agree with the plain way and say what they found."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_loss_oracle import Result, lines, plain_ratio, verdict
from benchmarks.random_models import make_model, shape, weights_of_trunk

ROOT = Path(__file__).resolve().parents[2]
RESULT = Result("llama-7b", "bfloat16", "a card", 100, 0.01, 1e5, 300.0, 500.0, 0.07, 1e-2, 80.0, 40.0)


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu_loss_oracle", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.model
def test_both_shapes_run_in_small(tmp_path: Path) -> None:
    found = tmp_path / "gpu.json"
    answer = script("--small", "--device", "cpu", "--dtype", "float32", "--json", str(found))
    assert answer.returncode == 0, answer.stderr
    assert "llama-7b (tiny), float32, cpu: 40 queries" in answer.stdout
    assert "roberta-large (tiny), float32, cpu: 40 queries" in answer.stdout
    assert answer.stdout.count("no target for tiny shapes") == 2
    results = json.loads(found.read_text(encoding="utf-8"))
    assert [result["shape"] for result in results] == ["llama-7b", "roberta-large"]
    assert all(0 <= result["difference"] < 1e-5 for result in results)


def test_an_unknown_shape_is_refused() -> None:
    answer = script("--small", "--device", "cpu", "--shape", "gpt-5")
    assert answer.returncode == 2 and "roberta-large" in answer.stderr


def test_the_verdicts() -> None:
    assert verdict(RESULT, False) == "met: useful rate >= 50% of the matrix product's"
    assert verdict(replace(RESULT, useful_tflops=249.0), False).startswith("MISSED")
    roberta = replace(RESULT, shape="roberta-large", budget=59.0)
    assert verdict(roberta, False) == "met: 8,000 queries in < 60 s: 59.0 s, extrapolated from 100"
    assert verdict(replace(roberta, budget=61.0, queries=8000), False).startswith("MISSED: 8,000 queries")
    assert verdict(replace(roberta, queries=8000), False).endswith("all asked")


def test_the_ratio_and_the_memory_are_told() -> None:
    assert plain_ratio(RESULT) == pytest.approx(7.0)
    assert "7.0x the time" in "\n".join(lines(RESULT, False))
    assert "40.0 GiB" in "\n".join(lines(RESULT, False))


@pytest.mark.parametrize(("name", "billions"), [("llama-7b", 6.48), ("roberta-large", 0.302)])
def test_the_shapes_are_the_published_ones(name: Any, billions: float) -> None:
    model = make_model(shape(name, small=False), "meta", "bfloat16")
    assert weights_of_trunk(model) / 1e9 == pytest.approx(billions, rel=0.01)
