"""The screen before the search: what is tried, what wins, and that it is paid for."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from local_trials import (
    OPTIMIZERS,
    Scripted,
    TimedOracle,
    evals_of,
    make_experiment,
    make_task,
    make_trial,
    paid,
    run,
    travelled,
)

from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.config.stage import ScreenStageConfig
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import BudgetTooSmall, ConfigError, ProposerError, TaskError
from distributed_tuner.ledger.rows import EventRow, ExchangeRow, RestartRow, Row, ScreenRow
from distributed_tuner.oracles.base import answer
from distributed_tuner.prompts.spec import NO_ROWS, framed, unframed
from distributed_tuner.report import formatting
from distributed_tuner.stages.prompt_space import prompt_space
from distributed_tuner.stages.reading import Reader
from distributed_tuner.stages.schedule import StageSchedule
from distributed_tuner.stages.screen import Screened, finalists
from distributed_tuner.stages.screen_prompts import (
    demonstrated,
    drawn,
    instructions,
    longest_prompt,
    read_as,
    screen_queries,
    screened_batch,
)
from distributed_tuner.stages.trial import Trial
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Evaluation, Example, Request, Text

SCREEN = {
    "instructions": ["Good or bad?"], "demonstrations": [2], "orders": 1, "instructions_kept": 1, "finalists": 2
}  # fmt: skip
TASK = make_task()


def screened(budget: int = 80, **more: Any) -> Any:
    return make_experiment(OPTIMIZERS["random_search"], **{"budget": {"queries": budget}, "screen": SCREEN} | more)


def screens_of(rows: list[Row]) -> list[ScreenRow]:
    return [row for row in rows if isinstance(row, ScreenRow)]


def exchanges_of(rows: list[Row]) -> list[ExchangeRow]:
    return [row for row in rows if isinstance(row, ExchangeRow)]


def told(row: Row) -> str:
    """Return a row as the ledger has it, but for when it was written."""
    return row.model_dump_json(exclude={"time", "elapsed"})


def templated() -> Task:
    """Return the task with another template, whose cue is longer."""
    own = replace(TASK, template="{text} It was{label_word}")

    def reworded(examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(example, cue=" Verdict:") for example in examples)

    other = replace(
        own,
        template="{text} Verdict:{label_word}",
        **{split: reworded(own.examples(split)) for split in ("train", "dev", "test", "feedback")},  # type: ignore[arg-type]
    )
    return replace(own, others=(other,))


def clear_behind(cue: str) -> Callable[[Request, Array], Array]:
    """Return what makes a model say the label's word behind one cue."""

    def spoil(request: Request, logits: Array) -> Array:
        for j, example in enumerate(request.batch.examples):
            logits[:, j, example.label] += 2.0 * (example.cue == cue)
        return logits

    return spoil


@dataclass
class Wordy(TimedOracle):
    """Tells the scores of any words: those of ``best`` say the label, all others next to nothing."""

    best: tuple[str, ...] = ()

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        batch = request.batch
        plain = super().evaluate(replace(request, batch=replace(batch, answer_words=())), timeout)
        self.asked[-1] = request
        known = (*batch.label_words, *batch.answer_words)
        scores = np.zeros((len(request.candidates), len(batch.examples), len(known)), dtype=np.float32)
        scores[..., : len(batch.label_words)] = 0.1 * plain.logits
        for place, word in enumerate(known):
            if word in self.best:
                right = [2.0 * (example.label == self.best.index(word)) for example in batch.examples]
                scores[..., place] = np.array(right) + 0.1 * plain.logits[..., 0]
        return answer(scores, batch, plain.cost)


@dataclass
class Refusing(TimedOracle):
    """Takes one cue alone."""

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        if request.batch.examples[0].cue != " It was":
            raise TaskError("melts")
        return super().evaluate(request, timeout)


@dataclass
class Picky(TimedOracle):
    """Takes no demonstrations on rows of dev."""

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        shown = any(isinstance(one, Text) and " It was " in one.text for one in request.candidates)
        if shown and request.batch.split == "dev":
            raise TaskError("melts")
        return super().evaluate(request, timeout)


