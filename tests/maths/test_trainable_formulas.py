"""The estimators of the Trainable Optimizer: the gradients of their squared error, what they learn, their stability."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distributed_tuner.maths import trainable, zot
from distributed_tuner.seeds import generator

SIZE = 6
Arrays = list[np.ndarray]


def normal(*shape: int, of: str = "") -> np.ndarray:
    return generator(("trainable", of, *shape)).standard_normal(shape, dtype=np.float32)


def some(variant: str, size: int = SIZE) -> Arrays:
    """Return a state in the middle of learning: the slope's parts, then b."""
    parts = {"full": [(size, size)], "diagonal": [(size,)], "rank_one": [(size,), (size,)]}[variant]
    return [normal(*shape, of=f"slope {i}") for i, shape in enumerate(parts)] + [normal(size, of="b")]


def begun(variant: str, size: int = SIZE) -> Arrays:
    """Return the state before the first step."""
    slope, *rest = [np.zeros_like(part) for part in some(variant, size)]
    if variant == "rank_one":
        rest[0] = normal(size, of="v") / np.float32(size**0.5)
    return [slope, *rest]


def step(variant: str) -> Callable[..., Any]:
    return getattr(trainable, f"{variant}_step")


def estimate(variant: str, state: Arrays, w: np.ndarray) -> np.ndarray:
    return np.asarray(getattr(trainable, f"{variant}_estimate")(*state, w))


def squared_error(variant: str, state: Any, w: Any, g: Any) -> Any:
    """Return ``1/2 ||A w + b - g||^2`` of tensors, with A written out."""
    *slope, b = state
    A = {"full": lambda A: A, "diagonal": lambda a: a.diag(), "rank_one": lambda u, v: u.outer(v)}[variant](*slope)
    return (A @ w + b - g).square().sum() / 2


VARIANTS = pytest.mark.parametrize("variant", ["full", "diagonal", "rank_one"])


# ------------------------------------------------------------------------------------------------------- the formulas
@VARIANTS
def test_a_step_goes_down_the_gradient_of_the_squared_error(variant):
    import torch

    state, w, g = some(variant), normal(SIZE, of="w"), normal(SIZE, of="g")
    tensors = [torch.tensor(part, requires_grad=True) for part in state]
    gradients = torch.autograd.grad(squared_error(variant, tensors, torch.tensor(w), torch.tensor(g)), tensors)
    r = estimate(variant, state, w) - g
    scale = {
        "full": lambda: trainable.full_scale(w),
        "diagonal": lambda: trainable.diagonal_scale(w),
        "rank_one": lambda: trainable.rank_one_scale(state[0], state[1], w, r),
    }[variant]()
    stepped = step(variant)(*state, w, g, 0.3, 0.2)
    rates = [0.3 * scale] * (len(state) - 1) + [0.2]
    for old, new, slope, rate in zip(state, stepped, gradients, rates, strict=True):
        assert new.dtype == np.float32
        np.testing.assert_allclose(new, old - rate * slope.numpy(), rtol=1e-5, atol=1e-6)


@VARIANTS
def test_the_estimate_is_linear_in_w(variant):
    import torch

    state, w = some(variant), normal(SIZE, of="w")
    zero = torch.zeros(SIZE)
    half_square = squared_error(variant, [torch.tensor(part) for part in state], torch.tensor(w), zero)
    assert np.square(estimate(variant, state, w)).sum() / 2 == pytest.approx(float(half_square), rel=1e-5)
    np.testing.assert_allclose(estimate(variant, state, 0 * w), state[-1])


def test_the_rank_one_scale_bounds_the_curvature_of_the_squared_error():
    import torch

    for size_of_w, size_of_g in [(0.1, 1.0), (1.0, 1e4), (30.0, 0.1), (30.0, 1e4)]:
        u, v, b = some("rank_one")
        w, g = size_of_w * normal(SIZE, of="w"), size_of_g * normal(SIZE, of="g")

        def loss(uv: Any, b: Any = b, w: Any = w, g: Any = g) -> Any:
            return squared_error("rank_one", [*uv.chunk(2), torch.tensor(b)], torch.tensor(w), torch.tensor(g))

        curvature = torch.autograd.functional.hessian(loss, torch.tensor(np.concatenate([u, v])))
        r = trainable.rank_one_estimate(u, v, b, w) - g
        norm = float(torch.linalg.matrix_norm(curvature, 2))
        bound = 1 / trainable.rank_one_scale(u, v, w, r)
        assert norm <= bound <= 1 + 3 * norm


def test_rates_decay_from_their_base_or_stay_there():
    assert [trainable.rate(t, 0.5, None) for t in (0, 7)] == [0.5, 0.5]
    assert [trainable.rate(t, 0.5, 10.0) for t in (0, 10, 40)] == [0.5, 0.25, 0.1]


