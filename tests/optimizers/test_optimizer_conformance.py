"""What every optimizer promises, whatever it is. A new member is one line in MEMBERS."""

import pickle
import random
from typing import Any

import numpy as np
import pytest

from distributed_tuner.config.estimator import TrainableDiagonalConfig, TrainableFullConfig, TrainableRankOneConfig
from distributed_tuner.config.optimizer import (
    AdamWConfig,
    CmaConfig,
    FirstOrderConfig,
    NevergradConfig,
    OptimizerConfig,
    RandomSearchConfig,
    SgdConfig,
    TokenEditConfig,
    TrainableConfig,
    ZotConfig,
)
from distributed_tuner.config.prompt import SoftPromptConfig, TextPromptConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.preflight.precision_cases import Case
from distributed_tuner.preflight.rehearsal import Rehearsal
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.storage.serialization import decode, encode
from distributed_tuner.tasks.demo import build_demo
from distributed_tuner.values import Array, Start, Text

DIM, STEPS = 40, 60
KEY = (7, "trial-a", 0)
NUMBERS = tuple(str(i / 20) for i in range(1, 21))  # the words of this world; zero is no word

MEMBERS: dict[str, OptimizerConfig | FirstOrderConfig] = {
    "random_search": RandomSearchConfig(sigma=0.2),
    "zot": ZotConfig(rho=0.01, learning_rate=0.02, momentum=0.9, clip=5.0),
    "zot_n3": ZotConfig(points=3, rho=0.01, learning_rate=0.02, bias_correction=False, momentum=0.5),
    "zo_sgd": ZotConfig(rho=0.01, learning_rate=0.005, clip=0, momentum=0, schedule="constant"),
    "zot_diagonal": ZotConfig(rho=0.01, learning_rate=0.02, clip=5.0, estimator=TrainableDiagonalConfig(beta=0.3)),
    "zot_rank_one": ZotConfig(rho=0.01, learning_rate=0.02, clip=5.0, estimator=TrainableRankOneConfig(beta=0.3)),
    "zot_full": ZotConfig(
        points=2, rho=0.01, learning_rate=0.02, estimator=TrainableFullConfig(alpha=0.3, beta=0.3, decay_steps=50.0)
    ),
    "cma": CmaConfig(intrinsic_dim=8, popsize=6),
    "cma_mean": CmaConfig(intrinsic_dim=8, popsize=0, bound=2.0, recommend="mean", projection="uniform"),
    "cma_tpa": CmaConfig(intrinsic_dim=8, popsize=6, step_size="tpa"),
    "adamw": AdamWConfig(learning_rate=0.02, weight_decay=0.01),
    "sgd": SgdConfig(learning_rate=0.02, clip=0.5, schedule="cosine", floor=0.1),
    "trainable": TrainableConfig(learning_rate=0.05),
    "trainable_rank_one": TrainableConfig(learning_rate=0.05, estimator=TrainableRankOneConfig(decay_steps=30.0)),
    "trainable_full": TrainableConfig(learning_rate=0.05, clip=0, estimator=TrainableFullConfig(beta=0.4)),
    "ng_NGOpt": NevergradConfig(intrinsic_dim=4, num_workers=4),
    "ng_CMA": NevergradConfig(optimizer="CMA", intrinsic_dim=8, num_workers=4),
    "ng_DE": NevergradConfig(optimizer="DE", intrinsic_dim=8, num_workers=5),
    "ng_PSO": NevergradConfig(optimizer="PSO", intrinsic_dim=8, num_workers=4),
    "ng_OnePlusOne": NevergradConfig(optimizer="OnePlusOne", space="full", sigma=0.3, num_workers=2),
    "ng_TBPSA": NevergradConfig(optimizer="TBPSA", intrinsic_dim=8, num_workers=4),
    "ng_DiscreteOnePlusOne": NevergradConfig(optimizer="DiscreteOnePlusOne", intrinsic_dim=8, num_workers=3),
    "ng_Cobyla": NevergradConfig(optimizer="Cobyla", intrinsic_dim=8, num_workers=1),
    "token_edit": TokenEditConfig(popsize=6, edits=2.5),
    "token_edit_alone": TokenEditConfig(popsize=1, parents=1, edits=1),
    "ng_words_DiscreteOnePlusOne": NevergradConfig(optimizer="DiscreteOnePlusOne", space="words", num_workers=4),
    "ng_words_FastGA": NevergradConfig(optimizer="DoubleFastGADiscreteOnePlusOne", space="words", words=15),
    "ng_words_CMA": NevergradConfig(optimizer="CMA", space="words", num_workers=5),
    "ng_words_Cobyla": NevergradConfig(optimizer="Cobyla", space="words", num_workers=1),
}