def wide_trial() -> Trial:
    """Return a trial whose screen tries all that there is."""
    task = replace(templated(), verbalizers=((" dull", " great"),))
    screen = SCREEN | {"proposer": {"kind": "random"}, "proposals": 2, "instructions_kept": 2}
    experiment = screened(120, screen=screen, head={"kind": "bias"})
    return make_trial(experiment, task, Wordy(experiment, best=(" dull", " great")), Scripted(["Say it.\nBe brief."]))


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
    *evaluations, search = evals_of(rows)[:3]
    assert [evaluation.screen for evaluation in evaluations] == [True, True] and not search.screen
    assert {evaluation.text for evaluation in evaluations} == {one.text for one in screen.texts if one.finalist}
    assert paid(rows).queries == trial.progress()["queries"] <= 80
    told = formatting.screen(screen)
    assert told.startswith(f"{len(screen.texts)} prompts after {screen.cost.queries} queries")
    assert "best of 2 finalists" in told


def scored_as(score: float, instruction: str, *shown: int) -> Screened:
    return Screened(f"{instruction} {shown}", instruction, shown, "{text}{label_word}", (" a", " b"), score=score)


def test_finalists_differ_in_more_than_a_draw_and_are_of_each_number_of_demonstrations() -> None:
    """Losses on train of prompts with and without demonstrations are of other rows."""
    best = [
        scored_as(0.1, "a", 1, 2, 3, 4),
        scored_as(0.2, "a", 5, 6, 7, 8),
        scored_as(0.3, "b", 1, 2, 3, 4),
        scored_as(0.4, "a", 1, 2),
        scored_as(0.5, "a"),
        scored_as(0.6, "b"),
        scored_as(float("nan"), "c", 1),
    ]
    assert [one.score for one in finalists(best, 4)] == [0.1, 0.4, 0.5, 0.3]
    assert [one.score for one in finalists(best, 9)] == [0.1, 0.4, 0.5, 0.3, 0.6]
    assert [one.score for one in finalists(best, 1)] == [0.1]


def test_the_winner_is_the_finalist_that_train_and_dev_select() -> None:
    """Not the one that train alone has first: here dev says the label behind the other templates alone."""
    task = templated()
    experiment = screened(90, screen=SCREEN | {"demonstrations": [], "instructions_kept": 3, "finalists": 12})

    def on_dev_alone(request: Request, logits: Array) -> Array:
        for j, example in enumerate(request.batch.examples):
            told = -0.5 if example.uid.startswith("train") else 3.0
            logits[:, j, example.label] += told * (example.cue == " Verdict:")
        return logits

    trial = make_trial(experiment, task, TimedOracle(experiment, spoil=on_dev_alone))
    rows = run(trial)
    (screen,) = screens_of(rows)
    best, *_ = screen.texts
    assert best.template == "" and best.finalist and not best.selected
    (winner,) = (one for one in screen.texts if one.selected)
    assert winner.template == screen.template == "{text} Verdict:{label_word}"
    evaluations = [evaluation for evaluation in evals_of(rows) if evaluation.screen]
    assert len(evaluations) == sum(one.finalist for one in screen.texts) and [
        evaluation.step for evaluation in evaluations
    ] == [*range(len(evaluations))]
    assert winner.text == min(evaluations, key=lambda evaluation: evaluation.score or np.inf).text
    assert f"best of {len(evaluations)} finalists" in formatting.screen(screen)


def test_a_finalist_whose_dev_rows_the_model_cannot_take_costs_no_other() -> None:
    experiment = screened(90)
    task = replace(TASK, dev=tuple(replace(example, cue=" Verdict:") for example in TASK.dev))
    rows = run(make_trial(experiment, task, Picky(experiment)))
    (screen,) = screens_of(rows)
    assert screen.note == "not evaluated: melts" and paid(rows).queries <= 90
    (evaluation,) = (evaluation for evaluation in evals_of(rows) if evaluation.screen)
    assert evaluation.selected and " It was " not in str(evaluation.text)


def test_a_prompt_in_words_may_be_what_a_soft_search_ends_with() -> None:
    experiment = make_experiment(
        {"kind": "random_search", "popsize": 4, "sigma": 1e-6}, budget={"queries": 60}, screen=SCREEN
    )
    trial = make_trial(experiment)
    rows = run(trial)
    best = min((row for row in evals_of(rows)), key=lambda row: row.score)  # type: ignore[arg-type,return-value]
    assert trial.selected is not None
    assert isinstance(trial.selected.candidate, Text) is (best.text is not None)
    kept = trial.selected_prompt()
    assert isinstance(kept, str) is isinstance(trial.selected.candidate, Text)


