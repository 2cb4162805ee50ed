"""The quadratics of Figure 1: their spectrum, descent by hand, and that the theorem's factor holds whatever d is."""

import numpy as np
import pytest

from distributed_tuner.analysis.quadratics import gradient_descent, predicted, probes_of, spectrum, zo_descent

SEEDS = range(6)


@pytest.mark.parametrize("d_e", [2.0, 5.0, 9.0])
def test_the_spectrum_has_its_sum_and_its_largest(d_e: float) -> None:
    found = spectrum(d_e)
    assert found.sum() == pytest.approx(d_e)
    assert found[0] == 1.0 and (np.diff(found) <= 0).all() and found[-1] > 0


def test_gradient_descent_by_hand() -> None:
    run = gradient_descent(5.0, 20, 30, SEEDS)
    shrinking = (1 - spectrum(5.0)) ** 2
    first = run.losses[:, 0]
    assert run.losses.shape == (6, 31)
    assert (run.losses[:, -1] < first * shrinking.max() ** 30).all()


@pytest.mark.parametrize("d", [10, 100, 300])
@pytest.mark.parametrize("n", [1, 5])
def test_the_theorems_factor_holds_whatever_d_is(d: int, n: int) -> None:
    steps = 100
    gd, run = gradient_descent(5.0, d, steps, SEEDS), zo_descent(5.0, d, n, steps, SEEDS)
    assert 1 / 3 < run.mean[-1] / predicted(run, gd, 5.0) < 3


def test_the_numbers_of_probes() -> None:
    assert probes_of(5.0, 100) == [1, 3, 5, 100]
    assert probes_of(1.0, 10) == [1, 10]