@pytest.fixture(params=sorted(MEMBERS))
def config(request: pytest.FixtureRequest) -> OptimizerConfig | FirstOrderConfig:
    return MEMBERS[request.param]


def make(
    config: OptimizerConfig | FirstOrderConfig,
    key: tuple[int | str, ...] = KEY,
    dim: int = DIM,
    start: Start | None = None,
) -> Optimizer:
    return build(config, dim=dim, key=key, steps=STEPS, start=start, vocabulary=NUMBERS)


def place(config: OptimizerConfig | FirstOrderConfig, x: Array) -> Start:
    """Return coordinates as a start in the space that the member searches."""
    return " ".join(str(number) for number in x.tolist()) if config.is_discrete else x


def draws_nothing(config: OptimizerConfig | FirstOrderConfig) -> bool:
    """Whether the method is deterministic."""
    if isinstance(config, TrainableConfig):
        return config.estimator.kind != "trainable_rank_one"
    return isinstance(config, AdamWConfig | SgdConfig) or getattr(config, "optimizer", "") == "Cobyla"


def same(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def among(point: Array, points: list[Array]) -> bool:
    return any(np.array_equal(point, other) for other in points)


def test_same_key_same_asks_whatever_the_global_generators_do(config, run):
    first = run(make(config), 5)
    np.random.seed(1)
    random.seed(1)
    assert same(first, run(make(config), 5))


def test_nobody_is_raced_unasked(config):
    assert make(config).race is None


def test_another_key_asks_otherwise(config, run):
    if draws_nothing(config):
        pytest.skip("a deterministic method")
    assert not same(run(make(config), 5), run(make(config, (7, "trial-b", 0)), 5))


def test_global_generators_are_left_alone(config, run):
    np.random.seed(3)
    random.seed(3)
    expected = np.random.RandomState(3).random_sample(), random.Random(3).random()
    optimizer = make(config)
    run(optimizer, 2)
    other = make(config)
    other.load_state_dict(optimizer.state_dict())
    assert (np.random.random_sample(), random.random()) == expected


@pytest.mark.parametrize("before", [0, 6])
def test_a_clone_equals_its_original(config, run, materialise, before):
    original = make(config)
    run(original, before)
    state = decode(encode(original.state_dict()), "the state")
    clone = make(config)
    run(clone, 1)  # what a clone did before does not matter
    clone.load_state_dict(state)
    assert clone.steps_told == before
    assert clone.metrics() == original.metrics()
    assert clone.stop_reason == original.stop_reason
    np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))
    assert same(run(clone, 3), run(original, 3))
    np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))


def test_a_clone_brings_its_start_along(config, run):
    original = make(config, start=place(config, np.full(DIM, 0.25, dtype=np.float32)))
    run(original, 2)
    clone = make(config)
    clone.load_state_dict(original.state_dict())
    assert same(run(clone, 2), run(original, 2))


def test_a_clone_under_another_key_goes_on_with_noise_of_its_own(config, run, materialise):
    original, clone = make(config), make(config, (7, "trial-b", 0))
    run(original, 4)
    clone.load_state_dict(original.state_dict())
    np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))
    draws_once = isinstance(config, TrainableConfig)  # where a rank-one slope starts, which is part of the state
    assert same(run(clone, 10), run(original, 10)) == (draws_once or draws_nothing(config))


def test_a_clone_shares_nothing_with_its_original(config, run):
    original, twin = make(config), make(config)
    run(original, 3)
    run(twin, 3)
    state = original.state_dict()
    clone = make(config)
    clone.load_state_dict(state)
    for value in state.values():
        if isinstance(value, np.ndarray) and value.size:
            value.fill(9)
    run(clone, 2, lambda x: float(x.sum()))
    assert same(run(original, 3), run(twin, 3))


def test_beats_its_start_within_500_queries(config, run, materialise, sphere):
    optimizer = make(config)
    start = sphere(materialise(optimizer.recommend()))
    queries = 0
    while sphere(materialise(optimizer.recommend())) >= 0.95 * start:
        queries += len(run(optimizer, 1))
        assert queries < 500


def test_asks_no_more_than_it_announces(config):
    optimizer = make(config)
    asked = optimizer.ask()
    assert 1 <= len(asked) <= optimizer.queries_per_step