def test_rows_that_stand_in_a_prompt_tell_nothing_of_it() -> None:
    rows = run(make_trial(screened()))
    (screen,) = screens_of(rows)
    hidden = {
        evaluation.text: sum(loss is None for loss in evaluation.losses)
        for evaluation in evals_of(rows)
        if evaluation.selected
    }
    shown = {one.text: one.demonstrations for one in screen.texts}
    assert hidden and all(shown[text] == count for text, count in hidden.items() if text is not None)


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_trial_goes_on_from_any_point_of_its_screen(calls: int) -> None:
    """Templates, label words and proposals among what it has tried by then."""
    whole, half = wide_trial(), wide_trial()
    rows = run(whole)
    before = [row for _ in range(calls) for row in half.advance()]
    again = wide_trial()
    again.load_state_dict(travelled(half.state_dict()))
    after = run(again)
    assert [told(row) for row in (*before, *after)] == [told(row) for row in rows]
    assert whole.selected is not None and again.selected is not None
    assert whole.selected.score == again.selected.score


def test_a_proposer_is_asked_once_and_shown_how_the_others_did() -> None:
    proposer = Scripted(["1. Say bad or good.\n2. Judge.\n3. Is the film any good?\n4. One more"])
    experiment = screened(90, screen=SCREEN | {"proposer": {"kind": "random"}, "proposals": 2})
    trial = make_trial(experiment, proposer=proposer)
    rows = run(trial)
    (asked,) = proposer.asked
    assert asked.key == ("some-0000", "screen", 0) and asked.count == 2
    first, last = asked.instruction.rindex("Prompt: Judge."), asked.instruction.index("Prompt: ")
    assert first >= last and "accuracy: " in asked.instruction
    (exchange,) = exchanges_of(rows)
    assert exchange.screen and exchange.usd == 0.001
    (screen,) = screens_of(rows)
    proposed = {one.text for one in screen.texts if one.proposed and not one.demonstrations}
    assert proposed == {"Say bad or good.", "Is the film any good?"}, "what is known is no news"
    assert screen.cost.queries == screen_queries(experiment.screen, TASK)


def test_a_proposer_without_an_answer_costs_its_instructions_alone() -> None:
    proposer = Scripted([ProposerError("no answer")])
    settings = {"proposer": {"kind": "random", "retries": 1}}
    rows = run(make_trial(screened(90, screen=SCREEN | settings), proposer=proposer))
    (event,) = (row for row in rows if isinstance(row, EventRow))
    assert event.kind == "proposer" and "no proposal from scripted: no answer" in event.message
    (screen,) = screens_of(rows)
    assert len(proposer.asked) == 2 and [row.number for row in exchanges_of(rows)] == [0, 1]
    assert screen.texts and "no proposal from scripted" in screen.note


def test_what_a_screen_asks_of_a_proposer_counts_for_the_restarts_of_its_trial() -> None:
    restart = {"kind": "restart", "proposer": {"kind": "random", "calls": 1, "retries": 0}}
    search = {"kind": "search", "optimizer": OPTIMIZERS["random_search"], "steps": 2}
    screen = SCREEN | {"proposer": {"kind": "random", "calls": 1, "retries": 0}}
    experiment = screened(120, screen=screen, stages=[search, restart, search])
    proposer = Scripted(["Say bad or good."])
    rows = run(make_trial(experiment, proposer=proposer))
    assert len(proposer.asked) == 1
    (reason,) = (row.reason for row in rows if isinstance(row, RestartRow))
    assert "proposer.calls are used up" in reason


