"""The screen before the search: what is tried, what wins, and that it is paid for."""

from typing import Any

import numpy as np
import pytest
from local_trials import OPTIMIZERS, looks_of, make_experiment, make_task, make_trial, paid, run, travelled

from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.config.stage import ScreenStageConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import BudgetTooSmall, ConfigError
from distributed_tuner.ledger.rows import Row, ScreenRow
from distributed_tuner.prompts.spec import framed, unframed
from distributed_tuner.report import words
from distributed_tuner.stages.screen import demonstrated, drawn, instructions, longest_prompt, screen_queries
from distributed_tuner.values import Text

SCREEN = {"instructions": ["Good or bad?"], "demonstrations": [2], "orders": 1, "instructions_kept": 1}
TASK = make_task()


def screened(budget: int = 80, **more: Any) -> Any:
    return make_experiment(OPTIMIZERS["random_search"], budget={"queries": budget}, screen=SCREEN, **more)


def screens_of(rows: list[Row]) -> list[ScreenRow]:
    return [row for row in rows if isinstance(row, ScreenRow)]


def test_a_screen_is_written_as_the_first_stage() -> None:
    stages = [{"kind": "screen", **SCREEN}, {"kind": "search", "optimizer": OPTIMIZERS["cma"]}]
    tree = screened().model_dump() | {"screen": None, "stages": stages}
    assert experiment_of(tree).screen == ScreenStageConfig.model_validate(SCREEN)
    with pytest.raises(ConfigError, match="comes first"):
        experiment_of(tree | {"stages": stages[::-1]})


def test_each_instruction_is_tried_once_and_the_manual_prompt_first() -> None:
    config = ScreenStageConfig(instructions=("Judge.", "Good or bad?"))
    tried = instructions(config, TASK)
    assert tried[:2] == ["Judge.", "Good or bad?"] and len(set(tried)) == len(tried)
    assert "" in tried and any("bad or good" in text for text in tried)
    assert instructions(ScreenStageConfig(patterns=False), TASK) == ["Judge."]


def test_demonstrations_are_spread_over_the_labels_and_leave_rows_to_fit_to() -> None:
    shown = drawn(TASK, 4, (0, "a"))
    labels = [TASK.train[i].label for i in shown]
    assert len(set(shown)) == 4 and sorted(labels) == [0, 0, 1, 1]
    assert shown == drawn(TASK, 4, (0, "a")) != drawn(TASK, 4, (0, "b"))
    assert drawn(TASK, 9, (0, "a")) == (), "fewer than two rows of a label would be left"
    text = demonstrated("Judge.", [TASK.train[i] for i in shown], TASK)
    assert text.startswith("Judge.\n\n") and text.count(" It was ") == 4


def test_a_screen_asks_what_it_says_and_the_search_starts_from_its_best_instruction() -> None:
    experiment = screened()
    trial = make_trial(experiment)
    rows = run(trial)
    (screen,) = screens_of(rows)
    assert screen.cost.queries == screen_queries(experiment.screen, TASK) == len(screen.texts)
    losses = [one.loss for one in screen.texts]
    assert losses == sorted(losses)  # type: ignore[type-var]
    assert screen.instruction == next(one.text for one in screen.texts if one.text and not one.demonstrations)
    first, second = looks_of(rows)[:2]
    assert first.screen and first.text == screen.texts[0].text and not second.screen
    assert paid(rows).queries <= 80
    assert words.screen(screen).startswith(f"{len(screen.texts)} prompts after {screen.cost.queries} queries")


def test_a_prompt_in_words_may_be_what_a_soft_search_ends_with() -> None:
    experiment = make_experiment(
        {"kind": "random_search", "popsize": 4, "sigma": 1e-6}, budget={"queries": 60}, screen=SCREEN
    )
    trial = make_trial(experiment)
    rows = run(trial)
    best = min((row for row in looks_of(rows)), key=lambda row: row.score)  # type: ignore[arg-type,return-value]
    assert trial.selected is not None
    assert isinstance(trial.selected.candidate, Text) is (best.text is not None)
    kept = trial.selected_prompt()
    assert isinstance(kept, str) is isinstance(trial.selected.candidate, Text)


def test_rows_that_stand_in_a_prompt_tell_nothing_of_it() -> None:
    rows = run(make_trial(screened()))
    look = looks_of(rows)[0]
    (screen,) = screens_of(rows)
    hidden = [loss for loss in look.losses if loss is None]
    assert len(hidden) == screen.texts[0].demonstrations


@pytest.mark.parametrize("calls", [1, 2, 3, 5])
def test_a_trial_goes_on_from_any_point_of_its_screen(calls: int) -> None:
    whole, half = make_trial(screened()), make_trial(screened())
    rows = run(whole)
    before = [row for _ in range(calls) for row in half.advance()]
    again = make_trial(screened())
    again.load_state_dict(travelled(half.state_dict()))
    after = run(again)
    assert [r.type for r in (*before, *after)] == [r.type for r in rows]
    assert whole.selected is not None and again.selected is not None
    assert whole.selected.score == again.selected.score


def test_a_budget_that_pays_for_no_screen_is_refused_at_once() -> None:
    queries = screen_queries(screened().screen, TASK)
    with pytest.raises(BudgetTooSmall, match=rf"the screen before it \({queries + 2} queries\)"):
        make_trial(screened(queries + 8))
    make_trial(screened(queries + 9))


def test_an_instruction_in_front_of_every_text_can_be_taken_away_again() -> None:
    config = SoftPromptConfig(layout="instruction_suffix")
    seen = framed(TASK, config)
    assert seen.train[0].text == f"Judge.\n{TASK.train[0].text}"
    assert unframed(seen, config) == TASK
    assert framed(TASK, SoftPromptConfig(layout="suffix")) is TASK
    assert len(longest_prompt(ScreenStageConfig(), TASK)) > len("Judge.")


def test_the_search_behind_an_instruction_goes_on_from_the_screened_one() -> None:
    experiment = screened(prompt={"length": 2, "init": "zeros", "layout": "instruction_suffix"})
    task = framed(TASK, experiment.prompt)
    trial = make_trial(experiment, task)
    rows = run(trial)
    (screen,) = screens_of(rows)
    asked = {request.batch.examples[0].text.partition("\n")[0] for request in trial._oracle.asked[-3:]}  # type: ignore[attr-defined]
    assert np.isfinite(looks_of(rows)[-1].score or np.nan)
    assert screen.instruction in asked or isinstance(trial.selected.candidate, Text)  # type: ignore[union-attr]