@VARIANTS
def test_without_a_slope_it_is_momentum_to_the_last_bit(variant):
    state = begun(variant)
    m = np.zeros(SIZE, np.float32)
    for t in range(50):
        w, g = normal(SIZE, of=f"w {t}"), normal(SIZE, of=f"g {t}")
        state = list(step(variant)(*state, w, g, 0.0, 0.1))
        m = zot.momentum(m, g, 0.9)
        np.testing.assert_array_equal(state[-1], m)
        np.testing.assert_array_equal(estimate(variant, state, w), m)


# --------------------------------------------------------------------------------------------------- what they learn
def field(variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the slope and the intercept of a gradient that the variant can express."""
    p, q = normal(SIZE, of="p"), normal(SIZE, of="q")
    slope = {"full": normal(SIZE, SIZE, of="H"), "diagonal": np.diag(p), "rank_one": np.outer(p, q)}[variant]
    return slope, normal(SIZE, of="c")


def taught(variant: str, steps: int, rates: Callable[[int], float], noise: float = 0.0, size: float = 1.0) -> Arrays:
    """Return the state after so many gradients of ``field`` at random points of about the given size."""
    slope, c = field(variant)
    state = begun(variant)
    for t in range(steps):
        w = size * normal(SIZE, of=f"w {t}")
        g = slope @ w + c + noise * normal(SIZE, of=f"noise {t}")
        state = list(step(variant)(*state, w, g, rates(t), rates(t)))
    return state


def error(variant: str, state: Arrays) -> float:
    """Return the mean squared error of the estimate at points that were not taught, relative to the gradient."""
    slope, c = field(variant)
    points = [normal(SIZE, of=f"test {i}") for i in range(50)]
    wrong = [np.square(estimate(variant, state, w) - (slope @ w + c)).sum() for w in points]
    return float(np.mean(wrong) / np.mean([np.square(slope @ w + c).sum() for w in points]))


@VARIANTS
def test_it_learns_a_linear_gradient_field(variant):
    assert error(variant, begun(variant)) == pytest.approx(1.0)
    assert error(variant, taught(variant, 2000, lambda t: 0.5)) < 1e-6


@VARIANTS
def test_decaying_rates_average_noise_out(variant):
    constant = error(variant, taught(variant, 2000, lambda t: 0.3, noise=0.5))
    decaying = error(variant, taught(variant, 2000, lambda t: trainable.rate(t, 0.3, 100.0), noise=0.5))
    assert decaying < constant / 3


def test_rank_one_leaves_its_start_and_would_not_leave_zero():
    zero = np.zeros(SIZE, np.float32)
    w, g = normal(SIZE, of="w"), normal(SIZE, of="g")
    for v, moves in [(begun("rank_one")[1], True), (zero, False)]:
        u, b = zero, zero
        for _ in range(2):
            u, v, b = trainable.rank_one_step(u, v, b, w, g, 0.5, 0.1)
        assert (np.abs(u).max() > 0) == (np.abs(v).max() > 0) == moves


# --------------------------------------------------------------------------------------------------------- stability
@pytest.mark.parametrize("variant", ["full", "diagonal"])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3])
def test_the_residual_shrinks_at_any_size_of_w(variant, size):
    state, w, g = some(variant), size * normal(SIZE, of="w"), normal(SIZE, of="g")
    before = estimate(variant, state, w) - g
    after = estimate(variant, list(step(variant)(*state, w, g, 0.5, 0.3)), w) - g
    ratio = after / before
    assert np.all((ratio > 0.2 - 1e-3) & (ratio < 0.7 + 1e-3))


@VARIANTS
@pytest.mark.parametrize("size", [0.1, 1.0, 1e3])
@pytest.mark.parametrize("steep", [1e-2, 1.0, 1e4])
def test_no_size_of_w_or_of_the_gradient_makes_it_diverge(variant, size, steep):
    """Noisy gradients of about the size ``steep``, at points as near to each other as those of an optimizer."""
    state = begun(variant)
    largest = 0.0
    for t in range(300):
        w = size * (normal(SIZE, of="w") + 0.01 * normal(SIZE, of=f"w {t}"))
        g = steep * (1 + normal(SIZE, of=f"noise {t}"))
        state = list(step(variant)(*state, w, g, 0.5, 0.1))
        largest = max(largest, float(np.abs(estimate(variant, state, w)).max()))
    assert largest < 10 * steep


# ------------------------------------------------------------------------------------------------------------ memory
@pytest.mark.parametrize("variant", ["diagonal", "rank_one"])
def test_memory_grows_with_d_not_with_its_square(variant):
    d = 100_000
    state, w, g = begun(variant, d), normal(d, of="w"), normal(d, of="g")
    tracemalloc.start()
    try:
        step(variant)(*state, w, g, 0.1, 0.1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 4 * d


@VARIANTS
def test_nothing_that_is_handed_in_is_written_to(variant):
    given = [*some(variant), normal(SIZE, of="w"), normal(SIZE, of="g")]
    for array in given:
        array.flags.writeable = False
    step(variant)(*given, 0.1, 0.1)
    estimate(variant, given[:-2], given[-2])
