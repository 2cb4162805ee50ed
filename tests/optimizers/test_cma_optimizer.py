"""CMA beyond the conformance suite: generations, bounds, recommendations, lost generations in large dimensions."""

import numpy as np
import pytest

from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.optimizers.base import Race
from distributed_tuner.seeds import seed_of
from distributed_tuner.values import Array, Candidate, Latent

KEY = (7, "trial-a", 0)


def latents(candidates: list[Candidate]) -> list[Array]:
    return [candidate.z for candidate in candidates if isinstance(candidate, Latent)]


def generation(optimizer: Optimizer, failed: bool = False) -> list[Array]:
    asked = latents(optimizer.ask())
    optimizer.tell([np.nan if failed else float(np.sum((z - 1.0) ** 2)) for z in asked])
    return asked


@pytest.mark.parametrize(("popsize", "expected"), [(0, 4 + int(3 * np.log(500))), (20, 20), (2, 2)])
def test_popsize(popsize, expected):
    optimizer = build(CmaConfig(popsize=popsize), dim=40, key=KEY, steps=5)
    assert optimizer.queries_per_step == expected == len(optimizer.ask())


def test_a_population_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        CmaConfig(popsize=1)


def test_lost_generations_are_drawn_anew_in_large_dimensions():
    """With 500 coordinates pycma injects two samples along the last step, once: a lost generation gives them back."""
    optimizer = build(CmaConfig(), dim=40, key=KEY, steps=20)
    for _ in range(3):
        generation(optimizer)
    lost = [generation(optimizer, failed=True), generation(optimizer, failed=True)]
    assert not np.array_equal(lost[0][5], lost[1][5])
    for _ in range(3):
        assert np.isfinite(generation(optimizer)).all()
    assert optimizer.steps_told == 8


def test_a_lost_generation_leaves_the_distribution_alone():
    optimizer = build(CmaConfig(intrinsic_dim=8, recommend="mean"), dim=40, key=KEY, steps=20)
    generation(optimizer)
    before = optimizer.recommend()
    metrics = optimizer.metrics()
    generation(optimizer, failed=True)
    np.testing.assert_array_equal(latents([optimizer.recommend()])[0], latents([before])[0])
    assert optimizer.metrics() == {**metrics, "failed_queries": 20.0}


def test_bounds_hold_for_asks_and_mean():
    optimizer = build(CmaConfig(intrinsic_dim=4, bound=0.5, recommend="mean"), dim=40, key=KEY, steps=20)
    asked = [z for _ in range(15) for z in generation(optimizer)]  # the optimum, 1, lies outside
    assert np.abs(asked).max() <= 0.5
    assert 0.4 < latents([optimizer.recommend()])[0].min() <= 0.5


def test_best_is_of_the_last_generation():
    optimizer = build(CmaConfig(intrinsic_dim=4, popsize=5), dim=40, key=KEY, steps=20)
    optimizer.ask()
    optimizer.tell([0.0, 1.0, 2.0, 3.0, 4.0])
    asked = latents(optimizer.ask())
    optimizer.tell([9.0, np.nan, 8.0, 7.0, np.inf])
    np.testing.assert_array_equal(latents([optimizer.recommend()])[0], asked[3])


@pytest.mark.parametrize(("popsize", "mu"), [(2, 1), (5, 2), (20, 10), (0, 11)])
def test_a_race_is_for_the_parents_of_a_generation(popsize, mu):
    assert build(CmaConfig(popsize=popsize), dim=40, key=KEY, steps=5).race is None
    assert build(CmaConfig(popsize=popsize, race_block=8), dim=40, key=KEY, steps=5).race == Race(8, mu)


def test_losses_behind_the_parents_do_not_move_the_mean():
    """The distribution's mean goes by the best mu alone: what the others are told matters only to the covariance."""
    means = []
    for rest in ([5.0, 6.0, 7.0], [9.0, 8.0, 5.5]):
        optimizer = build(CmaConfig(intrinsic_dim=8, popsize=6, recommend="mean"), dim=40, key=KEY, steps=5)
        optimizer.ask()
        optimizer.tell([3.0, rest[0], 1.0, rest[1], 2.0, rest[2]])
        means.append(latents([optimizer.recommend()])[0])
    np.testing.assert_array_equal(*means)


def test_the_projection_is_of_the_run_not_of_the_trial():
    one, two, three = (
        build(CmaConfig(alpha=0.5, sigma=0.2), dim=40, key=key, steps=5).recommend()
        for key in [(7, "a", 0), (7, "b", 2), (8, "a", 0)]
    )
    assert isinstance(one, Latent) and isinstance(two, Latent) and isinstance(three, Latent)
    assert one.projection == two.projection
    assert one.projection.seed == seed_of((7, "projection")) != three.projection.seed
    assert (one.projection.alpha, one.projection.sigma, one.projection.dim) == (0.5, 0.2, 500)
    assert one.origin is None


def test_a_flat_objective_reports_why_pycma_would_stop():
    optimizer = build(CmaConfig(intrinsic_dim=3, popsize=4), dim=40, key=KEY, steps=50)
    for _ in range(30):
        optimizer.tell([1.0] * len(optimizer.ask()))
    assert optimizer.stop_reason is not None
    assert "tolflatfitness=" in optimizer.stop_reason
    assert len(optimizer.ask()) == 4  # advice only


def test_a_state_of_another_intrinsic_dim_is_refused():
    state = build(CmaConfig(intrinsic_dim=3), dim=40, key=KEY, steps=5).state_dict()
    with pytest.raises(ConfigError, match="set intrinsic_dim to 3"):
        build(CmaConfig(intrinsic_dim=4), dim=40, key=KEY, steps=5).load_state_dict(state)