def test_templates_are_tried_behind_the_best_instructions_and_the_trial_goes_on_in_the_best() -> None:
    task = templated()
    experiment = screened(90, screen=SCREEN | {"instructions_kept": 2})
    oracle = TimedOracle(experiment, spoil=clear_behind(" Verdict:"))
    trial = make_trial(experiment, task, oracle)
    rows = run(trial)
    (screen,) = screens_of(rows)
    assert screen.cost.queries == screen_queries(experiment.screen, task) == len(screen.texts)
    assert screen.template == "{text} Verdict:{label_word}" and screen.label_words == []
    assert screen.texts[0].template == screen.template
    assert [one.template for one in screen.texts if not one.demonstrations].count(screen.template) == 2
    shown = next(one for one in screen.texts if one.demonstrations)
    assert " Verdict: good" in shown.text and " It was" not in shown.text
    cues = [{example.cue for example in request.batch.examples} for request in oracle.asked]
    assert cues[screen.cost.queries :] == [{" Verdict:"}] * len(cues[screen.cost.queries :])
    assert paid(rows).queries <= 90
    assert "in the template '{text} Verdict:{label_word}'" in formatting.screen(screen)


def test_other_label_words_cost_no_query_and_the_search_goes_on_with_the_best() -> None:
    task = replace(TASK, verbalizers=((" good", " bad"), (" dull", " great")))
    experiment = screened(head={"kind": "bias"})
    oracle = Wordy(experiment, best=(" dull", " great"))
    trial = make_trial(experiment, task, oracle)
    rows = run(trial)
    (screen,) = screens_of(rows)
    assert screen.cost.queries == screen_queries(experiment.screen, task) < len(screen.texts)
    assert screen.label_words == [" dull", " great"] and screen.template == ""
    plain = [one for one in screen.texts if not one.demonstrations]
    assert len(plain) == 3 * len({one.text for one in plain})
    shown = next(one for one in screen.texts if one.demonstrations)
    assert shown.label_words == [" dull", " great"] and " It was great" in shown.text
    later = {request.batch.label_words for request in oracle.asked[screen.cost.queries :]}
    assert later == {(" dull", " great")}
    assert "with the label words dull, great" in formatting.screen(screen)


def test_label_words_that_are_read_from_one_answer_score_as_if_they_were_asked_for() -> None:
    experiment = screened(head={"kind": "bias"})
    oracle = Wordy(experiment, best=(" dull", " great"))
    reader = Reader(replace(TASK, verbalizers=((" dull", " great"),)), experiment.head)
    batch = screened_batch(reader)
    answer = oracle.evaluate(Request((Text("Judge."),), batch, NO_ROWS))
    asked = replace(batch, label_words=(" dull", " great"), answer_words=())
    direct = oracle.evaluate(Request((Text("Judge."),), asked, NO_ROWS))
    read = read_as(answer, batch, (" dull", " great"))
    np.testing.assert_allclose(read.losses, direct.losses, atol=2e-3)
    swapped = read_as(answer, batch, (" good", " bad"))
    np.testing.assert_allclose(
        swapped.logits[..., 0] - swapped.logits[..., 1], np.diff(answer.logits)[..., 0], atol=0.02
    )


def test_a_budget_is_planned_for_the_longest_of_what_is_tried() -> None:
    """Else a screen that is sure to fit would not."""
    task = replace(templated(), verbalizers=((" dull", " great"),))
    experiment = screened(head={"kind": "bias"}, budget=80)
    oracle = Wordy(experiment, best=(" dull", " great"))
    stage_schedule = StageSchedule(experiment, task, prompt_space(experiment.prompt, task, 3), oracle)
    (plan, *_) = stage_schedule.plan_all()
    rows = run(make_trial(experiment, task, oracle))
    (screen,) = screens_of(rows)
    assert "not all was tried" not in screen.note
    assert screen.cost.tokens <= plan.cost.tokens


def test_a_template_that_the_model_cannot_take_costs_no_other() -> None:
    experiment = screened(90)
    oracle = Refusing(experiment)
    rows = run(make_trial(experiment, templated(), oracle))
    (screen,) = screens_of(rows)
    assert screen.note == "not tried: melts" and screen.template == "" and screen.texts


def test_a_budget_that_pays_for_no_screen_is_refused_at_once() -> None:
    queries = screen_queries(screened().screen, TASK)
    with pytest.raises(BudgetTooSmall, match=rf"the screen before it \({queries + 4} queries\)"):
        make_trial(screened(queries + 10))
    make_trial(screened(queries + 11))


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
    assert np.isfinite(evals_of(rows)[-1].score or np.nan)
    assert screen.instruction in asked or isinstance(trial.selected.candidate, Text)  # type: ignore[union-attr]
