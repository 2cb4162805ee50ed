"""Metrics of generated texts: values worked out by hand or by the libraries that they are named after, and failures."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed_tuner.config.task import CustomMetricConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.maths.text_overlap import rouge_l, squad_tokens, token_f1
from distributed_tuner.tasks.base import Task
from distributed_tuner.tasks.text_metrics import TextMetrics, require_metrics
from distributed_tuner.values import Decoding, Example

TARGETS = ("The order 4711!", "no order", "the two orders 12 and 13")
EXAMPLES = tuple(
    Example(f"row-{i}", f"text {i}", "\nOrder:", 0, where=f"file, line {i}", target=f" {target}")
    for i, target in enumerate(TARGETS)
)


def test_squad_leaves_out_articles_punctuation_and_capitals() -> None:
    assert squad_tokens("The  order, (an) 'A-1'!") == ["order", "a1"]
    assert token_f1("an order 4711", "The order 4711!") == 1.0
    assert token_f1("order 4711 and 12", "order 4711") == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert token_f1("the", "a") == 1.0 and token_f1("", "word") == 0.0
    assert token_f1("a a b b", "b b b") == pytest.approx(0.8)  # articles are gone; 2 of 2 and 2 of 3


def test_rouge_l_is_that_of_the_rouge_score_package() -> None:
    """Values of rouge-score 0.1.2, rougeL without stemming."""
    assert rouge_l("the cat was found under the bed", "the cat was under the bed") == pytest.approx(0.9230769230769231)
    assert rouge_l("police killed the gunman", "Police kill the gunman.") == pytest.approx(0.75)
    assert rouge_l("a b c d", "d c b a") == pytest.approx(0.25)
    assert rouge_l("", "word") == 0.0
    assert rouge_l("Größe über", "größe ÜBER") == 1.0  # words of all alphabets


def test_row_metrics_are_averaged_and_a_failed_answer_counts_as_empty() -> None:
    metrics = TextMetrics(("exact_match", "token_f1"))
    texts = ("The order 4711!", None, "orders 12")
    found = metrics.scores(texts, EXAMPLES)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["token_f1"] == pytest.approx((1 + 0 + 2 * 2 / (2 + 5)) / 3)
    np.testing.assert_allclose(metrics.row_losses(texts, EXAMPLES), [0, 1, 1])
    assert metrics.first(texts, EXAMPLES).value == found["exact_match"] and metrics.first_is_of_rows


def test_chrf_is_of_the_whole_corpus() -> None:
    pytest.importorskip("sacrebleu")
    texts = ("the order 471", "no", "orders 12, 13")
    found = TextMetrics(("chrf",)).first(texts, EXAMPLES).value
    alone = [TextMetrics(("chrf",)).first([text], [e]).value for text, e in zip(texts, EXAMPLES, strict=True)]
    assert 0 < found < 1 and found != pytest.approx(np.mean(alone), abs=1e-3)
    losses = TextMetrics(("chrf",)).row_losses(texts, EXAMPLES)
    assert losses.shape == (3,) and np.isfinite(losses).all() and losses.mean() == pytest.approx(1 - found, abs=0.1)


OWN = """
def length(predictions, targets, inputs, scale=1):
    assert all(text.startswith("text") for text in inputs)
    return scale * sum(map(len, predictions)) / sum(map(len, targets))
def breaks(predictions, targets, inputs):
    return 1 / min(map(len, predictions))
def nothing(predictions, targets, inputs):
    return float("nan") if "no" in predictions else 0.5
def words(predictions, targets, inputs):
    return "much"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "own_text_metrics.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield lambda name, **more: CustomMetricConfig(
        import_path=f"own_text_metrics:{name}", folders=(str(tmp_path),), settings=more
    )
    sys.modules.pop("own_text_metrics", None)


def test_a_function_of_ones_own_is_given_the_whole_set(own: Any) -> None:
    metrics = TextMetrics((own("length", scale=2),))
    texts = (TARGETS[0], TARGETS[1], "")
    whole = sum(map(len, TARGETS))
    assert metrics.scores(texts, EXAMPLES) == {"length": pytest.approx(2 * (whole - len(TARGETS[2])) / whole)}
    assert not metrics.first_is_of_rows


def test_pseudo_values_of_a_mean_are_its_rows(own: Any, tmp_path: Path) -> None:
    (tmp_path / "own_text_metrics.py").write_text(
        "def share(predictions, targets, inputs):\n"
        "    return sum(p == t for p, t in zip(predictions, targets)) / len(targets)\n"
    )
    metrics = TextMetrics((own("share"),))
    np.testing.assert_allclose(metrics.row_losses((TARGETS[0], "x", TARGETS[2]), EXAMPLES), [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("breaks", "", "ZeroDivisionError"),
        ("nothing", "no", "it returned nan, which is no finite number"),
        ("words", "no", "ValueError"),
    ],
)
def test_a_metric_that_fails_is_no_number_and_names_the_example(own: Any, name: str, text: str, why: str) -> None:
    found = TextMetrics((own(name),)).first(("some", text, "other"), EXAMPLES)
    row = 0 if name == "words" else 1
    assert math.isnan(found.value) and f"of example row-{row} (file, line {row})" in found.problem
    assert why in found.problem


def test_a_metric_is_tried_before_a_run(own: Any) -> None:
    task = Task(
        name="orders",
        label_words=(),
        label_names=("rows",),
        loss="cross_entropy",
        label_rule="single",
        metrics=("length",),
        manual_prompt="",
        description="orders",
        train=EXAMPLES,
        dev=EXAMPLES,
        test=(),
        decoding=Decoding(8),
        text_metrics=(own("length"),),
    )
    require_metrics(task)
    with pytest.raises(ConfigError, match=r"takes \(predictions, targets, inputs\).*but words of train's own targets"):
        require_metrics(replace(task, text_metrics=(own("words"),)))
    with pytest.raises(ConfigError, match="did you mean 'length'"):
        require_metrics(replace(task, text_metrics=(own("lenght"),)))
