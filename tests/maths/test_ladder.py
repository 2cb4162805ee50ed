"""Width of the first generation, on losses whose best width is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from distributed_tuner.maths.ladder import Array64, expected_falls, selection, widest_best
from distributed_tuner.seeds import generator

D = 40
RADII = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
G = generator(("slope",)).standard_normal(D)
G /= np.linalg.norm(G)


def falls_of(f: Callable[[Array64], float], count: int = 400, popsize: int = 20) -> tuple[float, ...]:
    z = generator(("directions",)).standard_normal((count, D))
    pairs = np.array([[[f(r * d), f(-r * d)] for d in z] for r in RADII])
    return expected_falls(f(np.zeros(D)), RADII, pairs, selection(popsize))


def quadratic(x: Array64) -> float:
    return float(G @ x + 0.04 * x @ x)


@pytest.mark.parametrize("popsize", [2, 5, 8, 20])
def test_selection_moves_the_mean_as_ranks_of_normal_numbers_do(popsize):
    drawn = selection(popsize)
    mu = popsize // 2
    w = np.log((popsize + 1) / 2) - np.log(np.arange(1, mu + 1))
    best = np.sort(generator(("draws",)).standard_normal((40_000, popsize)))[:, :mu]
    assert drawn.pull == pytest.approx(-float((best @ w).mean() / w.sum()), rel=0.07)
    assert drawn.mu_eff == pytest.approx(w.sum() ** 2 / (w @ w))


@pytest.mark.parametrize("popsize", [6, 20])
def test_what_is_expected_is_what_a_generation_does(popsize):
    """Draw generations, move the mean as CMA-ES does, and evaluation."""
    w = np.log((popsize + 1) / 2) - np.log(np.arange(1, popsize // 2 + 1))
    w /= w.sum()
    stream = generator(("generations", popsize))
    for radius, expected in zip(RADII, falls_of(quadratic, popsize=popsize), strict=True):
        seen = []
        for _ in range(300):
            x = radius * stream.standard_normal((popsize, D))
            order = np.argsort([quadratic(row) for row in x])
            seen.append(-quadratic(w @ x[order[: len(w)]]))
        assert expected == pytest.approx(np.mean(seen), abs=0.25 * radius + 0.01)
        assert np.sign(expected) == np.sign(np.mean(seen)) or abs(expected) < 0.05


def test_more_candidates_stand_more_width():
    few, many = (widest_best(RADII, falls_of(quadratic, popsize=popsize)) for popsize in (4, 40))
    assert few is not None and many is not None
    assert few < many


def test_losses_that_have_levelled_off_tell_nothing():
    """Far out all is noise of its own: that differences are large there says nothing of the middle's slope."""

    def levelled(x: Array64) -> float:
        near = bool(np.linalg.norm(x) < 2.0)
        return quadratic(x) if near else 0.8 + float(np.sin(97.0 * x.sum()))

    found = widest_best(RADII, falls_of(levelled, count=50))
    assert found is not None
    assert found < 1.6  # where they are largest


def test_where_every_way_leads_down_width_is_taken():
    assert widest_best(RADII, falls_of(lambda x: -0.3 * float(np.tanh(x @ x)), count=2)) == 1.6


def test_a_flat_loss_is_searched_wide():
    falls = falls_of(lambda x: 1.0, count=2)
    assert falls == (0.0,) * len(RADII)
    assert widest_best(RADII, falls) == 1.6


def test_failed_losses_are_left_out():
    z = generator(("directions",)).standard_normal((3, D))
    pairs = np.array([[[quadratic(r * d), quadratic(-r * d)] for d in z] for r in RADII])
    whole = expected_falls(0.0, RADII, pairs[:, :2], selection(20))
    pairs[:, 2, 1] = np.nan
    assert expected_falls(0.0, RADII, pairs, selection(20)) == whole
    pairs[2] = np.inf
    without = expected_falls(0.0, RADII, pairs, selection(20))
    assert without[2] == -math.inf
    assert all(map(math.isfinite, without[:2] + without[3:]))
    assert widest_best(RADII, (-math.inf,) * 6) is None
