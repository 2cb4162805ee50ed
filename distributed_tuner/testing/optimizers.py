"""Conformance suite of optimizers."""

import pickle
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pytest

from distributed_tuner.config.first_order import (
    AdamWConfig,
    CustomFirstOrderConfig,
    FirstOrderConfig,
    SgdConfig,
    TrainableConfig,
)
from distributed_tuner.config.optimizer import CustomOptimizerConfig, OptimizerConfig, RandomSearchConfig, ZotConfig
from distributed_tuner.config.prompt import SoftPromptConfig, TextPromptConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.custom import path_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.preflight.precision_cases import Case
from distributed_tuner.preflight.rehearsal import Rehearsal
from distributed_tuner.seeds import Key
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.storage.serialization import decode, encode
from distributed_tuner.tasks.demo import build_demo
from distributed_tuner.testing.quadratic import DIM, TRAIN, answer, answers_of, materialise, run, sphere
from distributed_tuner.values import Answers, Array, Latent, Perturbation, Start, Text

Settings: TypeAlias = OptimizerConfig | FirstOrderConfig

FirstOrder = AdamWConfig | SgdConfig | TrainableConfig | CustomFirstOrderConfig
STEPS = 60
KEY: Key = (7, "trial-a", 0)
NUMBERS = tuple(str(i / 20) for i in range(1, 21))  # the words of this world; zero is no word
ELSEWHERE = np.linspace(-1, 1, DIM, dtype=np.float32)


def same(left: list[Any], right: list[Any]) -> bool:
    """Tell whether two lists of arrays are equal, bit by bit."""
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def among(point: Array, points: list[Array]) -> bool:
    """Tell whether an array is one of some."""
    return any(np.array_equal(point, other) for other in points)


