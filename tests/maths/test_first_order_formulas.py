"""AdamW and SGD against torch's own, and the linear schedule against its formula."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distributed_tuner.maths import first_order
from distributed_tuner.maths.schedules import linear_decay

STEPS, SIZE = 20, 7
SCALES = np.geomspace(0.1, 5.0, SIZE).astype(np.float32)
START = np.linspace(-2, 2, SIZE, dtype=np.float32)


def slope(x: np.ndarray) -> np.ndarray:
    """Return the gradient of a bent ellipsoid around (1, ..., 1)."""
    return np.asarray(SCALES * (x - 1) + np.sin(x), dtype=np.float32)


def torchs(make: Callable[..., Any], rates: list[float]) -> list[np.ndarray]:
    """Return the points that a torch optimizer goes through on ``slope``, a step size each."""
    import torch

    x = torch.nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = make([x])
    path = []
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        x.grad = torch.from_numpy(slope(x.detach().numpy()))
        optimizer.step()
        path.append(x.detach().numpy().copy())
    return path


RATES = [linear_decay(t, STEPS, 0.3, 0.1) for t in range(STEPS)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_adamw_goes_where_torchs_goes(weight_decay):
    import torch

    expected = torchs(lambda x: torch.optim.AdamW(x, betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay), RATES)
    x, m, v = START, np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    for t, (rate, there) in enumerate(zip(RATES, expected, strict=True), start=1):
        g = slope(x)
        m, v = first_order.first_moment(m, g, 0.8), first_order.second_moment(v, g, 0.95)
        direction = first_order.adam_direction(m, v, t, 0.8, 0.95, 1e-6)
        x = first_order.descend(first_order.decay(x, rate, weight_decay), direction, rate)
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, there, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_goes_where_torchs_goes(momentum):
    import torch

    rates = [rate / 4 for rate in RATES]
    expected = torchs(lambda x: torch.optim.SGD(x, momentum=momentum), rates)
    x, m = START, np.zeros(SIZE, np.float32)
    for rate, there in zip(rates, expected, strict=True):
        m = first_order.momentum_sum(m, slope(x), momentum)
        x = first_order.descend(x, m, rate)
        np.testing.assert_allclose(x, there, rtol=1e-5, atol=1e-6)


def test_decay_without_momentum_is_torchs_weight_decay():
    """Coupled and decoupled decay are one where the direction is the gradient itself."""
    import torch

    rates = [rate / 4 for rate in RATES]
    expected = torchs(lambda x: torch.optim.SGD(x, weight_decay=0.3), rates)
    x = START
    for rate, there in zip(rates, expected, strict=True):
        x = first_order.descend(first_order.decay(x, rate, 0.3), slope(x), rate)
        np.testing.assert_allclose(x, there, rtol=1e-5, atol=1e-6)


def test_nothing_that_is_handed_in_is_written_to():
    given = [np.full(3, value, dtype=np.float32) for value in (1, 2, 3)]
    for array in given:
        array.flags.writeable = False
    a, b, c = given
    first_order.first_moment(a, b, 0.9)
    first_order.second_moment(a, b, 0.9)
    first_order.adam_direction(a, b, 1, 0.9, 0.99, 1e-8)
    first_order.momentum_sum(a, b, 0.9)
    first_order.descend(first_order.decay(c, 0.1, 0.1), a, 0.1)


def test_the_linear_schedule_by_hand():
    assert [linear_decay(t, 4, 2.0, 0.0) for t in (-1, 0, 1, 2, 4, 9)] == [2.0, 2.0, 1.5, 1.0, 0.0, 0.0]
    assert [linear_decay(t, 4, 2.0, 0.5) for t in (0, 2, 4, 5)] == [2.0, 1.5, 1.0, 1.0]
