"""Tuning from Python, in this process: data in every form, what comes back, callbacks, interruptions, bad input."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from distributed_tuner import (
    Analytic,
    Budget,
    Callback,
    Cma,
    EndEvent,
    EvaluationEvent,
    Result,
    StepEvent,
    TextPrompt,
    TunerError,
    Zot,
    load,
    tune,
)
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.errors import BudgetTooSmall, ConfigError, ModelError, RunDirectoryError, TaskError
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.tasks.demo import build_demo
from distributed_tuner.values import Text

GOOD = [f"a {adverb} good {noun}" for adverb in ("really", "quite") for noun in ("film", "plot", "cast", "story")]
BAD = [f"a {adverb} bad {noun}" for adverb in ("really", "quite") for noun in ("film", "plot", "cast", "story")]
TEXTS, LABELS = [*GOOD, *BAD], ["good"] * len(GOOD) + ["bad"] * len(BAD)
ORACLE = Analytic()


def tuned(data: Any = (TEXTS, LABELS), model: Any = ORACLE, **more: Any) -> Result:
    """Return what BBT returns, whatever a test of significance says of so few rows."""
    settings = {"significance": None, **more.pop("settings", {})}
    if "stages" not in settings and "prompt" not in more:
        more.setdefault("optimizer", Cma(popsize=20, alpha=0.3, recommend="mean"))
    return tune(model, data, **{"budget": 60, "progress": False, "settings": settings, **more})


@pytest.fixture(scope="module")
def result() -> Result:
    return tuned()


# ------------------------------------------------------------------------------------------------------------ results
def test_a_result_predicts_and_scores(result: Result) -> None:
    likely = result.predict_proba(TEXTS)
    assert likely.shape == (16, 2)
    np.testing.assert_allclose(likely.sum(axis=1), 1.0)
    predicted = result.predict(TEXTS)
    assert result.labels == ("bad", "good")
    assert [result.labels[i] for i in likely.argmax(axis=1)] == predicted.tolist()
    right = float(np.mean(predicted == np.array(LABELS)))
    assert result.score(TEXTS, LABELS) == result.score((TEXTS, LABELS)) == right


def test_a_result_tells_how_it_came_about(result: Result, tmp_path: Path) -> None:
    assert result.status == "done"
    assert result.prompt.rows.shape == (16, 8)
    assert result.helped
    assert list(result.history["spent.queries"]) == sorted(result.history["spent.queries"])
    assert result.history["selected"].any()
    assert len(result.frames["steps"])
    assert "<html" in result.report(tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    assert re.search("dev accuracy .*queries", repr(result))


@pytest.mark.parametrize(("budget", "queries", "shown"), [(500, 55, {0, 4, 8}), (40, 26, {0, 4})])
def test_without_an_optimizer_prompts_in_words_are_screened(budget: int, queries: int, shown: set[int]) -> None:
    """As many as the budget pays for."""
    found = tune(ORACLE, {"kind": "demo", "shots": 8}, budget=budget, progress=False)
    assert found.summary["totals"]["queries"] == queries
    assert found.summary["best"]["method"] == "screen"
    (screen,) = [row for row in found.frames["screens"].itertuples()]
    assert {text["demonstrations"] for text in screen.texts} == shown


def test_a_screen_is_not_begun_with_fewer_queries_than_it_asks() -> None:
    with pytest.raises(BudgetTooSmall, match="one step of cma"):
        tune(ORACLE, {"kind": "demo", "shots": 8}, budget=20, progress=False)


def test_prompts_that_are_read_together_predict_as_well(result: Result) -> None:
    """The best that the search has passed."""
    search = {"kind": "search", "optimizer": {"kind": "random_search"}, "eval_every": 10}
    found = tuned(settings={"ensemble": {"size": 3}, "stages": [search]})
    told = found.summary["best"]["ensemble"]
    assert told["members"] > 1 and told["test_metric"] is None, "no test rows were given"
    together = found.predict_proba(TEXTS, ensemble=True)
    np.testing.assert_allclose(together.sum(axis=1), 1.0)
    assert not np.array_equal(together, found.predict_proba(TEXTS))
    assert set(found.predict(TEXTS, ensemble=True)) <= {"bad", "good"}
    with pytest.raises(RunDirectoryError, match="read together need a run with an ensemble"):
        result.predict(TEXTS, ensemble=True)


def test_what_was_saved_is_loaded_from_the_run_or_its_best(result: Result, tmp_path: Path) -> None:
    kept = result.save(tmp_path / "kept")
    for place in (kept, kept / "best"):
        again = load(place)
        np.testing.assert_array_equal(again.predict_proba(TEXTS), result.predict_proba(TEXTS))
        assert again.summary == result.summary
    with pytest.raises(RunDirectoryError, match="needs a directory of its own"):
        result.save(kept)


def test_a_seed_gives_the_same_result_and_another_another(result: Result) -> None:
    np.testing.assert_array_equal(tuned().prompt.rows, result.prompt.rows)
    other = tuned(seed=1)
    assert other.history["dev_loss"].tolist() != result.history["dev_loss"].tolist()


def test_the_run_directory_is_kept_where_it_is_named(tmp_path: Path) -> None:
    found = tuned(out=tmp_path / "run")
    assert found.directory == tmp_path / "run"
    assert {"config.json", "ledger.jsonl", "summary.json", "report.html", "best"} <= {
        path.name for path in found.directory.iterdir()
    }
    with pytest.raises(RunDirectoryError, match="holds a run"):
        tuned(out=tmp_path / "run")


# --------------------------------------------------------------------------------------------------------------- data
@pytest.mark.parametrize(
    "data",
    [
        pd.DataFrame({"text": TEXTS, "label": LABELS}),
        (np.array(TEXTS), np.array(LABELS)),
        (pd.Series(TEXTS), pd.Series(LABELS)),
        [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
    ],
    ids=["frame", "arrays", "series", "mappings"],
)
def test_the_same_rows_in_any_form_give_the_same_result(data: Any, result: Result) -> None:
    np.testing.assert_array_equal(tuned(data).prompt.rows, result.prompt.rows)


def test_labels_come_back_as_they_are_in_the_data() -> None:
    found = tuned((TEXTS, [int(label == "good") for label in LABELS]), label_words={0: " bad", 1: " good"})
    assert found.labels == (0, 1)
    assert found.predict(TEXTS).dtype.kind == "i"


def test_texts_of_several_columns() -> None:
    frame = pd.DataFrame({"premise": TEXTS, "hypothesis": TEXTS[::-1], "gold": LABELS})
    found = tuned(frame, text=("premise", "hypothesis"), label="gold")
    assert found.prompt.template["source"] == "{premise}\n{hypothesis}\nLabel:{label_word}"
    assert len(found.predict(frame.drop(columns="gold"))) == 16
    assert 0 <= found.score(frame) <= 1


def test_test_rows_are_scored_once_for_the_returned_prompt(result: Result) -> None:
    assert result.summary["best"]["test_metric"] is None
    found = tuned(test=(TEXTS, LABELS))
    assert found.summary["best"]["test_metric"] == found.score(TEXTS, LABELS)


def test_labels_with_few_rows_give_half_of_them() -> None:
    texts, labels = [*TEXTS, "an odd thing", "a strange thing"], [*LABELS, "odd", "odd"]
    config = tuned((texts, labels)).summary
    assert config["status"] == "done"
    with pytest.raises(TaskError, match="class 'odd' has 2"):
        tuned((texts, labels), shots=4)
    with pytest.raises(TaskError, match="class 'odd' has 1"):
        tuned((texts[:-1], labels[:-1]))


@pytest.mark.parametrize("named", [{"kind": "demo", "shots": 2}, DemoTaskConfig(shots=2)])
def test_a_task_by_its_settings(named: Any) -> None:
    found = tuned(named)
    assert found.labels == ("billing", "shipping", "technical", "account")


def test_a_task_as_an_object(tmp_path: Path) -> None:
    task = build_demo(DemoTaskConfig(shots=2, test_limit=8))
    found = tuned(task, instruction="Route it.")
    assert found.summary["best"]["test_metric"] is not None
    assert found.predict(["where is my parcel"]).shape == (1,)
    assert load(found.save(tmp_path / "kept")).predict(["where is my parcel"]).shape == (1,)
    with pytest.raises(ConfigError, match="worded and drawn already, but shots was given"):
        tuned(task, shots=4)


# ----------------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize("optimizer", ["random_search", Zot(rho=0.5), {"kind": "sgd"}])
def test_optimizers_by_kind_settings_or_mapping(optimizer: Any) -> None:
    assert tuned(optimizer=optimizer).status == "done"


def test_prompts_in_words_and_budgets_of_tokens() -> None:
    found = tuned(prompt=TextPrompt(), budget=Budget(queries=40, tokens=10**6), instruction="say good or bad")
    assert isinstance(found.prompt.words, str)
    assert found.predict(TEXTS).shape == (16,)


def test_whatever_else_a_search_space_says() -> None:
    stages = [{"kind": "search", "optimizer": {"kind": "random_search"}, "eval_every": 20, "steps": 2}] * 2
    assert len(tuned(settings={"stages": stages}).frames["stages"]) == 2


# -------------------------------------------------------------------------------------------------------- own oracles
def test_an_oracle_as_an_object_answers_like_its_settings(tmp_path: Path) -> None:
    oracle = AnalyticOracle(AnalyticOracleConfig())
    found = tuned(model=oracle, objective={"head": "bias"}, head="label_words")
    np.testing.assert_array_equal(found.prompt.rows, tuned(head="label_words").prompt.rows)
    kept = found.save(tmp_path / "kept")
    with pytest.raises(TunerError, match="hand it in again"):
        load(kept).predict(TEXTS)
    np.testing.assert_array_equal(load(kept, oracle).predict_proba(TEXTS), found.predict_proba(TEXTS))


def test_an_oracle_that_lacks_methods_is_told_which() -> None:
    class Half:
        info = AnalyticOracle(AnalyticOracleConfig()).info

        def evaluate(self, request: Any, timeout: float = 0) -> None: ...

    with pytest.raises(ConfigError, match=r"got Half\. It lacks cost of the LossOracle protocol"):
        tuned(model=Half())


def test_an_oracle_of_three_members_is_tuned_from_zero() -> None:
    class Three:
        def __init__(self) -> None:
            self._oracle = AnalyticOracle(AnalyticOracleConfig())
            self.info = self._oracle.info
            self.cost, self.evaluate = self._oracle.cost, self._oracle.evaluate

    found = tuned(model=Three())
    assert found.prompt.nearest_tokens == []
    with pytest.raises(ModelError, match=r"prompt=.*init.*text.*, but .* has no codec"):
        tuned(model=Three(), prompt={"length": 4, "init": "text"})


# ---------------------------------------------------------------------------------------------------------- callbacks
class Heard(Callback):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_step(self, event: StepEvent) -> None:
        self.events.append(event)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.events.append(event)

    def on_end(self, event: EndEvent) -> None:
        self.events.append(event)


def of(events: Sequence[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_callbacks_hear_of_steps_evaluations_and_the_end() -> None:
    heard = Heard()
    found = tuned(callbacks=[heard])
    assert len(of(heard.events, StepEvent)) == len(found.frames["steps"])
    assert [event.dev_loss for event in of(heard.events, EvaluationEvent)] == found.history["dev_loss"].tolist()
    assert heard.events[-1] == of(heard.events, EndEvent)[0]
    assert (heard.events[-1].status, heard.events[-1].queries) == ("done", found.summary["totals"]["queries"])


def test_an_interrupted_run_returns_what_there_is() -> None:
    class Interrupt(Callback):
        def on_step(self, event: StepEvent) -> None:
            raise KeyboardInterrupt

    found = tuned(callbacks=[Interrupt()])
    assert found.status == "interrupted"
    assert len(found.history) == 1
    assert found.predict(TEXTS).shape == (16,)


def test_a_callback_that_stops_at_an_evaluation_keeps_its_prompt() -> None:
    class Interrupt(Callback):
        def on_evaluation(self, event: EvaluationEvent) -> None:
            raise KeyboardInterrupt

    found = tuned(callbacks=[Interrupt()])
    assert found.status == "interrupted"
    assert found.history["selected"].tolist() == [True]
    assert found.predict(TEXTS).shape == (16,)


def test_an_error_of_a_callback_ends_the_run_as_what_it_is() -> None:
    class Broken(Callback):
        def on_step(self, event: StepEvent) -> None:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        tuned(callbacks=[Broken()])


def test_a_progress_bar_counts_queries(capsys: pytest.CaptureFixture[str]) -> None:
    tuned(progress=True)
    assert re.search(r"tuning: .*/60", capsys.readouterr().err)
    tuned(progress=False)
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"data": (TEXTS, LABELS[:-1])}, "two lists of one length, but they have 16 and 15"),
        ({"data": "a text"}, "must be a pandas DataFrame, .* but got a str"),
        ({"data": pd.DataFrame({"text": TEXTS})}, "has no label column 'label'"),
        ({"data": ([], [])}, "must have rows"),
        ({"label_words": {"good": " great", "awful": " awful"}}, "'bad', which has no label word"),
        ({"template": "{txt}{label_word}"}, "text column 'text' is not in the template"),
        ({"model": "http://localhost:8000/v1"}, r"Server\(model=..., base_url='http://localhost:8000/v1'\)"),
        ({"model": 3}, "a model must be a hub id or directory"),
        ({"model": (1, 2, 3)}, "must be .model, tokenizer., but it has 3 parts"),
        ({"optimizer": "zott"}, "did you mean 'zot'"),
        ({"optimizer": "zot", "settings": {"stages": []}}, "give one of both"),
        ({"budget": 5}, "budget must pay for one step"),
        ({"out": "s3://bucket/run"}, "out must be a local directory"),
        ({"pool": {"adress": "auto"}}, "pool has an address and actors, but got 'adress'"),
        ({"model": AnalyticOracle(AnalyticOracleConfig()), "pool": 2}, "leave pool out"),
    ],
)
def test_bad_input_is_one_message_with_the_next_move(given: dict[str, Any], told: str) -> None:
    with pytest.raises(TunerError, match=told):
        tuned(**given)


def test_new_rows_without_text_or_with_unknown_labels_are_refused(result: Result) -> None:
    with pytest.raises(TaskError, match="'text' is empty in the texts, row 1"):
        result.predict(["fine", " "])
    with pytest.raises(TaskError, match="'odd', which has no label word"):
        result.score(TEXTS[:1], ["odd"])
    with pytest.raises(TaskError, match="one label, but there are 2 texts and 1 labels"):
        result.score(TEXTS[:2], ["good"])


def test_a_prompt_that_is_not_shown_to_be_better_is_not_returned() -> None:
    texts, labels = [f"text {i}" for i in range(16)], [i % 2 for i in range(16)]
    found = tune(ORACLE, (texts, labels), budget=60, progress=False)
    assert not found.helped
    assert found.prompt.words == "Classify the text as 0 or 1."
    assert "tuning is not shown to have helped" in repr(found)
    assert found.predict(texts).shape == (16,)


def test_a_result_without_any_prompt_says_why() -> None:
    class Broken(AnalyticOracle):
        def evaluate(self, request: Any, timeout: float = 0) -> Any:
            if any(not isinstance(candidate, Text) for candidate in request.candidates) and not request.fresh:
                raise KeyboardInterrupt
            return super().evaluate(request)

    found = tuned(model=Broken(AnalyticOracleConfig()))
    assert repr(found) == "<Result: interrupted, no prompt was scored>"
    with pytest.raises(RunDirectoryError, match=r"this run \(interrupted\) had none by its end"):
        found.predict(TEXTS)
