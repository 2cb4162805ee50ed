"""Restart stages in whole trials: what is read, asked, adopted and paid, and what a bad proposer costs."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from local_trials import (
    OPTIMIZERS,
    Scripted,
    TimedOracle,
    evals_of,
    make_experiment,
    make_trial,
    measures_of,
    paid,
    run,
    steps_of,
    travelled,
)

from distributed_tuner.config.experiment import Experiment
from distributed_tuner.errors import ProposerError
from distributed_tuner.ledger.rows import EventRow, ExchangeRow, FeedbackRow, RestartRow, Row
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.trial import Trial
from distributed_tuner.values import Array, Batch, Embedded, Request

PROPOSER: dict[str, Any] = {"kind": "replay", "ledger": "unused", "retries": 0}
ANSWER = "1. sort the film reviews\n2. judge each review\n3. good or bad film"


def experiment(
    *, rounds: int = 2, queries: int = 200, optimizer: str = "zot", more: dict[str, Any] | None = None, **restart: Any
) -> Experiment:
    proposer = PROPOSER | restart.pop("proposer", {})
    stages = [
        {"kind": "search", "optimizer": OPTIMIZERS[optimizer], "eval_every": 20},
        {"kind": "restart", "proposer": proposer, **restart},
    ]
    return make_experiment(
        OPTIMIZERS[optimizer], budget={"queries": queries}, stages=stages, rounds=rounds, **(more or {})
    )


def of(rows: list[Row], kind: type[Any]) -> list[Any]:
    return [row for row in rows if isinstance(row, kind)]


def favour(word: str, gain: float) -> Any:
    """Return a spoiler that gives candidates whose text holds ``word`` better logits on every example."""

    def spoil(request: Request, logits: Array) -> Array:
        for i, candidate in enumerate(request.candidates):
            if isinstance(candidate, Embedded) and word in candidate.text:
                logits[i] = 0
                for j, example in enumerate(request.batch.examples):
                    logits[i, j, example.label] = gain
        return logits

    return spoil


def favoured(made: Experiment, word: str, gain: float) -> TimedOracle:
    return TimedOracle(made, spoil=favour(word, gain))


# --------------------------------------------------------------------------------------------------- one restart
def test_a_better_proposal_is_adopted_and_the_search_starts_from_it() -> None:
    made = experiment()
    oracle = favoured(made, "judge", 9.0)
    trial = make_trial(made, oracle=oracle, proposer=Scripted([ANSWER]))
    rows = run(trial)
    (restart,) = of(rows, RestartRow)
    assert (restart.adopted, restart.text, restart.reason) == ("proposal", "judge each review", "")
    assert [text.source for text in restart.scored] == ["proposal"] * 3
    best = min(restart.scored, key=lambda text: text.loss)
    assert best.text == "judge each review" and best.loss < restart.incumbent_loss
    kinds = [[isinstance(candidate, Embedded) for candidate in request.candidates] for request in oracle.asked]
    evaluation = oracle.asked[kinds.index([False, True, True, True]) + 1]  # the first thing that the search does then
    prompt = prompt_spec(made.prompt, trial._setup.task)
    assert evaluation.batch.split == "train"
    assert np.array_equal(
        codec_of(oracle).materialize(evaluation.candidates[0], prompt),
        codec_of(oracle).materialize(Embedded("judge each review"), prompt),
    )


def test_a_worse_proposal_changes_nothing() -> None:
    made = experiment()
    rows = run(make_trial(made, oracle=favoured(made, "i", -9.0), proposer=Scripted([ANSWER])))
    (restart,) = of(rows, RestartRow)
    assert (restart.adopted, restart.text) == ("none", "")
    assert restart.reason == "no proposal beat the prompt that it had to beat"
    assert len(restart.scored) == 3


def test_always_adopts_the_best_proposal_whatever_it_is_worth() -> None:
    made = experiment(adopt="always")
    rows = run(make_trial(made, oracle=favoured(made, "i", -9.0), proposer=Scripted([ANSWER])))
    assert [row.adopted for row in of(rows, RestartRow)] == ["proposal"]


def test_the_trajectory_is_put_into_words_and_scored_on_feedback_alone() -> None:
    made = experiment(trajectory=4)
    oracle = TimedOracle(made)
    proposer = Scripted([ANSWER])
    rows = run(make_trial(made, oracle=oracle, proposer=proposer))
    (feedback,) = of(rows, FeedbackRow)
    assert 1 <= len(feedback.texts) <= 4
    assert feedback.cost.queries == len(feedback.texts)
    splits = {r.batch.split for r in oracle.asked if any(isinstance(c, Embedded) for c in r.candidates)}
    assert splits == {"feedback"}
    (ask,) = proposer.asked
    for text in feedback.texts:
        assert text.text in ask.instruction
    shown = [ask.instruction.index(text.text) for text in sorted(feedback.texts, key=lambda t: -t.loss)]
    assert shown == sorted(shown)  # worst first


def test_everything_is_paid_from_one_purse_and_told() -> None:
    made = experiment(rounds=3, queries=150)
    rows = run(make_trial(made, proposer=Scripted([ANSWER, "4. another prompt here"])))
    assert len(of(rows, RestartRow)) == 2
    total = paid(rows)
    assert 140 < total.queries <= 150
    spent = [row.spent.value() for row in rows if hasattr(row, "spent")]
    assert spent[-1] == total
    assert all(a.queries <= b.queries for a, b in pairwise(spent))
    assert len(measures_of(rows)) == 1


def test_known_texts_are_not_scored_again() -> None:
    made = experiment(rounds=3)
    rows = run(make_trial(made, proposer=Scripted([ANSWER])))
    first, second = of(rows, RestartRow)
    assert len(first.scored) == 3
    assert (second.scored, second.adopted) == ([], "none")


# --------------------------------------------------------------------------------------------------- the optimizer
def rates(rows: list[Row], stage: int) -> list[float]:
    return [row.metrics["learning_rate"] for row in steps_of(rows) if row.stage == stage]


def test_reset_begins_the_schedule_anew_and_keep_goes_on_with_it() -> None:
    found = {}
    for state in ("reset", "keep"):
        made = experiment(rounds=3, state=state)
        rows = run(make_trial(made, oracle=favoured(made, "judge", 9.0), proposer=Scripted([ANSWER])))
        found[state] = rows
    reset, keep = found["reset"], found["keep"]
    assert rates(reset, 2)[0] == pytest.approx(0.1)
    assert rates(keep, 2)[0] < rates(keep, 0)[-1] < 0.1
    assert rates(keep, 4)[-1] < rates(keep, 2)[-1] < rates(keep, 0)[-1]


def test_without_an_adopted_prompt_the_search_goes_on_as_if_it_had_not_been_interrupted() -> None:
    quiet = Scripted([ProposerError("down")])
    rows = run(make_trial(experiment(rounds=2), proposer=quiet))
    assert rates(rows, 2)[0] < rates(rows, 0)[-1]


def test_cma_takes_an_adopted_prompt_as_one_more_solution() -> None:
    made = experiment(optimizer="cma", state="inject", rounds=3)
    rows = run(make_trial(made, oracle=favoured(made, "judge", 9.0), proposer=Scripted([ANSWER])))
    assert [row.adopted for row in of(rows, RestartRow)] == ["proposal", "none"]
    assert len([row for row in steps_of(rows) if row.stage == 2]) > 1


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_every_optimizer_can_be_restarted(name: str, state: str) -> None:
    made = experiment(optimizer=name, state=state)
    rows = run(make_trial(made, oracle=favoured(made, "judge", 9.0), proposer=Scripted([ANSWER])))
    assert [row.adopted for row in of(rows, RestartRow)] == ["proposal"]
    assert len([row for row in steps_of(rows) if row.stage == 2]) > 1


# --------------------------------------------------------------------------------------------------- bad proposers
BAD = [
    ProposerError("the server says 401"),
    "",
    "```\n```",
    "- a\n- b",
    "\x00\x07",
    "Sure, here are the prompts:",
]


@pytest.mark.parametrize("answer", BAD, ids=range(len(BAD)))
def test_a_proposer_without_proposals_costs_its_stage_and_is_told_of_once(answer: str | Exception) -> None:
    made = experiment(rounds=5, queries=300, proposer={"give_up_after": 2})
    proposer = Scripted([answer])
    rows = run(make_trial(made, proposer=proposer))
    assert len(proposer.asked) == 2
    assert [row.kind for row in of(rows, EventRow)] == ["proposer", "proposer_given_up"]
    assert [row.adopted for row in of(rows, RestartRow)] == ["none"] * 4
    assert [row.reason for row in of(rows, RestartRow)][2:] == ["the proposer was given up before"] * 2
    assert all(row.problem for row in of(rows, ExchangeRow))
    assert paid(rows).queries > 280  # what the LLM stages did not take, the searches did


def test_an_answer_after_a_failure_forgives_it() -> None:
    made = experiment(rounds=4, queries=300, proposer={"give_up_after": 2})
    proposer = Scripted([ProposerError("down"), ANSWER, ProposerError("down again")])
    rows = run(make_trial(made, proposer=proposer))
    assert len(proposer.asked) == 3
    assert [row.kind for row in of(rows, EventRow)] == ["proposer", "proposals_cut"]


def test_further_requests_and_their_limits() -> None:
    made = experiment(proposer={"retries": 2})
    proposer = Scripted(["", "", ANSWER])
    rows = run(make_trial(made, proposer=proposer))
    assert [row.number for row in of(rows, ExchangeRow)] == [0, 1, 2]
    assert len({ask.key for ask in proposer.asked}) == 3
    limited = Scripted(["", "", ANSWER])
    rows = run(make_trial(experiment(proposer={"retries": 2, "calls": 2}), proposer=limited))
    assert len(limited.asked) == 2
    assert of(rows, RestartRow)[0].scored == []
    dear = Scripted(["", "", ANSWER])
    run(make_trial(experiment(proposer={"retries": 2, "usd": 0.0005}), proposer=dear))
    assert len(dear.asked) == 1


def test_long_proposals_are_cut_which_is_counted_and_said_once() -> None:
    answers = Scripted([ANSWER, "good\nsome more words than rows\nbad film"])
    rows = run(make_trial(experiment(rounds=3, queries=300), proposer=answers))
    (event,) = of(rows, EventRow)
    assert event.kind == "proposals_cut"
    assert "more than 2 tokens" in event.message
    assert [row.cut for row in of(rows, ExchangeRow)] == [3, 1]


def test_a_budget_that_does_not_pay_for_a_restart_ends_it() -> None:
    made = experiment(queries=40)
    rows = run(make_trial(made, proposer=Scripted([ANSWER])))
    assert paid(rows).queries <= 40
    assert len(measures_of(rows)) == 1


# --------------------------------------------------------------------------------------------------- LLM only, faithful
def test_an_llm_alone_selects_by_looks_of_its_own() -> None:
    stages = [{"kind": "restart", "proposer": PROPOSER}]
    made = make_experiment(OPTIMIZERS["zot"], budget={"queries": 200}, stages=stages, rounds=3)
    answers = Scripted(["good film judge", "fine film judge", "great film judge"])
    rows = run(make_trial(made, oracle=favoured(made, "great", 9.0), proposer=answers))
    assert [row.text for row in of(rows, RestartRow)][2] == "great film judge"
    adopted = [row.stage for row in of(rows, RestartRow) if row.adopted == "proposal"]
    assert [evaluation.stage for evaluation in evals_of(rows)] == sorted({0, *adopted}), "the first, and what is new"
    assert evals_of(rows)[0].selected
    assert of(rows, FeedbackRow)[0].texts[0].source == "trajectory"
    assert len(measures_of(rows)) == 1


def test_an_llm_alone_ends_when_the_budget_does() -> None:
    stages = [{"kind": "restart", "proposer": PROPOSER | {"give_up_after": 99}}]
    made = make_experiment(OPTIMIZERS["zot"], budget={"queries": 31}, stages=stages, rounds=50)
    answers = Scripted([f"good film {number}\nfine film {number}" for number in range(60)])
    trial = make_trial(made, proposer=answers)
    rows = run(trial)
    assert 26 <= paid(rows).queries <= 31
    assert len(of(rows, RestartRow)) < 15
    assert trial.outcome is not None and "budget spent" in trial.outcome.reason
    assert len(measures_of(rows)) == 1


def test_an_llm_alone_asks_nothing_twice() -> None:
    """An incumbent that nothing replaced is neither evaluated nor scored again, on examples that are the same."""
    stages = [{"kind": "restart", "proposer": PROPOSER | {"give_up_after": 99}}]
    made = make_experiment(OPTIMIZERS["zot"], budget={"queries": 400}, stages=stages, rounds=6)
    oracle = favoured(made, "i", -9.0)
    rows = run(make_trial(made, oracle=oracle, proposer=Scripted([f"film i {n}\nfine i {n}" for n in range(6)])))
    assert len(of(rows, RestartRow)) == 6 and all(row.adopted == "none" for row in of(rows, RestartRow))
    assert len({row.incumbent_loss for row in of(rows, RestartRow)}) == 1
    assert paid(rows).queries == 1 + 1 + 6 * 2 + 2, "its text, itself, the proposals, one evaluation"
    assert len(evals_of(rows)) == 1


def test_what_a_restart_adopted_stands_after_another_that_adopts_nothing() -> None:
    search = {"kind": "search", "optimizer": OPTIMIZERS["zot"], "eval_every": 20, "steps": 3}
    restart = {"kind": "restart", "proposer": PROPOSER}
    made = make_experiment(OPTIMIZERS["zot"], budget={"queries": 300}, stages=[search, restart, restart, search])
    oracle = favoured(made, "judge", 9.0)
    trial = make_trial(made, oracle=oracle, proposer=Scripted(["judge film", "i film"]))
    rows: list[Row] = []
    while len(of(rows, RestartRow)) < 2:
        rows += trial.advance()
    saved = trial.state_dict()
    assert [row.adopted for row in of(rows, RestartRow)] == ["proposal", "none"]
    restored = make_trial(made, oracle=oracle, proposer=Scripted([]))
    restored.load_state_dict(saved)
    for each in (trial, restored):
        at = len(oracle.asked)
        run(each)
        evaluation = oracle.asked[at]
        prompt = prompt_spec(made.prompt, each._task)
        assert evaluation.batch.split == "train" and len(evaluation.candidates) == 1
        assert np.allclose(
            codec_of(oracle).materialize(evaluation.candidates[0], prompt),
            codec_of(oracle).materialize(Embedded("judge film"), prompt),
        )


def test_faithful_adopts_the_first_proposal_unscored_with_feedback_from_dev() -> None:
    made = experiment(reproduce_paper=True, rounds=2)
    oracle = favoured(made, "i", -9.0)
    rows = run(
        make_trial(made, oracle=oracle, proposer=Scripted(["- tiny\n- a longer template here\n- third one here"]))
    )
    (restart,) = of(rows, RestartRow)
    assert (restart.adopted, restart.text, restart.incumbent_loss) == ("proposal", "a longer template here", None)
    assert restart.cost.queries == 0
    (feedback,) = of(rows, FeedbackRow)
    assert len(feedback.texts) <= 5
    assert "feedback" not in {request.batch.split for request in oracle.asked}
    assert rates(rows, 2)[0] < rates(rows, 0)[-1]  # moments and schedule are not reset


# --------------------------------------------------------------------------------------------------- state
@pytest.mark.parametrize("optimizer", ["zot", "cma"])
def test_a_trial_goes_on_with_the_same_bits_from_any_moment(optimizer: str) -> None:
    made = experiment(rounds=3, queries=160, optimizer=optimizer)

    def fresh() -> Trial:
        return make_trial(made, oracle=favoured(made, "judge", 9.0), proposer=Scripted([ANSWER, "next film word"]))

    whole = run(fresh())
    for stop in range(0, 60, 7):
        first = fresh()
        rows: list[Row] = []
        for _ in range(stop):
            rows.extend([] if first.done else first.advance())
        state = travelled(first.state_dict())
        second = make_trial(made, oracle=favoured(made, "judge", 9.0), proposer=again(first))
        second.load_state_dict(state)
        rows.extend(run(second))
        assert [told(row) for row in rows] == [told(row) for row in whole], stop


def again(trial: Trial) -> Scripted:
    """Return a proposer that goes on where that of a trial is."""
    proposer: Any = trial._factory.proposers
    asked = len(proposer(None).asked)
    return Scripted([ANSWER, "next film word"][min(asked, 1) :])


def told(row: Row) -> Any:
    """Return what a row says, without its times."""
    content = row.model_dump(exclude={"time", "elapsed", "seconds"})
    return repr({name: value for name, value in content.items() if name not in ("cost", "spent")})


# --------------------------------------------------------------------------------------------------- a population
def standing(proposer: Scripted, made: Experiment, oracle: TimedOracle | None = None) -> Trial:
    trial = make_trial(made, oracle=oracle, proposer=proposer)
    while not trial.waiting:
        trial.advance()
    return trial


def exploit(x: Array | None, **more: Any) -> Exploit:
    pool = (PooledText("from another trial", 0.1, 1.0, "proposal", "other-0001", 1),)
    return Exploit(**{"id": "r1", "source_trial": "other-0001", "settings": {}, "place": x, "pool": pool} | more)


POPULATION: dict[str, Any] = {"schedule": {"kind": "population"}}


def test_a_trial_of_a_population_waits_at_its_sync_point_and_goes_on_if_told_so() -> None:
    proposer = Scripted([ANSWER])
    trial = standing(proposer, experiment(more=POPULATION))
    assert (trial.sync_point, trial.waiting, trial.restart_id) == (1, True, "")
    assert trial.pool
    (row,) = trial.go_on()
    assert isinstance(row, RestartRow) and row.adopted == "none" and "its own prompt" in row.reason
    rows = run(trial)
    assert not proposer.asked
    assert len(measures_of(rows)) == 1


def test_a_laggard_takes_the_source_trials_prompt_settings_and_pool() -> None:
    proposer = Scripted([ANSWER])
    made = experiment(more=POPULATION)
    trial = standing(proposer, made, favoured(made, "i", -9.0))
    source_trial = np.full(6, 0.25, dtype=np.float32)
    trial.take_over(exploit(source_trial, settings={"stages.0.optimizer.learning_rate": 0.7}))
    rows = run(trial)
    (restart,) = of(rows, RestartRow)
    assert (restart.adopted, restart.source_trial) == ("source_trial", "other-0001")
    assert [text.source for text in restart.scored] == ["source_trial", "proposal", "proposal", "proposal"]
    assert "from another trial" in proposer.asked[0].instruction
    assert rates(rows, 2)[0] == pytest.approx(0.7)
    assert restart.settings == {"stages.0.optimizer.learning_rate": 0.7}


def test_a_proposal_that_beats_the_source_trial_is_adopted_instead() -> None:
    made = experiment(more=POPULATION)
    trial = standing(Scripted([ANSWER]), made, favoured(made, "judge", 9.0))
    trial.take_over(exploit(np.zeros(6, dtype=np.float32)))
    (restart,) = of(run(trial), RestartRow)
    assert (restart.adopted, restart.text) == ("proposal", "judge each review")


def test_a_laggard_restarts_from_the_source_trial_when_the_proposer_is_down() -> None:
    trial = standing(Scripted([ProposerError("down")]), experiment(more=POPULATION))
    trial.take_over(exploit(np.zeros(6, dtype=np.float32)))
    (restart,) = of(run(trial), RestartRow)
    assert restart.adopted == "source_trial"
    assert restart.reason == "down"


def test_a_restart_survives_a_checkpoint_with_its_settings() -> None:
    made = experiment(more=POPULATION)
    trial = standing(Scripted([ANSWER]), made)
    trial.take_over(exploit(np.zeros(6, dtype=np.float32), settings={"stages.0.optimizer.rho": 0.3}))
    state = travelled(trial.state_dict())
    other = make_trial(made, proposer=Scripted([ANSWER]))
    other.load_state_dict(state)
    assert (other.restart_id, other.settings) == ("r1", {"stages.0.optimizer.rho": 0.3})
    assert [told(row) for row in run(other)] == [told(row) for row in run(trial)]


def test_feedback_examples_are_neither_train_nor_dev() -> None:
    made = experiment()
    trial = make_trial(made, proposer=Scripted([ANSWER]))
    task = trial._setup.task
    batches: list[Batch] = [task.batch(split) for split in ("train", "feedback", "dev", "test")]
    uids = [example.uid for batch in batches for example in batch.examples]
    assert len(uids) == len(set(uids))
    assert math.isfinite(run(trial)[-1].model_dump()["loss"])
