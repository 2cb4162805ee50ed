"""Trained gradient estimators in the tuner's optimizers: momentum as a special case, dense algebra, torch's twin."""

from typing import Any

import numpy as np
import pytest

from distributed_tuner.config.estimator import (
    TrainableDiagonalConfig,
    TrainableFullConfig,
    TrainableRankOneConfig,
    TrainedEstimatorConfig,
)
from distributed_tuner.config.first_order import TrainableConfig
from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import Optimizer, TrainableOptimizer, build
from distributed_tuner.optimizers.directions import FULL_LIMIT, build_direction
from distributed_tuner.values import Point

DIM, STEPS, KEY = 7, 40, (1, "t", 0)
KINDS: dict[str, Any] = {
    "diagonal": TrainableDiagonalConfig,
    "rank_one": TrainableRankOneConfig,
    "full": TrainableFullConfig,
}
START = np.linspace(-1, 1, DIM, dtype=np.float32)


def x_of(optimizer: Optimizer) -> np.ndarray:
    recommended = optimizer.recommend()
    assert isinstance(recommended, Point)
    return recommended.vector


@pytest.mark.parametrize("variant", sorted(KINDS))
@pytest.mark.parametrize("beta", [0.04, 0.1, 0.25])
def test_with_a_slope_that_stays_zero_zot_is_zot_to_the_last_bit(variant: str, beta: float, run: Any) -> None:
    shared: dict[str, Any] = {"rho": 0.01, "learning_rate": 0.05, "clip": 5.0}
    trained = ZotConfig(estimator=KINDS[variant](alpha=0.0, beta=beta), **shared)
    plain = ZotConfig(momentum=1 - beta, bias_correction=False, **shared)
    one, two = (build(config, dim=40, key=KEY, steps=STEPS) for config in (trained, plain))
    assert all(np.array_equal(a, b) for a, b in zip(run(one, STEPS), run(two, STEPS), strict=True))
    assert np.array_equal(x_of(one), x_of(two))


@pytest.mark.parametrize("decay_steps", [None, 10.0])
@pytest.mark.parametrize("variant", sorted(KINDS))
def test_estimates_are_those_of_dense_algebra(variant: str, decay_steps: float | None) -> None:
    """The updates written out in float64 with A as a matrix, from their description alone."""
    direction = build_direction(KINDS[variant](alpha=0.4, beta=0.2, decay_steps=decay_steps), DIM, KEY)
    draw = np.random.default_rng(2)
    A, b = np.zeros((DIM, DIM)), np.zeros(DIM)
    u, v = np.zeros(DIM), np.asarray(direction.save().get("v", np.zeros(DIM)), dtype=float)
    for t in range(30):
        w, g = draw.standard_normal(DIM), 3 * draw.standard_normal(DIM)
        found = direction.learn(w.astype(np.float32), g.astype(np.float32))
        decay = 1.0 if decay_steps is None else 1 / (1 + t / decay_steps)
        alpha, beta = 0.4 * decay, 0.2 * decay
        r = A @ w + b - g
        if variant == "full":
            A = A - alpha / (1 + w @ w) * np.outer(r, w)
        elif variant == "diagonal":
            A = A - np.diag(alpha / (1 + w**2) * r * w)
        else:
            bound = 1 + (v @ w) ** 2 + (u @ u) * (w @ w) + np.sqrt((r @ r) * (w @ w))
            u, v = u - alpha / bound * (v @ w) * r, v - alpha / bound * (u @ r) * w
            A = np.outer(u, v)
        b = b - beta * r
        np.testing.assert_allclose(found, A @ w + b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("variant", sorted(KINDS))
def test_the_gradient_stages_optimizer_is_the_one_for_torchs_loops(variant: str) -> None:
    import torch

    config = TrainableConfig(
        learning_rate=0.1, clip=0, schedule="constant", weight_decay=0.1, estimator=KINDS[variant](alpha=0.3, beta=0.2)
    )
    mine = build(config, dim=DIM, key=KEY, steps=STEPS, start=START)
    x = torch.nn.Parameter(torch.from_numpy(START.copy()))
    theirs = TrainableOptimizer([x], lr=0.1, variant=variant, alpha=0.3, beta=0.2, weight_decay=0.1)
    scales = np.linspace(0.5, 3, DIM, dtype=np.float32)
    for step in range(STEPS):
        (asked,) = mine.ask()
        assert isinstance(asked, Point)
        mine.tell([1.0], (scales * (asked.vector - 1))[None])
        x.grad = torch.from_numpy(scales * (x.detach().numpy() - 1))
        theirs.step()
        if step == 0 and variant == "rank_one":  # v is random in both, by keys of their own
            for name, value in (("slope_u", "u"), ("slope_v", "v")):
                theirs.state[x][name].copy_(torch.from_numpy(mine._save()[value]))  # type: ignore[attr-defined]
            x.data.copy_(torch.tensor(x_of(mine)))
        np.testing.assert_allclose(x_of(mine), x.detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("variant", sorted(KINDS))
def test_a_slope_that_learns_finds_a_noisy_linear_gradient(variant: str) -> None:
    """Of gradients 2 w + noise, the estimate is nearer to 2 w than what was seen, and than a mean of it."""
    draw = np.random.default_rng(4)
    trained = build_direction(KINDS[variant](alpha=0.3, beta=0.05, decay_steps=100.0), DIM, KEY)
    mean = build_direction(TrainableDiagonalConfig(alpha=0.0, beta=0.05, decay_steps=100.0), DIM, KEY)
    errors: dict[str, list[float]] = {"trained": [], "seen": [], "mean": []}
    w = draw.standard_normal(DIM).astype(np.float32)
    for _ in range(3000):
        w = 0.9 * w + 0.45 * draw.standard_normal(DIM).astype(np.float32)  # around zero, where a mean is no help
        if variant == "rank_one":
            w = np.float32(w @ np.ones(DIM) / DIM) * np.ones(DIM, dtype=np.float32)  # along a line, as its slope is
        g = 2 * w + draw.standard_normal(DIM).astype(np.float32)
        for name, value in (("trained", trained.learn(w, g)), ("seen", g), ("mean", mean.learn(w, g))):
            errors[name].append(float(np.sum((value - 2 * w) ** 2)))
    late = {name: np.mean(values[-500:]) for name, values in errors.items()}
    assert late["trained"] < 0.5 * min(late["seen"], late["mean"])


def test_a_full_slope_of_a_large_prompt_says_what_it_would_take() -> None:
    with pytest.raises(ConfigError, match=r"4096 at most, but this prompt has 28800, which would take 3\.1 GiB; use"):
        build(TrainableConfig(estimator=TrainableFullConfig()), dim=28800, key=KEY, steps=1)
    with pytest.raises(ConfigError, match="trainable_diagonal"):
        build(ZotConfig(estimator=TrainableFullConfig()), dim=FULL_LIMIT + 1, key=KEY, steps=1)


def test_every_kind_builds_what_its_name_says() -> None:
    from pydantic import TypeAdapter

    adapter: TypeAdapter[TrainedEstimatorConfig] = TypeAdapter(TrainedEstimatorConfig)
    for kind, state in (("diagonal", {"a"}), ("rank_one", {"u", "v"}), ("full", {"slope"})):
        direction = build_direction(adapter.validate_python({"kind": f"trainable_{kind}"}), DIM, KEY)
        assert direction.save().keys() == state | {"b", "updates"}
