"""Reading answers by a head: what selects, what is measured, and which head an experiment gets."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from local_trials import OPTIMIZERS, TimedOracle, evals_of, make_experiment, make_task, make_trial, measures_of, run

from distributed_tuner.config.head import (
    BiasHeadConfig,
    ContextualHeadConfig,
    DomainHeadConfig,
    HeadConfig,
    LabelWordsHeadConfig,
    VocabularyHeadConfig,
)
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.stages.reading import Reader, fitted_on, read_by, resolved_head
from distributed_tuner.stages.validation import batches, scores_of
from distributed_tuner.values import Array, Cost, Evaluation, Half, Request

TASK = make_task()
BIAS = BiasHeadConfig(kind="bias")
LABEL_WORDS = LabelWordsHeadConfig(kind="label_words")


def answered(split: Any, lean: float = 1.0, features: bool = False, seed: int = 0) -> Evaluation:
    """Return answers whose first label word is said too often, and that lean towards the label."""
    labels = np.array([example.label for example in TASK.examples(split)])
    stream = np.random.default_rng(seed)
    logits: Array = (stream.standard_normal((len(labels), 2)) + lean * np.eye(2)[labels]).astype(np.float32)
    logits[:, 0] += 3.0
    wide: Half | None = None
    if features:
        more = stream.standard_normal((len(labels), 10)) + 2 * np.outer(labels, np.ones(10))
        wide = np.concatenate([logits, more], axis=1).astype(np.float16)[None]
    return Evaluation(np.zeros(1), np.zeros((1, len(labels))), logits[None], Cost(), features=wide)


def test_a_head_reads_what_label_words_do_not() -> None:
    train, dev = answered("train", 2.5), answered("dev", 2.5, seed=1)
    plain, bias = Reader(TASK, LABEL_WORDS).read(train, dev), Reader(TASK, BIAS).read(train, dev)
    assert bias.score < plain.score and bias.dev_loss < plain.dev_loss
    assert bias.dev_metrics["accuracy"] > plain.dev_metrics["accuracy"]
    assert len(bias.losses) == len(TASK.train) + len(TASK.dev) and bias.score == pytest.approx(bias.losses.mean())


def test_what_is_saved_measures_the_same() -> None:
    reader = Reader(replace(TASK, answer_words=tuple("abcdefghij")), VocabularyHeadConfig(kind="vocabulary", words=12))
    train, dev = answered("train", features=True), answered("dev", features=True, seed=1)
    read = reader.read(train, dev)
    test = answered("test", features=True, seed=2)
    loss, scores = reader.measure(read.state, [test], "test")
    assert scores["accuracy"] > 0.8 and np.isfinite(loss)
    assert reader.batch("dev").answer_words == tuple("abcdefghij")


@pytest.mark.parametrize("kind", [ContextualHeadConfig(kind="contextual"), DomainHeadConfig(kind="domain")])
def test_a_head_that_goes_by_texts_without_content_asks_for_them(kind: HeadConfig) -> None:
    reader = Reader(TASK, kind)
    asked = batches(reader)
    assert len(asked) == 3 and asked[2].examples[0].cue == TASK.train[0].cue
    assert reader.further is not None and reader.further.examples == Reader(TASK, kind).further.examples  # type: ignore[union-attr]
    experiment = make_experiment(OPTIMIZERS["cma"], budget={"queries": 40}, head=kind.kind)
    rows = run(make_trial(experiment))
    assert {evaluation.cost.queries for evaluation in evals_of(rows)} == {3}
    assert measures_of(rows)[0].label_words_metric is not None


@pytest.mark.parametrize("head", [LABEL_WORDS, BIAS])
def test_a_refused_row_is_one_wrong_answer_and_spoils_no_other(head: HeadConfig) -> None:
    train, dev = answered("train", 9.0), answered("dev", 9.0, seed=1)
    dev.logits[0, 0] = -np.inf
    right = 1 - 1 / len(TASK.dev)
    for label in (0, 1):  # it is not right, whichever label it has
        task = replace(TASK, dev=(replace(TASK.dev[0], label=label), *TASK.dev[1:]))
        read = Reader(task, head).read(train, dev)
        assert np.isfinite(read.losses).all() and np.isfinite(read.score)
        assert read.losses[len(task.train)] == pytest.approx(math.log(2))
        assert read.dev_metrics["accuracy"] == pytest.approx(right)
        assert scores_of(task, dev, task.batch("dev"))["accuracy"] <= right


def test_rows_that_were_not_answered_tell_nothing() -> None:
    train, dev = answered("train", 6.0), answered("dev", 6.0, seed=1)
    train.logits[0, 3] = np.nan
    read = Reader(TASK, BIAS).read(train, dev)
    assert np.isnan(read.score) and np.isfinite(read.dev_loss)
    train.logits[0, [e.label == 0 for e in TASK.train]] = np.nan
    alone = Reader(TASK, BIAS, ("train",)).read(train, dev)
    assert np.isnan(alone.dev_loss) and not alone.state, "a label without an answered row fits nothing"


@pytest.mark.parametrize(
    ("oracle", "more", "kind"),
    [
        ({"kind": "analytic"}, {}, "label_words"),
        ({"kind": "transformers"}, {}, "vocabulary"),
        ({"kind": "transformers"}, {"shots": 1}, "bias"),
        ({"kind": "transformers"}, {"shots": 3, "feedback": 2}, "bias"),
        ({"kind": "transformers"}, {"loss": "zero_one"}, "label_words"),
        ({"kind": "vllm"}, {}, "vocabulary"),
        ({"kind": "openai", "model": "m"}, {}, "vocabulary"),
        ({"kind": "openai", "model": "m", "scores": "generated"}, {"loss": "zero_one"}, "label_words"),
    ],
)
def test_auto_is_the_strongest_that_oracle_and_shots_allow(
    oracle: dict[str, Any], more: dict[str, Any], kind: str
) -> None:
    experiment = make_experiment(
        OPTIMIZERS["cma"], budget={"queries": 40}, oracle=oracle, task={"kind": "demo", **more}
    )
    task = replace(TASK, loss=more.get("loss", "cross_entropy"))
    head = resolved_head(experiment, task)
    assert head.kind == kind
    assert getattr(head, "words", 0) == {"transformers": 1600, "vllm": 128, "openai": 128}.get(oracle["kind"], 0) * (
        kind == "vocabulary"
    )
    given = experiment.model_copy(update={"head": BIAS})
    assert resolved_head(given, task) is BIAS


def test_the_head_is_fitted_to_all_labels_unless_dev_alone_selects() -> None:
    for select, splits in (("cross_validation", ("train", "dev")), ("dev", ("train",)), ("metric", ("train",))):
        stage = {"eval_every": 10, "select": select}
        assert fitted_on(make_experiment(OPTIMIZERS["cma"], budget={"queries": 40}, stage=stage)) == splits


def test_a_head_may_be_named_by_its_kind_alone() -> None:
    tree = make_experiment(OPTIMIZERS["cma"], budget={"queries": 40}).model_dump() | {"head": "affine"}
    assert experiment_of(tree).head.kind == "affine"


def test_a_profiled_search_is_told_what_a_bias_leaves_and_looks_at_train_by_it() -> None:
    experiment = make_experiment(OPTIMIZERS["random_search"], budget={"queries": 30}, objective={"head": "bias"})
    task = read_by(TASK, experiment)
    oracle = TimedOracle(experiment)
    rows = run(make_trial(experiment, task, oracle))
    asked: list[Request] = [request for request in oracle.asked if request.batch.split == "train"]
    assert {request.batch.objective.head for request in asked} == {"bias"}
    assert {request.batch.objective.head for request in oracle.asked if request.batch.split != "train"} == {
        "label_words"
    }
    assert min(evaluation.train_loss or 9 for evaluation in evals_of(rows)) < np.log(2)
    step = next(request for request in asked if len(request.candidates) > 1)
    plain = replace(step, batch=replace(step.batch, objective=TASK.batch("dev").objective))
    assert (oracle.evaluate(step).losses <= oracle.evaluate(plain).losses).all()
