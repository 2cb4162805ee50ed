"""The ensemble of a trial: which looks are its members, what they come to together, and that it travels."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from local_trials import OPTIMIZERS, TimedOracle, evals_of, make_experiment, make_task, make_trial, run, travelled

from distributed_tuner.ledger.rows import EnsembleRow, Row
from distributed_tuner.maths.heads import mean_log_probabilities
from distributed_tuner.stages.ensemble import Archive, read_together
from distributed_tuner.stages.reading import Read
from distributed_tuner.values import Array, Array64, Request, Text

TASK = make_task()
LABELS = np.array([example.label for example in (*TASK.train, *TASK.dev)])
STREAM = np.random.default_rng(4)
SCREEN = {"instructions": ["Good or bad?"], "demonstrations": [2], "orders": 1, "finalists": 4}


def read_of(lean: float, noise: float = 1.0, hidden: tuple[int, ...] = ()) -> Read:
    """Return a prompt's reading that leans towards the labels, with noise of its own."""
    odds = lean * np.eye(2)[LABELS] + noise * STREAM.standard_normal((len(LABELS), 2))
    out: Array64 = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    out[list(hidden)] = np.nan
    losses = -np.log(out[np.arange(len(LABELS)), LABELS])
    return Read(losses, float(np.nanmean(losses)), 0.5, {"accuracy": 0.5}, 0.5, {}, {}, out)


def archive_of(size: int, *reads: Read) -> Archive:
    archive = Archive(size, lambda candidate: candidate.text)  # type: ignore[union-attr]
    for number, read in enumerate(reads):
        archive.offer(Text(f"prompt {number}"), TASK, read)
    return archive


def ensembles_of(rows: list[Row]) -> list[EnsembleRow]:
    return [row for row in rows if isinstance(row, EnsembleRow)]


def test_the_best_looks_are_members_as_long_as_they_help() -> None:
    reads = [read_of(1.0) for _ in range(6)]
    archive = archive_of(4, *reads, read_of(-9.0))
    best = sorted(range(6), key=lambda number: reads[number].score)
    chosen = [one.prompt for one in archive.chosen]
    assert 2 <= len(chosen) <= 4 and chosen == [f"prompt {number}" for number in best][: len(chosen)]
    (row,) = archive.news("some-0000", TASK)
    assert row.members == len(chosen) and row.score < reads[best[0]].score  # type: ignore[union-attr,operator]
    assert archive.news("some-0000", TASK) == []


def test_a_prompt_that_is_better_alone_is_alone_again() -> None:
    archive = archive_of(3, read_of(0.5), read_of(0.5), read_of(0.5))
    assert archive.chosen and archive.news("some-0000", TASK)
    archive.offer(Text("sure"), TASK, read_of(40.0, 0.0))
    assert archive.chosen == ()
    (row,) = archive.news("some-0000", TASK)
    assert row.members == 0  # type: ignore[union-attr]


def test_the_same_prompt_again_and_one_without_a_score_are_no_members() -> None:
    read, other = read_of(1.0), read_of(1.0)
    lost = replace(read_of(1.0), score=math.nan)
    archive = archive_of(5, read, replace(read), lost, other)
    assert [one.prompt for one in archive.state_dict()["members"]] in (
        ["prompt 0", "prompt 3"],
        ["prompt 3", "prompt 0"],
    )
    assert archive_of(0, read, other).chosen == ()


def test_members_are_weighed_on_rows_that_all_of_them_tell_of() -> None:
    """A row that stands in one's prompt is read by the others."""
    first, second = read_of(1.0, hidden=(0, 1)), read_of(1.0, hidden=(2,))
    together = read_together([first.out, second.out], LABELS, TASK.metrics)
    joined = mean_log_probabilities(np.stack([first.out, second.out]))
    np.testing.assert_allclose(joined[:3], [second.out[0], second.out[1], first.out[2]])
    assert math.isfinite(together.loss) and np.isfinite(joined).all()
    nobody = read_together([first.out, first.out], LABELS, TASK.metrics)
    right = (first.out[2:].argmax(axis=1) == LABELS[2:]).sum()
    assert math.isfinite(nobody.loss) and nobody.metrics["accuracy"] == pytest.approx(right / len(LABELS))


def noisy(request: Request, logits: Array) -> Array:
    """Lean towards the labels, with noise that follows the prompt and the rows."""
    for i, candidate in enumerate(request.candidates):
        for j, example in enumerate(request.batch.examples):
            stream = np.random.default_rng(abs(hash((repr(candidate), example.uid))) % 2**32)
            logits[i, j] = stream.standard_normal(2) + 0.7 * np.eye(2)[example.label]
    return logits


def ensembled(**more: Any) -> Any:
    settings = {"budget": {"queries": 70}, "screen": SCREEN, "head": {"kind": "bias"}, "ensemble": {"size": 3}}
    return make_experiment(OPTIMIZERS["random_search"], **settings | more)


def test_a_trial_tells_of_its_ensemble_and_goes_on_with_it_from_a_checkpoint() -> None:
    """Prompts in words of its screen and soft ones of its search among the members, at no query."""
    experiment = ensembled()
    whole = make_trial(experiment, oracle=TimedOracle(experiment, spoil=noisy))
    rows = run(whole)
    row = ensembles_of(rows)[-1]
    assert 2 <= row.members == len(whole.ensemble) <= 3
    assert row.score < min(evaluation.score for evaluation in evals_of(rows) if evaluation.score is not None)  # type: ignore[operator]
    assert {one.template for one in whole.ensemble} == {""} and {one.label_words for one in whole.ensemble} == {
        (" bad", " good")
    }
    alone = make_experiment(OPTIMIZERS["random_search"], budget={"queries": 70}, screen=SCREEN, head={"kind": "bias"})
    plain = make_trial(alone, oracle=TimedOracle(alone, spoil=noisy))
    assert not ensembles_of(run(plain)) and plain.ensemble == ()
    assert plain.progress()["queries"] == whole.progress()["queries"]
    half = make_trial(experiment, oracle=TimedOracle(experiment, spoil=noisy))
    before: list[Row] = []
    while not half.ensemble:
        before += half.advance()
    again = make_trial(experiment, oracle=TimedOracle(experiment, spoil=noisy))
    again.load_state_dict(travelled(half.state_dict()))
    assert [one.score for one in again.ensemble] == [one.score for one in half.ensemble]
    told = [one.model_dump(exclude={"time"}) for one in ensembles_of([*before, *run(again)])]
    assert told == [one.model_dump(exclude={"time"}) for one in ensembles_of(rows)]


def test_a_state_of_before_there_were_ensembles_is_taken_up() -> None:
    experiment = ensembled()
    trial = make_trial(experiment, oracle=TimedOracle(experiment, spoil=noisy))
    for _ in range(3):
        trial.advance()
    state = travelled(trial.state_dict())
    del state["archive"], state["stage"]["finals"]
    again = make_trial(experiment, oracle=TimedOracle(experiment, spoil=noisy))
    again.load_state_dict(state)
    assert run(again) and again.done
