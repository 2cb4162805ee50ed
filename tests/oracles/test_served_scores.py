"""Scores in servers' answers: label words and answer words among tokens."""

import json
import math
from typing import Any

import numpy as np
import pytest

from distributed_tuner.clients.openai_answers import Unusable
from distributed_tuner.oracles.served.logprobs import LabelTokens, bound_of, top_logprobs

WORDS = (" great", " terrible")


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({" great": -1.0, " terrible": -2.0, "great": -0.5}, (-1.0, -2.0)),  # the word itself
        ({"great": -1.0, "Great": -0.5, "terrible": -2.0, " x": -3.0}, (-1.0, -2.0)),  # but for spaces
        ({"gre": -1.0, "g": -0.5, " terri": -2.0, " ": -0.1}, (-1.0, -2.0)),  # the longest beginning
        ({"great": -1.0, " great ": -0.5, " terrible": -2.0}, (-0.5, -2.0)),  # the likelier of equals
    ],
)
def test_words_are_found_among_tokens(top: dict[str, float], expected: tuple[float, float]) -> None:
    scored = LabelTokens(WORDS).scores(top)
    np.testing.assert_allclose(scored.scores, expected, rtol=1e-6)
    assert scored.counts == {}


def test_a_beginning_of_two_words_stands_for_neither() -> None:
    scored = LabelTokens((" positive", " poor")).scores({" po": -0.9, " pos": -1.0, " x": -4.0})
    assert scored.scores.tolist() == [-1.0, -4.0]
    assert scored.counts == {"absent_labels": 1}


def test_an_absent_label_is_bounded_and_counted_and_without_any_nothing_is_known() -> None:
    labels = LabelTokens((" great", " terrible", " dull"))
    scored = labels.scores({" great": -0.5, " the": -2.0, " a": -7.0})
    assert scored.scores.tolist() == [-0.5, -7.0, -7.0]
    assert scored.counts == {"absent_labels": 2}
    scored = labels.scores({" the": -2.0, " a": -7.0})
    assert np.isneginf(scored.scores).all()
    assert scored.counts == {"absent_examples": 1}
    assert scored.sample == " the"


def test_a_label_that_is_absent_beside_the_written_token_alone_is_bounded_by_what_is_left() -> None:
    scored = LabelTokens(WORDS).scores({" great": -0.05}, asked=20)
    assert scored.scores[0] == pytest.approx(-0.05)
    assert scored.scores[1] == pytest.approx(math.log(1 - math.exp(-0.05)), rel=1e-5)
    assert scored.counts == {"absent_labels": 1, "short_answers": 1}


def test_a_bound_is_finite_whatever_is_left() -> None:
    assert bound_of({"a": 0.0}) == bound_of({"a": 0.005}) == pytest.approx(math.log(1e-6))
    assert bound_of({"a": -0.1, "b": -9.0}) == -9.0  # no other is likelier than the least of the likeliest
    assert bound_of({"a": -0.1, "b": -2.5}) == pytest.approx(math.log(1 - math.exp(-0.1) - math.exp(-2.5)))


def test_answer_words_are_tokens_as_they_are_told_and_bounded_where_they_are_not() -> None:
    labels = LabelTokens(WORDS, others=((" red",), (" blue",)))
    scored = labels.scores({" great": -1.0, " terrible": -2.0, " red": -3.0, " the": -3.5})
    np.testing.assert_allclose(scored.scores, [-1.0, -2.0, -3.0, -3.5], rtol=1e-6)
    assert scored.counts == {}
    scored = labels.scores({" red": -0.5, " the": -2.0})  # of the labels nothing is known, of the others something
    np.testing.assert_allclose(scored.scores, [-2.0, -2.0, -0.5, -2.0], rtol=1e-6)
    assert scored.counts == {"absent_examples": 1}


def test_what_stands_beside_the_label_words() -> None:
    beside = LabelTokens(WORDS).beside({" great": -1.0, "terrible ": -2.0, " the": -1.5, "gre": -9.0})
    assert beside == {" the": pytest.approx(math.exp(-1.5)), "gre": pytest.approx(math.exp(-9.0))}


def test_with_a_tokenizer_tokens_are_known_and_nothing_else_stands_for_them() -> None:
    labels = LabelTokens(WORDS, (7, 9), ((" great", "Ġgreat"), (" ter", "Ġter")))
    assert labels.scores({"token_id:7": -1.0, "token_id:9": -2.0}).scores.tolist() == [-1.0, -2.0]
    assert labels.scores({"Ġgreat": -1.0, " ter": -2.0}).scores.tolist() == [-1.0, -2.0]
    scored = labels.scores({" great": -1.0, " terrible": -2.0, "x": -5.0})
    assert scored.scores.tolist() == [-1.0, -5.0]


def test_logprobs_are_read_in_the_form_of_either_api() -> None:
    listed = [{"token": " a", "logprob": -1}, {"token": " b", "logprob": -2.5}]
    chat = {"logprobs": {"content": [{"token": " a", "logprob": -1, "top_logprobs": listed}]}}
    completion = {"logprobs": {"tokens": [" a"], "top_logprobs": [{" a": -1, " b": -2.5}]}}
    assert top_logprobs(chat) == top_logprobs(completion) == {" a": -1.0, " b": -2.5}
    assert top_logprobs({"logprobs": {"tokens": [" a"], "token_logprobs": [-1]}}) == {" a": -1.0}
    written = {"content": [{"token": " a", "logprob": -1, "top_logprobs": []}]}
    assert top_logprobs({"logprobs": written}) == {" a": -1.0}


def test_what_is_not_told_is_left_out_and_minus_infinity_is_bounded() -> None:
    told = json.loads('{"a": -1, "b": "-2.5", "f": -Infinity, "g": null}')
    assert top_logprobs({"logprobs": {"top_logprobs": [told]}}) == {"a": -1.0, "b": -2.5, "f": -9999.0}


@pytest.mark.parametrize("odd", ["NaN", '"x"', "true", "3.5", "[-1]", "1" + "0" * 400])
def test_a_logprob_that_cannot_be_makes_an_answer_unusable(odd: str) -> None:
    """Left out, it would be one more label that was absent."""
    told = json.loads(f'{{"a": -1, "b": {odd}}}')
    with pytest.raises(Unusable, match="no logarithm of a probability"):
        top_logprobs({"logprobs": {"top_logprobs": [told]}})


def test_probabilities_that_add_up_to_more_than_one_are_none() -> None:
    with pytest.raises(Unusable, match="3 tokens whose probabilities add up to 3"):
        top_logprobs({"logprobs": {"top_logprobs": [{"a": 0.0, "b": 0, "c": 1e-6}]}})
    assert top_logprobs({"logprobs": {"top_logprobs": [{"a": -0.01, "b": -4.0}]}}) == {"a": -0.01, "b": -4.0}


@pytest.mark.parametrize(
    "logprobs",
    [None, 7, {}, {"content": None}, {"content": [None]}, {"top_logprobs": []}, {"top_logprobs": [[" a", -1]]}],
)
def test_an_answer_without_logprobs_is_not_worth_another(logprobs: Any) -> None:
    with pytest.raises(Unusable, match="no logprobs") as caught:
        top_logprobs({"logprobs": logprobs})
    assert not caught.value.again
