"""Choice of the returned prompt: the tuned one only if a paired test on dev says that it is better."""

from typing import Any

import numpy as np
import pytest

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import CostRow, EvalRow, MeasureRow, Row, TrialRow
from distributed_tuner.report.choice import choose
from distributed_tuner.report.summary import summarize
from distributed_tuner.report.trials import best_trial, summarize_trials
from distributed_tuner.runs.recorded_config import Recorded

TRAIN, DEV = 4, 16
MANUAL = [0.5 + 0.05 * (i % 5) for i in range(TRAIN + DEV)]


def config_of(select: str = "cross_validation", significance: float | None = 0.1) -> dict[str, Any]:
    stages = [{"kind": "search", "select": select}]
    return {
        "experiment": {"significance": significance, "head": {"kind": "vocabulary"}},
        "task": {"metric": "accuracy", "dev": DEV, "test": 100},
        "trials": [{"trial_id": "bbt-0000", "method": "bbt", "config": {"stages": stages}, "split_seed": 0}],
    }


def rows_of(losses: list[float | None]) -> list[Row]:
    trial = TrialRow(trial_id="bbt-0000", method="bbt", seed=0, split_seed=0, drawn={})
    evaluation = EvalRow(
        trial_id="bbt-0000",
        stage=0,
        step=3,
        train_loss=0.1,
        dev_loss=0.2,
        dev_metric=0.9,
        score=float(np.mean([loss for loss in losses if loss is not None])),
        losses=losses,
        selected=True,
        cost=CostRow(),
        spent=CostRow(queries=10),
        elapsed=1.0,
    )

    def measure(what: Any, split: Any, metric: float, **more: Any) -> MeasureRow:
        return MeasureRow(what=what, split=split, split_seed=0, loss=0.6, metric=metric, cost=CostRow(), **more)

    selected = measure("selected", "test", 0.8, trial_id="bbt-0000", label_words_metric=0.6)
    return [
        trial,
        evaluation,
        measure("manual_prompt", "dev", 0.5).model_copy(update={"cost": CostRow(queries=1)}),
        measure("manual_prompt_with_head", "dev", 0.7, losses=MANUAL).model_copy(update={"cost": CostRow(queries=1)}),
        measure("manual_prompt_with_head", "test", 0.75, label_words_metric=0.55),
        measure("bag_of_words", "test", 0.5),
        selected,
    ]


def chosen(losses: list[float | None], **more: Any) -> Any:
    ledger, config = Digest(rows_of(losses)), Recorded.of(config_of(**more))
    return choose(best_trial(summarize_trials(ledger, config)), ledger, config)


def lower(by: float, noise: float = 0.02) -> list[float | None]:
    stream = np.random.default_rng(0)
    return [loss - by + noise * float(stream.standard_normal()) for loss in MANUAL]


def test_a_prompt_that_is_better_on_dev_row_by_row_is_kept() -> None:
    choice = chosen(lower(0.1))
    assert choice.kept == "tuned" and choice.p_value is not None and choice.p_value < 1e-6


@pytest.mark.parametrize("losses", [lower(0.0), lower(-0.1), list(MANUAL), lower(-0.1, noise=0.3)])
def test_a_prompt_that_is_not_shown_to_be_better_is_not(losses: list[float | None]) -> None:
    choice = chosen(losses)
    assert choice.kept == "manual_prompt" and choice.p_value is not None and choice.p_value > 0.1


def test_train_which_steered_says_nothing() -> None:
    fitted = [0.0] * TRAIN + MANUAL[TRAIN:]
    assert chosen(list(fitted)).kept == "manual_prompt"


def test_the_p_value_is_that_of_a_paired_t_test() -> None:
    from scipy.stats import ttest_rel

    losses = lower(0.01, noise=0.05)
    expected = ttest_rel(MANUAL[TRAIN:], losses[TRAIN:], alternative="greater").pvalue
    assert chosen(losses).p_value == pytest.approx(expected)


def test_rows_without_a_loss_are_left_out() -> None:
    losses = lower(0.1)
    losses[-1] = None
    assert chosen(losses).kept == "tuned"


@pytest.mark.parametrize("more", [{"significance": None}, {"select": "metric"}])
def test_nothing_is_weighed_where_dev_alone_selects_or_nobody_asks(more: dict[str, Any]) -> None:
    choice = chosen(lower(-0.5), **more)
    assert (choice.kept, choice.p_value) == ("tuned", None)


def test_the_summary_returns_the_manual_prompt_and_tells_of_the_tuned_one() -> None:
    summary = summarize(Digest(rows_of(lower(-0.1))), config_of())
    best = summary["best"]
    assert (best["kept"], best["method"], best["test_metric"]) == ("manual_prompt", "manual prompt", 0.75)
    assert best["test_metric_label_words"] == 0.55
    assert (best["tuned"]["method"], best["tuned"]["test_metric"]) == ("bbt", 0.8)
    with_head = summary["baseline"]["manual_prompt_with_head"]
    assert (with_head["dev_metric"], with_head["test_metric"], with_head["queries"]) == (0.7, 0.75, 2)
    assert with_head["test_interval"] == pytest.approx([0.657, 0.825], abs=1e-3)
    assert summary["baseline"]["bag_of_words"]["test_metric"] == 0.5
    better = summarize(Digest(rows_of(lower(0.1))), config_of())["best"]
    assert (better["kept"], better["test_metric"], better["tuned"]) == ("tuned", 0.8, None)
    assert better["test_metric_label_words"] == 0.6
