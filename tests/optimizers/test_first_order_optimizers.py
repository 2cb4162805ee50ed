"""AdamW and SGD beyond the conformance suite: torch's path through ask and tell, clipping, failures, moving."""

from typing import Any

import numpy as np
import pytest

from distributed_tuner.config.first_order import AdamWConfig, FirstOrderConfig, SgdConfig
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.values import Array, Point

DIM, STEPS, KEY = 5, 12, (1, "t", 0)
START = np.linspace(-1, 1, DIM, dtype=np.float32)


def make(config: FirstOrderConfig) -> Optimizer:
    return build(config, dim=DIM, key=KEY, steps=STEPS, start=START)


def x_of(optimizer: Optimizer) -> Array:
    recommended = optimizer.recommend()
    assert isinstance(recommended, Point)
    return recommended.vector


def slope(x: Array) -> Array:
    return np.asarray(3 * (x - 2), dtype=np.float32)


def step(optimizer: Optimizer, loss: float = 1.0, gradient: Array | None = None) -> None:
    (asked,) = optimizer.ask()
    assert isinstance(asked, Point)
    np.testing.assert_array_equal(asked.vector, x_of(optimizer))
    optimizer.tell([loss], (slope(asked.vector) if gradient is None else gradient)[None])


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_clipping_and_schedule_follow_torchs(kind):
    import torch

    x = torch.nn.Parameter(torch.from_numpy(START.copy()))
    theirs: Any
    if kind == "adamw":
        mine = make(AdamWConfig(learning_rate=0.2, clip=2.0, weight_decay=0.1))
        theirs = torch.optim.AdamW([x], lr=0.2, weight_decay=0.1)
    else:
        mine = make(SgdConfig(learning_rate=0.2, clip=2.0))
        theirs = torch.optim.SGD([x], lr=0.2, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(theirs, lambda t: max(0.0, 1 - t / STEPS))
    for _ in range(STEPS):
        x.grad = torch.from_numpy(slope(x.detach().numpy()))
        torch.nn.utils.clip_grad_norm_([x], 2.0)
        step(mine)
        assert mine.metrics()["learning_rate"] == pytest.approx(schedule.get_last_lr()[0])
        theirs.step()
        schedule.step()
        np.testing.assert_allclose(x_of(mine), x.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [AdamWConfig(), SgdConfig()])
@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_failed_step_moves_the_schedule_only(config, broken):
    optimizer, twin = make(config), make(config)
    step(optimizer)
    step(twin)
    before = x_of(optimizer).copy()
    nan = np.array([0, 0, np.nan, 0, 0], dtype=np.float32)
    step(optimizer, np.inf if broken == "loss" else 1.0, nan if broken == "gradient" else None)
    np.testing.assert_array_equal(x_of(optimizer), before)
    assert (optimizer.steps_told, optimizer.metrics()["failed_queries"]) == (2, 1.0)
    step(optimizer)
    assert optimizer.metrics()["learning_rate"] == pytest.approx(config.learning_rate * (1 - 2 / STEPS))
    step(twin)
    # the moments are those of two updates in both: the same way, a shorter step
    moved, further = x_of(optimizer) - before, x_of(twin) - before
    np.testing.assert_allclose(moved, further * (1 - 2 / STEPS) / (1 - 1 / STEPS), rtol=1e-4)


def test_the_schedules_and_their_floor():
    rates = {}
    for schedule in ("linear", "cosine", "constant"):
        optimizer = make(SgdConfig(learning_rate=0.5, schedule=schedule, floor=0.2))
        rates[schedule] = []
        for _ in range(STEPS + 2):
            step(optimizer)
            rates[schedule].append(optimizer.metrics()["learning_rate"])
    assert rates["constant"] == [0.5] * (STEPS + 2)
    for schedule in ("linear", "cosine"):
        assert rates[schedule][0] == 0.5
        assert rates[schedule] == sorted(rates[schedule], reverse=True)
        assert rates[schedule][-2:] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("config", [AdamWConfig(clip=0), SgdConfig(clip=0)])
def test_moments_move_along(config):
    """Moved, the first gradient of zero still lets the old moments carry x on."""
    optimizer, fresh = make(config), make(config)
    for _ in range(3):
        step(optimizer)
    there = np.full(DIM, 4, dtype=np.float32)
    for one in (optimizer, fresh):
        one.relocate(there)
        step(one, gradient=np.zeros(DIM, dtype=np.float32))
    np.testing.assert_array_equal(x_of(fresh), there)
    assert (x_of(optimizer) > there).all()  # uphill there was downhill where the moments come from


def test_one_query_a_step_on_the_batch_that_is_asked_for():
    assert make(AdamWConfig()).queries_per_step == 1
    assert make(AdamWConfig()).batch_size is None
    assert make(SgdConfig(batch_size=16)).batch_size == 16
