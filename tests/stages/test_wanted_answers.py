"""Answers that reach an optimizer that wants them, and what is refused before a run where there are none to have."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from local_trials import TimedOracle, make_experiment, make_task, make_trial, run, steps_of, travelled

from distributed_tuner.config.optimizer import SurrogateConfig
from distributed_tuner.custom import path_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.optimizers.base import Race, frozen_copy
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.preflight.rehearsal import Rehearsal
from distributed_tuner.seeds import Key, generator
from distributed_tuner.stages.prompt_space import SoftSpace
from distributed_tuner.values import Answers, Array, Array64, Candidate, Point, PromptSpec, Request

SURROGATE = {"kind": "surrogate", "of": "answers", "popsize": 6}
SPACE = SoftSpace(PromptSpec(2, "zeros", "", "prefix", "paper"), 6)


class Listener(Optimizer):
    """Draws around its start on mini-batches, and keeps what it was told."""

    wants_answers = True
    heard: ClassVar[list[tuple[Array64, Answers]]] = []

    def __init__(self, *, dim: int, key: Key, steps: int, start: Array, size: int | None = None) -> None:
        super().__init__(dim, key)
        self._x, self._size = frozen_copy(start), size

    @property
    def queries_per_step(self) -> int:
        return 2

    @property
    def batch_size(self) -> int | None:
        return self._size

    def recommend(self) -> Candidate:
        return Point(self._x)

    def _ask(self) -> list[Candidate]:
        z = generator((*self.key, self.steps_told)).standard_normal((2, self.dim))
        return [Point(frozen_copy(one)) for one in z]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        raise AssertionError("answers come with losses")

    def _tell_answers(self, candidates: tuple[Candidate, ...], losses: Array64, answers: Answers) -> None:
        self.heard.append((losses, answers))

    def _relocate(self, x: Array) -> None:
        self._x = x

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy()}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = frozen_copy(state["x"])


class Racer(Listener):
    """Wants answers, and races."""

    @property
    def race(self) -> Race | None:
        return Race(4, 1)


@pytest.fixture
def heard() -> Iterator[list[tuple[Array64, Answers]]]:
    yield Listener.heard
    Listener.heard.clear()


def own(part: type[Optimizer] = Listener, **settings: Any) -> dict[str, Any]:
    return {"kind": "custom", "import_path": path_of(part), "settings": settings}


# ------------------------------------------------------------------------------------------------- what is told
def test_an_optimizer_is_told_the_answers_that_its_losses_are_of(heard: list[tuple[Array64, Answers]]) -> None:
    experiment = make_experiment(own(size=5), budget={"queries": 30})
    oracle = TimedOracle(experiment)
    rows = run(make_trial(experiment, oracle=oracle))
    steps = [request for request in oracle.asked if len(request.candidates) == 2]
    assert len(heard) == len(steps) == len(steps_of(rows))
    for request, (losses, answers) in zip(steps, heard, strict=True):
        assert answers.batch == request.batch  # whose uids say which examples a mini-batch has
        again = oracle.evaluate(request)
        np.testing.assert_array_equal(answers.logits, again.logits)
        np.testing.assert_array_equal(losses, again.losses)
    assert len({answers.batch.examples for _, answers in heard}) > 1


def test_failed_answers_are_nan_and_refused_rows_zero(heard: list[tuple[Array64, Answers]]) -> None:
    def spoil(request: Request, logits: Array) -> Array:
        if len(request.candidates) == 2:
            logits[0, 3], logits[1, 2] = np.nan, -np.inf
        return logits

    experiment = make_experiment(own(), budget={"queries": 20})
    run(make_trial(experiment, oracle=TimedOracle(experiment, spoil=spoil)))
    for losses, answers in heard:
        assert np.isnan(losses).tolist() == [True, False]
        assert np.isnan(answers.logits[0, 3]).all() and not answers.logits[1, 2].any()


def test_a_surrogate_of_answers_is_resumed_to_the_same_bits() -> None:
    experiment = make_experiment(SURROGATE, budget={"queries": 60}, objective={"head": "bias"})
    whole = run(make_trial(experiment))
    losses = [row.loss for row in steps_of(whole)]
    assert len(losses) > 6 and steps_of(whole)[-1].metrics["best_loss"] < steps_of(whole)[0].metrics["best_loss"]
    trial = make_trial(experiment)
    before = [row for _ in range(5) for row in trial.advance()]
    other = make_trial(experiment)
    other.load_state_dict(travelled(trial.state_dict()))
    assert [row.loss for row in steps_of([*before, *run(other)])] == losses


# ------------------------------------------------------------------------------------------------- what is refused
def space(path: Path, text: str) -> Path:
    path.write_text(
        "{name: some, task: {kind: demo, shots: 4}, oracle: {kind: analytic}, prompt: {length: 2, init: zeros},"
        f" stages: [{{kind: search, optimizer: {{kind: surrogate, of: answers}}}}], budget: {{queries: 100}}{text}}}"
    )
    return path


def test_check_refuses_a_loss_that_cannot_be_computed_from_expected_answers(tmp_path: Path) -> None:
    prepare(space(tmp_path / "a.yaml", ""), [])
    prepare(space(tmp_path / "b.yaml", ", objective: {head: bias}"), [])
    with pytest.raises(ConfigError, match=r"needs a loss with a slope, but .* objective\.score leave_one_out; set"):
        prepare(space(tmp_path / "c.yaml", ", objective: {head: bias, score: leave_one_out}"), [])
    with pytest.raises(ConfigError, match=r"needs a loss with a slope, but task\.loss is zero_one"):
        prepare(space(tmp_path / "d.yaml", ""), ["task.loss=zero_one"])


def test_a_task_without_label_words_is_refused() -> None:
    targets = replace(make_task().batch("train"), label_words=())
    with pytest.raises(ConfigError, match="surrogate learns from the scores of label words, but this task has targets"):
        Rehearsal().take(SurrogateConfig(of="answers"), SPACE, targets, 0, 50)
    Rehearsal().take(SurrogateConfig(), SPACE, targets, 0, 50)


def test_an_optimizer_that_wants_answers_does_not_race() -> None:
    experiment = make_experiment(own(Racer), budget={"queries": 20})
    with pytest.raises(ConfigError, match="races its candidates; leave out race, or wants_answers"):
        build(experiment.stages[0].optimizer, dim=6, key=(0,), steps=5)