class OptimizerSuite:
    """Tests of one optimizer, in a world where the loss is the squared distance from (0.5, ..., 0.5).

    part: its class. settings: what it is made with beside what a run gives. A search of coordinates must come nearer to
    the optimum than its start within 500 queries in 40 dimensions: give settings that fit a distance of about 3.
    """

    part: ClassVar[type[Optimizer]]
    settings: ClassVar[Mapping[str, Any]] = {}
    deterministic: ClassVar[bool] = False
    """It draws no random numbers."""

    @pytest.fixture
    def config(self) -> Settings:
        """Return the settings that the tests are of: those of ``part``."""
        told: dict[str, Any] = {"import_path": path_of(self.part), "settings": dict(self.settings)}
        if self.part.white_box:
            return CustomFirstOrderConfig(**told)
        return CustomOptimizerConfig(space="words" if self.part.is_discrete else "coordinates", **told)

    # ------------------------------------------------------------------------------------- what may be otherwise
    def draws_nothing(self, config: Settings) -> bool:
        """Tell whether the method is deterministic."""
        return self.deterministic

    def clones_go_on_alike(self, config: Settings) -> bool:
        """Tell whether a clone under another key asks the same: all that is random was drawn before."""
        return self.draws_nothing(config)

    def learns_from_failures(self, config: Settings) -> bool:
        """Tell whether a step in which every query failed may change what is recommended."""
        return False

    def make(self, config: Settings, key: Key = KEY, dim: int = DIM, start: Start | None = None) -> Optimizer:
        """Build the optimizer, as a trial does."""
        return build(config, dim=dim, key=key, steps=STEPS, start=start, vocabulary=NUMBERS)

    def place(self, config: Settings, x: Array) -> Start:
        """Return coordinates as a start in the space that the member searches."""
        return " ".join(str(number) for number in x.tolist()) if config.is_discrete else x

    # ------------------------------------------------------------------------------------- the tests
    def test_same_key_same_asks_whatever_the_global_generators_do(self, config: Settings) -> None:
        first = run(self.make(config), 5)
        np.random.seed(1)
        random.seed(1)
        assert same(first, run(self.make(config), 5))

    def test_another_key_asks_otherwise(self, config: Settings) -> None:
        if self.draws_nothing(config):
            pytest.skip("a deterministic method")
        assert not same(run(self.make(config), 5), run(self.make(config, (7, "trial-b", 0)), 5))

    def test_global_generators_are_left_alone(self, config: Settings) -> None:
        np.random.seed(3)
        random.seed(3)
        expected = np.random.RandomState(3).random_sample(), random.Random(3).random()
        optimizer = self.make(config)
        run(optimizer, 2)
        other = self.make(config)
        other.load_state_dict(optimizer.state_dict())
        assert (np.random.random_sample(), random.random()) == expected

    @pytest.mark.parametrize("before", [0, 6])
    def test_a_clone_equals_its_original(self, config: Settings, before: int) -> None:
        original = self.make(config)
        run(original, before)
        state = decode(encode(original.state_dict()), "the state")
        clone = self.make(config)
        run(clone, 1)  # what a clone did before does not matter
        clone.load_state_dict(state)
        assert clone.steps_told == before
        assert clone.metrics() == original.metrics()
        assert clone.stop_reason == original.stop_reason
        np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))
        assert same(run(clone, 3), run(original, 3))
        np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))

    def test_a_clone_brings_its_start_along(self, config: Settings) -> None:
        original = self.make(config, start=self.place(config, np.full(DIM, 0.25, dtype=np.float32)))
        run(original, 2)
        clone = self.make(config)
        clone.load_state_dict(original.state_dict())
        assert same(run(clone, 2), run(original, 2))

    def test_a_clone_under_another_key_goes_on_with_noise_of_its_own(self, config: Settings) -> None:
        original, clone = self.make(config), self.make(config, (7, "trial-b", 0))
        run(original, 4)
        clone.load_state_dict(original.state_dict())
        np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))
        assert same(run(clone, 10), run(original, 10)) == self.clones_go_on_alike(config)

    def test_a_clone_shares_nothing_with_its_original(self, config: Settings) -> None:
        original, twin = self.make(config), self.make(config)
        run(original, 3)
        run(twin, 3)
        state = original.state_dict()
        clone = self.make(config)
        clone.load_state_dict(state)
        for value in state.values():
            if isinstance(value, np.ndarray) and value.size:
                value.fill(9)
        run(clone, 2, lambda x: float(x.sum()))
        assert same(run(original, 3), run(twin, 3))

    def test_beats_its_start_within_500_queries(self, config: Settings) -> None:
        optimizer = self.make(config)
        start = sphere(materialise(optimizer.recommend()))
        queries = 0
        while sphere(materialise(optimizer.recommend())) >= 0.95 * start:
            queries += len(run(optimizer, 1))
            assert queries < 500

    def test_asks_no_more_than_it_announces(self, config: Settings) -> None:
        optimizer = self.make(config)
        asked = optimizer.ask()
        assert 1 <= len(asked) <= optimizer.queries_per_step

    def test_the_protocol_is_enforced_and_refusals_change_nothing(self, config: Settings) -> None:
        optimizer, twin = self.make(config), self.make(config)
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
            wrong: tuple[Any, ...] = (None, np.zeros(DIM), np.zeros((1, DIM + 1)))
            for missing in wrong:
                with pytest.raises(ConfigError, match=rf"gradients of shape \(1, {DIM}\)"):
                    optimizer.tell([1.0], missing)
        else:
            with pytest.raises(ConfigError, match="from losses alone"):
                optimizer.tell([1.0] * len(asked), np.zeros((len(asked), DIM), dtype=np.float32))
        self._require_answers_checked(optimizer, [1.0] * len(asked), gradients)
        for moving in (optimizer.relocate, lambda x: optimizer.inject(x, 1.0, 1.0)):
            with pytest.raises(ConfigError, match="between steps"):
                moving(np.zeros(DIM, dtype=np.float32))
        assert optimizer.steps_told == 0
        losses = [float(i) for i in range(len(asked))]
        for one in (optimizer, twin):
            answer(one, [materialise(candidate) for candidate in (asked if one is optimizer else one.ask())], losses)
        assert same(run(optimizer, 2), run(twin, 2))

    def _require_answers_checked(self, optimizer: Optimizer, losses: list[float], gradients: Array | None) -> None:
        """Check that answers come to who wants them, of the right shape, and to no one else."""
        if not optimizer.wants_answers:
            with pytest.raises(ConfigError, match="wants_answers = False and was told some"):
                optimizer.tell(losses, gradients, Answers(np.zeros((len(losses), 1, 2), dtype=np.float32), TRAIN))
            return
        with pytest.raises(ConfigError, match="wants_answers = True and was told none"):
            optimizer.tell(losses)
        with pytest.raises(ConfigError, match="answers are label-word logits"):
            optimizer.tell(losses, answers=Answers(np.zeros((len(losses), 1, 3), dtype=np.float32), TRAIN))
        with pytest.raises(ConfigError, match="no label words"):
            optimizer.tell(
                losses, answers=Answers(np.zeros((len(losses), 1, 0), dtype=np.float32), replace(TRAIN, label_words=()))
            )

    def test_survives_failed_queries_and_never_recommends_one(self, config: Settings) -> None:
        optimizer = self.make(config)
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

    def test_a_step_of_failures_alone_keeps_the_recommendation(self, config: Settings) -> None:
        def fail(optimizer: Optimizer) -> None:
            nothing = np.full((1, DIM), np.nan, dtype=np.float32) if optimizer.white_box else None
            losses = [np.nan] * len(optimizer.ask())
            optimizer.tell(losses, nothing, answers_of(optimizer, losses))

        optimizer = self.make(config)
        before = materialise(optimizer.recommend()).copy()
        for _ in range(2):
            fail(optimizer)
            np.testing.assert_array_equal(materialise(optimizer.recommend()), before)
        assert optimizer.steps_told == 2
        run(optimizer, 4)
        before = materialise(optimizer.recommend()).copy()
        fail(optimizer)
        if not self.learns_from_failures(config):
            np.testing.assert_array_equal(materialise(optimizer.recommend()), before)

    def test_arrays_that_are_handed_in_or_out_are_safe(self, config: Settings) -> None:
        start = np.full(DIM, 0.25, dtype=np.float32)
        kept = start.copy()
        optimizer = self.make(config, start=self.place(config, start))
        np.testing.assert_array_equal(materialise(optimizer.recommend()), kept)
        twin = self.make(config, start=self.place(config, kept))
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
            holder = candidate.center if isinstance(candidate, Perturbation) else candidate
            array: Any = getattr(holder, "z", None) if isinstance(holder, Latent) else getattr(holder, "vector", None)
            assert array is not start
            assert array.dtype == np.float32
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1.0

    def test_candidates_are_small_recipes_that_pickle(self, config: Settings) -> None:
        for candidate in self.make(config).ask():
            again = pickle.loads(pickle.dumps(candidate))
            np.testing.assert_array_equal(materialise(again), materialise(candidate))

    def test_a_state_of_another_kind_or_size_is_refused(self, config: Settings) -> None:
        other: Settings = RandomSearchConfig() if config.kind != "random_search" else ZotConfig()
        with pytest.raises(ConfigError, match="kind"):
            self.make(config).load_state_dict(self.make(other).state_dict())
        with pytest.raises(ConfigError, match="dim"):
            self.make(config).load_state_dict(self.make(config, dim=DIM + 1).state_dict())

    def test_its_settings_say_what_a_run_reads_of_them(self, config: Settings) -> None:
        optimizer = self.make(config)
        assert config.is_discrete == optimizer.is_discrete
        assert optimizer.kind and config.label
        assert config.resolved({}).unresolved == ()
        assert config.radius is None or config.radius > 0

    def test_a_run_can_calibrate_it_and_check_rehearses_it(self, config: Settings) -> None:
        task = build_demo(DemoTaskConfig())
        prompt = TextPromptConfig(kind="text") if config.is_discrete else SoftPromptConfig(layout="prefix")
        space = prompt_space(prompt, task, 2)
        Rehearsal().take(config, space, task.batch("train"), 0, STEPS)
        if config.is_discrete or isinstance(config, FirstOrder):
            return
        case = Case(config, 0, 0, task, space.spec)
        assert 1 <= len(case.batch(DIM).examples) <= len(task.train)
        asks = case.asks(DIM)
        points = [[materialise(candidate) for candidate in ask] for ask in asks]
        assert np.isfinite(points).all() and np.shape(points) == (len(asks), 2, DIM)
        assert self.draws_nothing(config) or not same(points[0], points[1])

    @pytest.mark.parametrize("before", [0, 4])
    def test_a_moved_optimizer_stands_at_the_new_point_and_goes_on_there(self, config: Settings, before: int) -> None:
        optimizer = self.make(config)
        run(optimizer, before)
        point = ELSEWHERE.copy()
        optimizer.relocate(self.place(config, point))
        point.fill(7)
        np.testing.assert_array_equal(materialise(optimizer.recommend()), ELSEWHERE)
        assert optimizer.steps_told == before
        queries = 0
        while sphere(materialise(optimizer.recommend())) >= sphere(ELSEWHERE):
            queries += len(run(optimizer, 1))
            assert queries < 500

    @pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (4, 3)])
    def test_a_moved_optimizer_is_restored_to_the_same_bits(self, config: Settings, before: int, after: int) -> None:
        original = self.make(config)
        run(original, before)
        original.relocate(self.place(config, ELSEWHERE))
        run(original, after)
        clone = self.make(config)
        run(clone, 1)
        clone.load_state_dict(decode(encode(original.state_dict()), "the state"))
        np.testing.assert_array_equal(materialise(clone.recommend()), materialise(original.recommend()))
        assert same(run(clone, 3), run(original, 3))

    def test_where_it_is_moved_to_is_checked(self, config: Settings) -> None:
        optimizer, twin = self.make(config), self.make(config)
        with pytest.raises(ConfigError, match="a place in the space that it searches"):
            optimizer.relocate(np.zeros(DIM, dtype=np.float32) if config.is_discrete else "0.5 0.5")
        others: tuple[Any, ...] = (np.zeros(DIM + 1), np.zeros((1, DIM)), np.full(DIM, np.nan))
        for wrong in () if config.is_discrete else others:
            with pytest.raises(ConfigError, match=f"{DIM} finite coordinates"):
                optimizer.relocate(wrong)
        assert same(run(optimizer, 2), run(twin, 2))
