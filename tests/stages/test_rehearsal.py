"""Rehearsal of searches: errors of optimizers are found before a run, as ``check`` does it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from local_trials import make_experiment, make_task
from tiny_models import save_tiny

from distributed_tuner import optimizers
from distributed_tuner.config.first_order import SgdConfig
from distributed_tuner.config.optimizer import CmaConfig, OptimizerSettings, RandomSearchConfig, ZotConfig
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.errors import ConfigError, ModelError, OptimizerError
from distributed_tuner.optimizers import Optimizer
from distributed_tuner.preflight.precision_cases import cases
from distributed_tuner.preflight.prepare import prepare, prepare_plans
from distributed_tuner.preflight.rehearsal import QUERIES, Rehearsal
from distributed_tuner.stages.prompt_space import SoftSpace
from distributed_tuner.values import Array, Array64, Candidate, Embedded, Point, PromptSpec, Text

SPACE = SoftSpace(PromptSpec(2, "zeros", "", "prefix", "paper"), 6)
TRAIN = make_task().batch("train")


class HillConfig(OptimizerSettings):
    """A new kind, which says of its settings no more than it must: it has no sigma."""

    kind: Literal["hill"] = "hill"
    stride: float = 0.5


class Hill(Optimizer):
    """Steps to a neighbour where it is better."""

    kind: ClassVar[str] = "hill"

    def __init__(self, config: HillConfig, *, dim: int, key: tuple[int | str, ...], start: Array) -> None:
        super().__init__(dim, key)
        self._stride = config.stride
        self._x = start

    @property
    def queries_per_step(self) -> int:
        return 2

    def recommend(self) -> Candidate:
        return Point(self._x)

    def _ask(self) -> list[Candidate]:
        beside = np.random.default_rng(self.steps_told).standard_normal(self.dim).astype(np.float32)
        return [Point(self._x), Point(self._x + np.float32(self._stride) * beside)]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        best = candidates[int(np.nanargmin(losses))]
        assert isinstance(best, Point)
        self._x = best.vector

    def _relocate(self, x: Array) -> None:
        self._x = x

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy()}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = state["x"].copy()


@pytest.fixture
def new_kind(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Hill]], HillConfig]:
    """Have a class built for the new kind, as a line in ``build`` would."""

    def use(optimizer: type[Hill]) -> HillConfig:
        known = optimizers.build

        def build(config: Any, *, dim: int, key: Any, start: Any = None, **more: Any) -> Optimizer:
            if isinstance(config, HillConfig):
                x = np.zeros(dim, dtype=np.float32) if start is None else start
                return optimizer(config, dim=dim, key=key, start=x)
            return known(config, dim=dim, key=key, start=start, **more)

        monkeypatch.setattr(optimizers, "build", build)
        return HillConfig()

    return use


def searching(config: Any) -> SearchStageConfig:
    return SearchStageConfig.model_construct(kind="search", optimizer=config)


# -------------------------------------------------------------------------------------------------------- a new kind
def test_a_new_kind_says_nothing_of_its_radius_and_is_calibrated_all_the_same(new_kind: Any) -> None:
    experiment, task = make_experiment({"kind": "zot"}, budget={"queries": 60}), make_task()
    stage = searching(new_kind(Hill))
    (case,) = cases([experiment.model_copy(update={"stages": (stage,)})], [task])
    assert (case.optimizer.radius_setting, case.optimizer.radius) == (None, None)
    assert [len(ask) for ask in case.asks(6)] == [2, 2, 2, 2]
    assert len(case.batch(6).examples) == len(task.train)


def test_a_new_kind_passes_check_on_a_bfloat16_model(new_kind: Any, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(
        "\n".join(json.dumps({"text": f"film {i}", "label": i % 2}) for i in range(12))
    )
    space = {
        "name": "tiny",
        "task": {
            **{"kind": "file", "train": "data.jsonl", "text": "text", "label": "label", "shots": 2},
            **{"template": "{text} It was{label_word}", "label_words": {"0": " bad", "1": " good"}},
        },
        "oracle": {"kind": "transformers", "model": str(save_tiny("llama", tmp_path / "model")), "dtype": "bfloat16"},
        "prompt": {"length": 2, "init": "vocab", "layout": "prefix"},
        "stages": [{"kind": "search", "optimizer": {"kind": "zot"}}],
        "budget": {"queries": 60},
    }
    path = tmp_path / "space.yaml"
    path.write_text(json.dumps(space))
    (plan,) = prepare(path, []).plans
    changed = plan.experiment.model_copy(update={"stages": (searching(new_kind(Hill)),)})
    prepared = prepare_plans([type(plan)(plan.trial_id, 0, "hill", {}, changed)], tmp_path)
    assert prepared.calibration.queries == 24


# ------------------------------------------------------------------------------------------------- broken contracts
class AsksNothing(Hill):
    def _ask(self) -> list[Candidate]:
        return []


class AsksTooMany(Hill):
    def _ask(self) -> list[Candidate]:
        return super()._ask() * 2


class AsksInWords(Hill):
    def _ask(self) -> list[Candidate]:
        return [Text("some words")]


class RaisesWhenAsked(Hill):
    def _ask(self) -> list[Candidate]:
        raise KeyError("of its own")


class RaisesWhenTold(Hill):
    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        if self.steps_told == 1:
            raise ZeroDivisionError("a mean of nothing")


class CannotBeRestored(Hill):
    def _load(self, state: dict[str, Any]) -> None:
        self._x = state["nothing of the kind"]


class RecommendsNothing(Hill):
    def recommend(self) -> Candidate:
        raise IndexError("nothing was found")


class SavesAnObject(Hill):
    def _save(self) -> dict[str, Any]:
        return {"generator": np.random.default_rng(0)}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (AsksNothing, "between 1 candidate and queries_per_step, which hill says is 2, but it proposed 0 in step 0"),
        (AsksTooMany, "which hill says is 2, but it proposed 4 in step 0"),
        (AsksInWords, r"Point, Perturbation or Latent, but hill proposed Text in step 0; .* is_discrete = True"),
        (
            RaisesWhenAsked,
            r"must propose candidates, but in step 0 hill raised KeyError: .*test_rehearsal.py, line \d+",
        ),
        (RaisesWhenTold, "must learn from losses, but in step 1 hill raised ZeroDivisionError: a mean of nothing"),
        (CannotBeRestored, "must be recommended from, saved and restored, but in step 6 hill raised KeyError"),
        (RecommendsNothing, "must be recommended from, .* hill raised IndexError: nothing was found"),
        (SavesAnObject, "state is numbers, strings, arrays, .* but that of hill is not .*Generator"),
    ],
)
def test_a_broken_contract_is_told_in_one_line(broken: type[Hill], message: str, new_kind: Any) -> None:
    with pytest.raises(OptimizerError, match=message) as caught:
        Rehearsal().take(new_kind(broken), SPACE, TRAIN, 0, 50)
    assert "\n" not in str(caught.value)


def test_an_embedded_text_is_a_soft_candidate(new_kind: Any) -> None:
    class Embeds(Hill):
        def _ask(self) -> list[Candidate]:
            return [Embedded("some words"), Point(self._x)]

        def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
            return None

    Rehearsal().take(new_kind(Embeds), SPACE, TRAIN, 0, 50)


# ------------------------------------------------------------------------------------------------- what is rehearsed
def test_a_search_that_does_not_fit_into_memory_is_told_what_is_too_large(new_kind: Any) -> None:
    class Large(Hill):
        def _ask(self) -> list[Candidate]:
            raise MemoryError("Unable to allocate 298. GiB")

    with pytest.raises(OptimizerError, match=r"hill does not \(Unable to allocate 298. GiB\); search fewer dimensions"):
        Rehearsal().take(new_kind(Large), SPACE, TRAIN, 0, 50)


@pytest.mark.parametrize("config", [CmaConfig(sigma=1e300), RandomSearchConfig(sigma=1e39), ZotConfig(rho=1e-60)])
def test_a_distance_that_coordinates_cannot_hold_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match=f"{config.radius_setting} of {config.kind} must lie between 1e-30 and 1e"):
        Rehearsal().take(config, SPACE, TRAIN, 0, 50)


def test_steps_that_lead_out_of_what_coordinates_can_hold_are_refused() -> None:
    for config in (ZotConfig(learning_rate=1e40, clip=0), SgdConfig(learning_rate=1e40)):
        with pytest.raises(OptimizerError, match=f"finite 32-bit floats, but those that {config.kind} goes on"):
            Rehearsal().take(config, SPACE, TRAIN, 0, 50)


def test_a_race_with_nobody_to_stop_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "{name: some, task: {kind: demo, shots: 4}, oracle: {kind: analytic}, prompt: {length: 2, init: zeros},"
        " stages: [{kind: search, optimizer: {kind: cma, intrinsic_dim: 4, race_block: 4}}], budget: {queries: 100}}"
    )
    prepare(path, [])
    prepare(path, ["optimizer.race_block=!grid [4, 16]"])
    with pytest.raises(
        ConfigError, match="it is 16 and train has 16 rows, so that no candidate would be raced; set 4, say"
    ):
        prepare(path, ["optimizer.race_block=16"])


def test_searches_that_differ_in_real_numbers_alone_are_rehearsed_once(new_kind: Any) -> None:
    asked: list[int] = []

    class Counts(Hill):
        def _ask(self) -> list[Candidate]:
            asked.append(self.steps_told)
            return super()._ask()

    config, rehearsal = new_kind(Counts), Rehearsal()
    for stride in (0.5, 0.25):
        rehearsal.take(config.model_copy(update={"stride": stride}), SPACE, TRAIN, 0, 50)
    assert len(asked) == QUERIES // 2 + 1  # and once more, restored
    rehearsal.take(config, SoftSpace(SPACE.spec, 8), TRAIN, 0, 50)
    assert len(asked) == 2 * (QUERIES // 2 + 1)


def test_what_is_left_to_be_measured_is_rehearsed_with_the_defaults() -> None:
    Rehearsal().take(ZotConfig(points="auto", rho="auto", learning_rate="auto"), SPACE, TRAIN, 0, 50)


def test_check_says_what_the_run_would_find_out(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "{name: some, task: {kind: demo}, oracle: {kind: analytic}, prompt: {length: 2, init: zeros},"
        " stages: [{kind: search, optimizer: {kind: nevergrad, optimizer: NLOPT_LN_SBPLX, intrinsic_dim: 4,"
        " num_workers: 1}}], budget: {queries: 100}}"
    )
    with pytest.raises(ConfigError, match="needs the package nlopt"):
        prepare(path, [])
    prepare(path, ["stages.0.optimizer.optimizer=Powell"])
    for optimizer in (CmaConfig(popsize=4, step_size="tpa"), CmaConfig(popsize=2)):
        Rehearsal().take(optimizer, SPACE, TRAIN, 0, 50)


SERVED = (
    "{name: some, task: {kind: demo}, oracle: {kind: openai, model: some}, prompt: {kind: text},"
    " stages: [{kind: search, optimizer: {kind: token_edit}}], budget: {queries: 100}}"
)


def test_check_knows_that_a_tokenizer_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SERVED)
    for vocabulary in ("words", "printable"):
        with pytest.raises(ModelError, match=f"prompt.vocabulary: {vocabulary} takes the words of the model's tok"):
            prepare(path, [f"prompt.vocabulary={vocabulary}"])
    for vocabulary in ("task", "auto"):
        prepare(path, [f"prompt.vocabulary={vocabulary}"])


def test_an_optimizer_that_cannot_be_made_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **settings: Any) -> Any:
        raise LookupError("no such thing")

    monkeypatch.setattr(optimizers, "RandomSearch", broken)
    with pytest.raises(OptimizerError, match="must be made of its settings, but in step 0 random_search raised Lookup"):
        optimizers.build(RandomSearchConfig(), dim=4, key=(1,), steps=1)
