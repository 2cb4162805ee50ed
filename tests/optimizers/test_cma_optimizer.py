"""CMA beyond the conformance suite: generations, bounds, recommendations, lost generations in large dimensions."""

import numpy as np
import pytest

from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.optimizers.base import Race
from distributed_tuner.prompts.recipes import Recipes, projection_matrix
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


@pytest.mark.parametrize("intrinsic_dim", [2, 3, 7, 20, 55, 1000])
def test_what_is_asked_is_known_before_pycma_is_there(intrinsic_dim):
    optimizer = build(CmaConfig(intrinsic_dim=intrinsic_dim), dim=1000, key=KEY, steps=5)
    assert optimizer.queries_per_step == len(optimizer.ask())


def test_batch_size_is_the_stages_to_read():
    assert build(CmaConfig(), dim=40, key=KEY, steps=5).batch_size is None
    assert build(CmaConfig(batch_size=16), dim=40, key=KEY, steps=5).batch_size == 16


@pytest.mark.parametrize(("step_size", "popsize", "least"), [("csa", 1, 2), ("tpa", 1, 4), ("tpa", 3, 4)])
def test_a_population_too_small_for_its_rule_is_refused(step_size, popsize, least):
    with pytest.raises(ValueError, match=f"step_size: {step_size} has at least {least} candidates, got {popsize}"):
        CmaConfig(popsize=popsize, step_size=step_size)


# --------------------------------------------------------------------------------------------------------- step size
TPA = CmaConfig(intrinsic_dim=8, popsize=6, step_size="tpa", recommend="mean")


@pytest.mark.parametrize("intrinsic_dim", [8, 300])
@pytest.mark.parametrize(("step_size", "rule"), [("csa", "CMAAdaptSigmaCSA"), ("tpa", "CMAAdaptSigmaTPA")])
def test_the_step_size_follows_the_rule_that_was_asked_for_in_any_number_of_dimensions(intrinsic_dim, step_size, rule):
    config = CmaConfig(intrinsic_dim=intrinsic_dim, popsize=6, step_size=step_size)
    optimizer = build(config, dim=40, key=KEY, steps=5)
    assert type(optimizer._es.adapt_sigma).__name__ == rule
    assert CmaConfig().step_size == "csa"


@pytest.mark.parametrize("popsize", [4, 6, 0])
def test_two_point_adaptation_asks_for_a_pair_about_the_mean_from_the_second_generation_on(popsize):
    optimizer = build(TPA.model_copy(update={"popsize": popsize}), dim=40, key=KEY, steps=20)
    for step in range(8):
        mean = latents([optimizer.recommend()])[0]
        asked = generation(optimizer)
        assert len(asked) == optimizer.queries_per_step
        assert np.allclose(asked[0] + asked[1], 2 * mean, atol=1e-5) == (step > 0)


def test_with_two_point_adaptation_the_pair_alone_moves_the_step_size():
    """By the rank of its second less that of its first, whatever the others' losses are."""
    sigmas = {}
    for name, losses in {
        "behind is better": [5.0, 1.0, 2, 3, 4, 6],
        "also": [50.0, 1.5, 20, 30, 40, 60],
        "ahead is better": [1.0, 5.0, 2, 3, 4, 6],
    }.items():
        optimizer = build(TPA, dim=40, key=KEY, steps=5)
        generation(optimizer)
        optimizer.ask()
        optimizer.tell(losses)
        sigmas[name] = optimizer.metrics()["sigma"]
    assert sigmas["behind is better"] == sigmas["also"] < sigmas["ahead is better"]


def test_a_race_with_two_point_adaptation_keeps_the_pair_exact():
    for step_size, pair in (("csa", ()), ("tpa", (0, 1))):
        optimizer = build(CmaConfig(popsize=6, race_block=8, step_size=step_size), dim=40, key=KEY, steps=5)
        generation(optimizer)
        assert optimizer.race == Race(8, 3)  # nothing is known of a step before there was one
        optimizer.ask()
        assert optimizer.race == Race(8, 3, pair)


@pytest.mark.parametrize("step_size", ["csa", "tpa"])
def test_long_searches_leave_numpys_generator_alone_and_do_not_follow_it(step_size):
    config = CmaConfig(intrinsic_dim=300, popsize=6, step_size=step_size)
    optimizer, twin = (build(config, dim=40, key=KEY, steps=20) for _ in range(2))
    np.random.seed(3)
    asked = [generation(optimizer) for _ in range(8)]
    assert np.random.random_sample() == np.random.RandomState(3).random_sample()
    np.testing.assert_array_equal(asked, [generation(twin) for _ in range(8)])


def test_a_state_goes_on_with_its_own_rule():
    config = TPA.model_copy(update={"race_block": 4})
    optimizer = build(config, dim=40, key=KEY, steps=20)
    for _ in range(3):
        generation(optimizer)
    clone = build(config.model_copy(update={"step_size": "csa"}), dim=40, key=KEY, steps=20)
    clone.load_state_dict(optimizer.state_dict())
    np.testing.assert_array_equal([generation(optimizer) for _ in range(3)], [generation(clone) for _ in range(3)])
    older = optimizer.state_dict()
    del older["step_size"]  # before there was a choice
    build(config, dim=40, key=KEY, steps=20).load_state_dict(older)


def test_lost_generations_are_drawn_anew_with_two_point_adaptation():
    """pycma injects two samples along the last step, once: a lost generation gives them back."""
    optimizer = build(CmaConfig(step_size="tpa"), dim=40, key=KEY, steps=20)
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