def test_the_protocol_is_enforced_and_refusals_change_nothing(config, run, answer, materialise):
    optimizer, twin = make(config), make(config)
    gradients = np.zeros((1, DIM), dtype=np.float32) if optimizer.white_box else None
    with pytest.raises(ConfigError, match="ask first"):
        optimizer.tell([1.0])
    asked = optimizer.ask()
    with pytest.raises(ConfigError, match="still waits"):
        optimizer.ask()
    with pytest.raises(ConfigError, match="between steps"):
        optimizer.state_dict()
    with pytest.raises(ConfigError, match=f"asked {len(asked)}"):
        optimizer.tell([1.0] * (len(asked) + 1), gradients)
    if optimizer.white_box:
        for missing in (None, np.zeros(DIM), np.zeros((1, DIM + 1))):
            with pytest.raises(ConfigError, match=rf"gradients of shape \(1, {DIM}\)"):
                optimizer.tell([1.0], missing)
    else:
        with pytest.raises(ConfigError, match="from losses alone"):
            optimizer.tell([1.0] * len(asked), np.zeros((len(asked), DIM), dtype=np.float32))
    for moving in (optimizer.relocate, lambda x: optimizer.inject(x, 1.0, 1.0)):
        with pytest.raises(ConfigError, match="between steps"):
            moving(np.zeros(DIM, dtype=np.float32))
    assert optimizer.steps_told == 0
    losses = [float(i) for i in range(len(asked))]
    for one in (optimizer, twin):
        answer(one, [materialise(candidate) for candidate in (asked if one is optimizer else one.ask())], losses)
    assert same(run(optimizer, 2), run(twin, 2))


def test_survives_failed_queries_and_never_recommends_one(config, run, materialise, answer):
    optimizer = make(config)
    failed: list[Any] = []
    scored: list[Any] = []  # a text may be asked twice, and fail once
    for step in range(12):
        points = [materialise(candidate) for candidate in optimizer.ask()]
        losses = [float(np.sum((x - 0.5) ** 2)) for x in points]
        broken = {(step % 3) % len(points), len(points) - 1} if step % 4 else set(range(len(points)))
        for index in broken:  # the best of all, were it not failed
            losses[index] = [np.nan, np.inf, -np.inf][step % 3]
            failed.append(points[index])
        scored += [point for point, loss in zip(points, losses, strict=True) if np.isfinite(loss)]
        answer(optimizer, points, losses)
        recommended = materialise(optimizer.recommend())
        assert np.isfinite(recommended).all()
        moved = np.any(recommended)
        stands = optimizer.white_box  # it has no other point
        assert stands or not moved or among(recommended, scored) or not among(recommended, failed)
    assert optimizer.metrics()["failed_queries"] == len(failed)
    assert all(np.isfinite(value) for value in optimizer.metrics().values())
    assert np.isfinite(run(optimizer, 2)).all()


def test_a_step_of_failures_alone_keeps_the_recommendation(config, run, materialise):
    def fail(optimizer: Optimizer) -> None:
        nothing = np.full((1, DIM), np.nan, dtype=np.float32) if optimizer.white_box else None
        optimizer.tell([np.nan] * len(optimizer.ask()), nothing)

    optimizer = make(config)
    before = materialise(optimizer.recommend()).copy()
    for _ in range(2):
        fail(optimizer)
        np.testing.assert_array_equal(materialise(optimizer.recommend()), before)
    assert optimizer.steps_told == 2
    run(optimizer, 4)
    before = materialise(optimizer.recommend()).copy()
    fail(optimizer)
    if not isinstance(config, NevergradConfig):  # nevergrad is told, and may move its mean
        np.testing.assert_array_equal(materialise(optimizer.recommend()), before)


def test_arrays_that_are_handed_in_or_out_are_safe(config, run, sphere, materialise, answer):
    start = np.full(DIM, 0.25, dtype=np.float32)
    kept = start.copy()
    optimizer = make(config, start=place(config, start))
    np.testing.assert_array_equal(materialise(optimizer.recommend()), kept)
    twin = make(config, start=place(config, kept))
    start.fill(5)
    points = [materialise(candidate) for candidate in optimizer.ask()]
    losses = np.array([sphere(point) for point in points])
    losses[-1] = np.inf
    told = losses.copy()
    answer(optimizer, points, losses)
    np.testing.assert_array_equal(losses, told)
    losses.fill(0)
    answer(twin, [materialise(candidate) for candidate in twin.ask()], told)
    assert same(run(optimizer, 2), run(twin, 2))
    for candidate in [*optimizer.ask(), optimizer.recommend()]:
        if isinstance(candidate, Text):
            continue  # nothing that could be written to
        array = getattr(candidate, "vector", None)
        array = getattr(candidate, "z", None) if array is None else array
        array = candidate.center.vector if array is None else array
        assert array is not start
        assert array.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_candidates_are_small_recipes_that_pickle(config, materialise):
    for candidate in make(config).ask():
        again = pickle.loads(pickle.dumps(candidate))
        np.testing.assert_array_equal(materialise(again), materialise(candidate))


