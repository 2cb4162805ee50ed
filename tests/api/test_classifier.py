"""The classifier for scikit-learn: its estimator checks, pipelines, cross-validation, what comes back."""

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from tiny_models import make_tokenizer, model_config

from distributed_tuner import Analytic, PromptClassifier, RandomSearch, SoftPrompt, TunerError

FILMS = ("film", "plot", "cast", "story", "scene", "ending")
TEXTS = [f"a {word} {noun}" for word in ("good", "bad") for noun in FILMS]
LABELS = np.array([1] * 6 + [0] * 6)

EXPECTED_FAILURES: dict[str, str] = {}
"""Checks of scikit-learn that do not hold for texts, each with the reason. None."""


def small(model: Any = None, **more: Any) -> PromptClassifier:
    """Return a classifier of a formula in place of a model, that takes milliseconds."""
    cheap = {"optimizer": RandomSearch(popsize=4), "prompt": SoftPrompt(length=2, init="zeros"), "budget": 12}
    return PromptClassifier(model or Analytic(), **{**cheap, **more})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_finds_nothing_wrong_with_it() -> None:
    """Of numbers, the checks' own data, the classifier reads the digits as words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(small(), expected_failed_checks=EXPECTED_FAILURES, on_fail=None)
    failed = {result["check_name"]: repr(result["exception"]) for result in results if result["status"] == "failed"}
    assert failed == {}
    assert len(results) > 40
    skipped = {result["check_name"] for result in results if result["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # asks for a switch of scipy's


def test_it_classifies_texts_and_keeps_the_labels_type() -> None:
    fitted = small(budget=60).fit(TEXTS, LABELS)
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.predict(TEXTS).dtype == LABELS.dtype
    likely = fitted.predict_proba(TEXTS)
    np.testing.assert_array_equal(fitted.predict(TEXTS), fitted.classes_[likely.argmax(axis=1)])
    assert fitted.score(TEXTS, LABELS) == np.mean(fitted.predict(TEXTS) == LABELS)
    assert fitted.result_.status == "done"


def test_the_columns_of_probabilities_go_by_classes_whatever_the_order_of_label_words() -> None:
    plain = small().fit(TEXTS, LABELS).predict_proba(TEXTS)
    turned = small(label_words={1: " 1", 0: " 0"}, instruction="Classify the text as 0 or 1.").fit(TEXTS, LABELS)
    assert turned.result_.labels == (1, 0)
    assert turned.classes_.tolist() == [0, 1]
    assert turned.predict_proba(TEXTS).shape == plain.shape


def test_rows_of_several_columns_are_had_by_their_names() -> None:
    frame = pd.DataFrame({"premise": TEXTS, "hypothesis": TEXTS[::-1]})
    fitted = small(template="{premise} {hypothesis} Answer:{label_word}").fit(frame, LABELS)
    assert fitted.n_features_in_ == 2
    assert fitted.predict(frame).shape == (12,)


def test_it_works_in_pipelines_and_cross_validation() -> None:
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    assert make_pipeline(lower, small()).fit(TEXTS, LABELS).predict(TEXTS).shape == (12,)
    assert cross_val_score(small(), np.array(TEXTS), LABELS, cv=2).shape == (2,)


def test_a_clone_shares_the_model_and_a_pickle_goes_without() -> None:
    fitted = small().fit(TEXTS, LABELS)
    copied = clone(fitted)
    assert copied.model is fitted.model
    assert copied.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError, match="PromptClassifier instance is not fitted yet"):
        copied.predict(TEXTS)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


@pytest.mark.model
def test_a_model_of_transformers_is_shared_by_folds() -> None:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = make_tokenizer(bos=True)
    model = LlamaForCausalLM(model_config("llama", len(tokenizer)))
    words = {0: " bad", 1: " good"}
    classifier = small((model, tokenizer), label_words=words, prompt=SoftPrompt(length=2, layout="prefix"))
    assert np.isfinite(cross_val_score(classifier, np.array(TEXTS), LABELS, cv=2, error_score="raise")).all()
    fitted = classifier.fit(TEXTS, LABELS)
    with pytest.raises(TypeError, match="cannot be pickled; save"):
        pickle.dumps(fitted)


@pytest.mark.parametrize(
    ("texts", "labels", "told"),
    [
        (TEXTS, np.ones(12), "at least 2 classes"),
        (TEXTS[:7], LABELS[:7], "class '0' has 1"),
        ([*TEXTS[:-1], " "], LABELS, "'text' is empty"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(texts: Any, labels: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        small().fit(texts, labels)


def test_texts_are_not_taken_for_rows_of_other_columns() -> None:
    fitted = small().fit(pd.DataFrame({"a": TEXTS, "b": TEXTS}), LABELS)
    with pytest.raises(ValueError, match="expecting 2 features"):
        fitted.predict(TEXTS)
    with pytest.raises(TunerError, match="is not in the template"):
        small(template="{txt}{label_word}").fit(TEXTS, LABELS)
