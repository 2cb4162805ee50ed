"""Trajectories on a fixed quadratic: against stored ones, and ZOT against its formulas written out once more."""

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.optimizers import build
from distributed_tuner.seeds import standard_normal

FOLDER = Path(__file__).parent / "golden"


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("make_golden", FOLDER / "make_golden.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load_script()
ZOT_CASES = sorted(name for name, config in golden.CASES.items() if isinstance(config, ZotConfig))


@pytest.mark.parametrize("name", sorted(golden.CASES))
def test_trajectories_have_not_moved(name):
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    fresh = golden.trajectory(golden.CASES[name])
    assert len(stored) == len(fresh) == golden.STEPS
    for before, now in zip(stored, fresh, strict=True):
        np.testing.assert_allclose(now["losses"], before["losses"], rtol=1e-4)
        np.testing.assert_allclose(now["recommended"], before["recommended"], rtol=1e-4, atol=1e-5)


def restated(config: ZotConfig, steps: int) -> list[np.ndarray]:
    """Algorithm 3 in float64 and in one piece, from its description alone."""
    d, n = golden.DIM, config.points
    x, m, out = np.zeros(d), np.zeros(d), []
    for t in range(1, steps + 1):
        g = np.zeros(d)
        for i in range(n):
            z = standard_normal((*golden.KEY, t - 1, i), d).astype(float)
            f_plus = np.sum(golden.SCALES * (x + config.rho * z - 1) ** 2)
            f_minus = np.sum(golden.SCALES * (x - config.rho * z - 1) ** 2)
            g += (f_plus - f_minus) / (2 * config.rho) * z / n
        if config.clip:
            g *= min(1.0, config.clip / math.sqrt(float(g @ g)))
        m = config.momentum * m + (1 - config.momentum) * g
        m_hat = m / (1 - config.momentum**t) if config.bias_correction else m
        gamma = config.learning_rate
        if config.schedule == "cosine":
            low = config.floor * gamma
            gamma = low + (gamma - low) * (1 + math.cos(math.pi * (t - 1) / steps)) / 2
        x = x - gamma * m_hat
        out.append(x)
    return out


@pytest.mark.parametrize("name", ZOT_CASES)
def test_zot_follows_its_formulas(name):
    config = golden.CASES[name]
    expected = restated(config, golden.STEPS)
    for row, x in zip(golden.trajectory(config), expected, strict=True):
        np.testing.assert_allclose(row["recommended"], x, rtol=2e-3, atol=2e-4)


def test_the_cases_cover_clipping_both_ways():
    clipped = {}
    for name in ZOT_CASES:
        optimizer = build(golden.CASES[name], dim=golden.DIM, key=golden.KEY, steps=golden.STEPS)
        flags = []
        for _ in range(golden.STEPS):
            optimizer.tell([golden.quadratic(golden.coordinates(candidate)) for candidate in optimizer.ask()])
            flags.append(optimizer.metrics()["clipped"])
        clipped[name] = sum(flags)
    assert clipped["zot_n1"] == clipped["zo_sgd"] == 0
    assert clipped["zot_n1_clipped"] > 0 and clipped["zot_n3"] > 0