def test_a_state_of_another_kind_or_size_is_refused(config):
    other = RandomSearchConfig() if config.kind != "random_search" else ZotConfig()
    with pytest.raises(ConfigError, match="kind"):
        make(config).load_state_dict(make(other).state_dict())
    with pytest.raises(ConfigError, match="dim"):
        make(config).load_state_dict(make(config, dim=DIM + 1).state_dict())


# ------------------------------------------------------------------------------------------- what a run reads of it
def test_its_settings_say_what_a_run_reads_of_them(config):
    optimizer = make(config)
    assert (config.kind, config.is_discrete) == (optimizer.kind, optimizer.is_discrete)
    assert config.label == config.kind
    assert config.settled({}).unsettled == ()
    assert config.radius is None or config.radius > 0


def test_a_run_can_calibrate_it_and_check_rehearses_it(config, materialise):
    task = build_demo(DemoTaskConfig())
    prompt = TextPromptConfig(kind="text") if config.is_discrete else SoftPromptConfig(layout="prefix")
    space = prompt_space(prompt, task, 2)
    Rehearsal().take(config, space, 0, STEPS)
    if config.is_discrete or make(config).white_box:
        return
    case = Case(config, 0, 0, task, space.spec)
    assert 1 <= len(case.batch(DIM).examples) <= len(task.train)
    asks = case.asks(DIM)
    points = [[materialise(candidate) for candidate in ask] for ask in asks]
    assert np.isfinite(points).all() and np.shape(points) == (len(asks), 2, DIM)
    assert draws_nothing(config) or not same(points[0], points[1])


# ----------------------------------------------------------------------------------------------------- being moved
ELSEWHERE = np.linspace(-1, 1, DIM, dtype=np.float32)


@pytest.mark.parametrize("before", [0, 4])
def test_a_moved_optimizer_stands_at_the_new_point_and_learns_from_there(config, run, materialise, sphere, before):
    optimizer = make(config)
    run(optimizer, before)
    point = ELSEWHERE.copy()
    optimizer.relocate(place(config, point))
    point.fill(7)
    np.testing.assert_array_equal(materialise(optimizer.recommend()), ELSEWHERE)
    assert optimizer.steps_told == before
    queries = 0
    while sphere(materialise(optimizer.recommend())) >= sphere(ELSEWHERE):
        queries += len(run(optimizer, 1))
        assert queries < 500


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (4, 3)])
def test_a_moved_optimizer_is_restored_to_the_same_bits(config, run, materialise, before, after):
    original = make(config)
    run(original, before)
    original.relocate(place(config, ELSEWHERE))
    run(original, after)
    clone = make(config)
    run(clone, 1)
    clone.load_state_dict(decode(encode(original.state_dict()), "the state"))
    np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))
    assert same(run(clone, 3), run(original, 3))


def test_where_it_is_moved_to_is_checked(config, run):
    optimizer, twin = make(config), make(config)
    with pytest.raises(ConfigError, match="a place in the space that it searches"):
        optimizer.relocate(np.zeros(DIM, dtype=np.float32) if config.is_discrete else "0.5 0.5")
    for wrong in () if config.is_discrete else (np.zeros(DIM + 1), np.zeros((1, DIM)), np.full(DIM, np.nan)):
        with pytest.raises(ConfigError, match=f"{DIM} finite coordinates"):
            optimizer.relocate(wrong)
    assert same(run(optimizer, 2), run(twin, 2))


def test_only_cma_takes_candidates_from_outside(config):
    if config.kind != "cma":
        with pytest.raises(ConfigError, match="use cma"):
            make(config).inject(ELSEWHERE, 1.0, 1.0)
        return
    optimizer = make(config)
    optimizer.inject(ELSEWHERE, 1.0, 1.0)
    assert len(optimizer.ask()) == optimizer.queries_per_step
