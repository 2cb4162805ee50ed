"""Trials whose prompt is in words: searched, restarted from proposals, evaluated and measured like soft ones."""

from typing import Any

import pytest
from local_trials import Scripted, TimedOracle, evals_of, make_experiment, make_task, make_trial, measures_of, paid, run

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.errors import ConfigError
from distributed_tuner.ledger.rows import FeedbackRow, RestartRow
from distributed_tuner.preflight.compatibility import require_sound
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.prompt_space import WordSpace, prompt_space
from distributed_tuner.values import Text

TOKEN_EDIT: dict[str, Any] = {"kind": "token_edit", "popsize": 4}
DISCRETE: dict[str, Any] = {"kind": "nevergrad", "space": "words", "optimizer": "DiscreteOnePlusOne", "words": 20}
WORD_PROMPT: dict[str, Any] = {"kind": "text", "length": 5, "vocabulary": "task"}
RESTART: dict[str, Any] = {"kind": "restart", "proposer": {"kind": "random"}}


def is_discrete(optimizer: dict[str, Any], queries: int = 60, **more: Any) -> Experiment:
    return make_experiment(optimizer, budget={"queries": queries}, prompt=WORD_PROMPT, **more)


@pytest.mark.parametrize("optimizer", [TOKEN_EDIT, DISCRETE], ids=["token_edit", "nevergrad"])
def test_a_search_in_words_starts_from_the_manual_prompt_and_finds_a_better_one(optimizer: dict[str, Any]) -> None:
    oracle = TimedOracle(experiment := is_discrete(optimizer, queries=120))
    trial = make_trial(experiment, oracle=oracle)
    rows = run(trial)
    first, *_ = evals_of(rows)
    assert first.text == "Judge."
    assert trial.selected is not None and first.train_loss is not None
    assert trial.selected.train_loss < first.train_loss
    best = trial.selected_prompt()
    assert best == [evaluation.text for evaluation in evals_of(rows) if evaluation.selected][-1]
    assert paid(rows).queries <= 120
    (test,) = measures_of(rows)
    asked = oracle.asked[-1]
    assert asked.prompt == NO_ROWS and asked.candidates == (Text(str(best)),) and test.split == "test"


def test_a_restored_trial_in_words_goes_on_with_the_same_bits() -> None:
    experiment = is_discrete(TOKEN_EDIT)
    whole = run(make_trial(experiment))
    first, second = make_trial(experiment), make_trial(experiment)
    rows = [row for _ in range(7) for row in first.advance()]
    second.load_state_dict(first.state_dict())
    timeless = [row.model_dump(exclude={"time", "elapsed"}) for row in (*rows, *run(second))]
    assert timeless == [row.model_dump(exclude={"time", "elapsed"}) for row in whole]


def test_an_llm_reads_the_words_as_they_are_and_its_proposal_is_where_the_search_goes_on() -> None:
    search = {"kind": "search", "optimizer": TOKEN_EDIT, "eval_every": 20, "steps": 4}
    experiment = is_discrete(TOKEN_EDIT, queries=90, stages=[search, RESTART | {"adopt": "always"}, search])
    proposer = Scripted(["good great fine bright\nbad awful"])
    rows = run(make_trial(experiment, proposer=proposer))
    (feedback,) = [row for row in rows if isinstance(row, FeedbackRow)]
    assert feedback.texts and all(text.text in proposer.asked[0].instruction for text in feedback.texts)
    (restart,) = [row for row in rows if isinstance(row, RestartRow)]
    assert {text.text for text in restart.scored} == {"good great fine bright", "bad awful"}
    assert restart.adopted == "proposal"
    assert next(evaluation.text for evaluation in evals_of(rows) if evaluation.stage == 2) == restart.text


def test_an_llm_alone_tunes_words() -> None:
    experiment = is_discrete(TOKEN_EDIT, stages=[RESTART, RESTART])
    rows = run(make_trial(experiment, proposer=Scripted(["good great", "fine bright"])))
    assert {evaluation.text for evaluation in evals_of(rows)} <= {"Judge.", "good great", "fine bright"}
    assert len(evals_of(rows)) == 2


def test_a_laggard_takes_over_words() -> None:
    search = {"kind": "search", "optimizer": TOKEN_EDIT, "eval_every": 20, "steps": 2}
    schedule = {"kind": "population"}
    experiment = is_discrete(TOKEN_EDIT, stages=[search, RESTART, search], schedule=schedule)
    trial = make_trial(experiment, proposer=Scripted(["nothing that helps"]))
    while not trial.waiting:
        trial.advance()
    trial.take_over(Exploit("r", "other", {}, "good great bright fine", ()))
    rows = run(trial)
    (restart,) = [row for row in rows if isinstance(row, RestartRow)]
    adopted = {"source_trial": "good great bright fine", "proposal": "nothing that helps"}[restart.adopted]
    assert restart.text == adopted
    assert next(evaluation.text for evaluation in evals_of(rows) if evaluation.stage == 2) == adopted


def test_words_come_from_the_tokenizer_or_else_from_the_task() -> None:
    experiment, task = is_discrete(TOKEN_EDIT), make_task()
    space = prompt_space(experiment.prompt, task, 3)
    assert isinstance(space, WordSpace)
    assert {"Judge", "words", "bad", "good"} <= set(space.vocabulary(TimedOracle(experiment)))
    automatic = prompt_space(experiment.prompt.model_copy(update={"vocabulary": "auto"}), task, 3)
    assert " <7>" in automatic.vocabulary(TimedOracle(experiment))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": {"length": 2, "init": "zeros", "layout": "prefix"}}, "token_edit searches words"),
        ({"stages": [{"kind": "search", "optimizer": {"kind": "zot"}}]}, "zot searches soft prompts"),
        ({"stages": [{"kind": "gradient", "optimizer": {"kind": "adamw"}}]}, "adamw searches soft prompts"),
        ({"stages": [RESTART | {"reproduce_paper": True}]}, "reproduce_paper"),
    ],
)
def test_a_search_of_the_other_sort_is_refused(changes: dict[str, Any], said: str, tmp_path: Any) -> None:
    experiment = make_experiment(TOKEN_EDIT, budget={"queries": 60}, **{"prompt": WORD_PROMPT} | changes)
    with pytest.raises(ConfigError, match=said):
        require_sound(experiment, make_task(), tmp_path)