# ---------------------------------------------------------------------------------------------------------- injection
def in_the_subspace(optimizer: Optimizer, z: Array, embedding_std: float, unit: float) -> Array:
    """Return the coordinates that the oracle makes of the latent vector z."""
    space = latent_of(optimizer)
    return Recipes(embedding_std).coordinates(Latent(z, space.projection, space.origin), 40, unit)


def latent_of(optimizer: Optimizer) -> Latent:
    recommended = optimizer.recommend()
    assert isinstance(recommended, Latent)
    return recommended


@pytest.mark.parametrize("generations", [0, 1, 5])
@pytest.mark.parametrize("projection", ["normal", "uniform"])
def test_an_injected_point_is_one_solution_of_the_next_generation(generations, projection):
    start = np.linspace(-1, 1, 40, dtype=np.float32)
    config = CmaConfig(intrinsic_dim=8, popsize=6, projection=projection)
    optimizer = build(config, dim=40, key=KEY, steps=20, start=start)
    for _ in range(generations):
        generation(optimizer)
    z = np.linspace(3, 9, 8, dtype=np.float32)  # far outside what the distribution would draw
    optimizer.inject(in_the_subspace(optimizer, z, 0.3, 0.5), 0.3, 0.5)
    asked = generation(optimizer)
    assert len(asked) == 6
    near = [np.abs(solution - z).max() < 1e-3 for solution in asked]
    assert sum(near) == 1
    assert not any(np.abs(solution - z).max() < 1e-3 for solution in generation(optimizer))


def test_what_lies_outside_the_subspace_is_lost():
    optimizer = build(CmaConfig(intrinsic_dim=8, popsize=6), dim=40, key=KEY, steps=20)
    z = np.linspace(-2, 2, 8, dtype=np.float32)
    a = projection_matrix(latent_of(optimizer).projection, 40, 1.0).astype(np.float64)
    beside = np.random.default_rng(0).standard_normal(40)
    beside -= a @ np.linalg.lstsq(a, beside, rcond=None)[0]
    optimizer.inject((a @ z + beside).astype(np.float32), 1.0, 1.0)
    assert sum(np.abs(solution - z).max() < 1e-3 for solution in generation(optimizer)) == 1


def test_an_injected_point_survives_state_and_lost_generations():
    config = CmaConfig(intrinsic_dim=8, popsize=6)
    optimizer = build(config, dim=40, key=KEY, steps=20)
    generation(optimizer)
    point = np.full(40, 2, dtype=np.float32)
    optimizer.inject(np.zeros(40, dtype=np.float32), 1.0, 1.0)
    optimizer.inject(point, 1.0, 1.0)  # of several, the last counts
    clone = build(config, dim=40, key=KEY, steps=20)
    clone.load_state_dict(optimizer.state_dict())
    lost, again = generation(optimizer, failed=True), generation(optimizer)
    copied = generation(clone)
    np.testing.assert_array_equal(lost, copied)
    kept = [a for a in lost for b in again if np.allclose(a, b)]
    assert len(kept) == 1
    assert np.abs(kept[0]).max() > 0.5


def test_an_injected_point_is_tried_by_a_search_that_had_stopped():
    optimizer = build(CmaConfig(intrinsic_dim=4, popsize=6), dim=40, key=KEY, steps=20)
    while optimizer.stop_reason is None:
        optimizer.ask()
        optimizer.tell([1.0] * 6)  # a flat loss
    optimizer.inject(np.zeros(40, dtype=np.float32), 1.0, 1.0)
    assert optimizer.stop_reason is None


def test_an_injected_point_stays_within_the_bounds():
    optimizer = build(CmaConfig(intrinsic_dim=4, popsize=6, bound=0.5), dim=40, key=KEY, steps=20)
    optimizer.inject(in_the_subspace(optimizer, np.full(4, 3, dtype=np.float32), 1.0, 1.0), 1.0, 1.0)
    asked = np.array(generation(optimizer))
    assert np.abs(asked).max() <= 0.5
    assert (asked == 0.5).all(axis=1).sum() == 1


@pytest.mark.parametrize("generations", [0, 3])
def test_an_injected_point_joins_the_pair_of_two_point_adaptation(generations):
    """pycma injects two samples of its own; the point comes behind them."""
    optimizer = build(CmaConfig(step_size="tpa"), dim=40, key=KEY, steps=20)
    for _ in range(generations):
        generation(optimizer)
    optimizer.inject(np.full(40, 2, dtype=np.float32), 1.0, 1.0)
    asked = [in_the_subspace(optimizer, z, 1.0, 1.0) for z in generation(optimizer)]
    assert len(asked) == 20
    assert sum(np.allclose(x, 2, atol=1e-3) for x in asked) == 1
    for _ in range(3):
        assert np.isfinite(generation(optimizer)).all()


def test_moving_keeps_sigma_and_covariance():
    optimizer = build(CmaConfig(intrinsic_dim=6, popsize=8), dim=40, key=KEY, steps=30)
    for _ in range(8):
        generation(optimizer)
    before = optimizer.state_dict()
    optimizer.relocate(np.ones(40, dtype=np.float32))
    stayed = build(CmaConfig(intrinsic_dim=6, popsize=8), dim=40, key=KEY, steps=30)
    stayed.load_state_dict(before)
    moved, there = generation(optimizer), generation(stayed)
    # the same draws around another mean
    shifts = np.array(moved) - np.array(there)
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[0], shifts.shape), atol=1e-5)
    assert np.abs(shifts[0]).max() > 0.1
