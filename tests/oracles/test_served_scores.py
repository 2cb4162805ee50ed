"""What is read from servers' answers: label words among tokens, answers in words, usage, and all that is neither."""

import json
from typing import Any

import numpy as np
import pytest

from distributed_tuner.oracles.served_scores import (
    LabelTokens,
    Unusable,
    Usage,
    first_choice,
    generated_scores,
    parsed,
    top_logprobs,
    usage_of,
    written,
)

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
    scored = LabelTokens((" positive", " poor")).scores({" po": -0.1, " pos": -1.0, " x": -4.0})
    assert scored.scores.tolist() == [-1.0, -4.0]
    assert scored.counts == {"absent_labels": 1}


def test_an_absent_label_is_bounded_and_counted_and_without_any_nothing_is_known() -> None:
    labels = LabelTokens((" great", " terrible", " dull"))
    scored = labels.scores({" great": -0.5, " the": -2.0, " a": -7.0})
    assert scored.scores.tolist() == [-0.5, -7.0, -7.0]
    assert scored.counts == {"absent_labels": 2}
    scored = labels.scores({" the": -2.0, " a": -7.0})
    assert np.isnan(scored.scores).all()
    assert scored.counts == {"absent_examples": 1}


def test_with_a_tokenizer_tokens_are_known_and_nothing_else_stands_for_them() -> None:
    labels = LabelTokens(WORDS, (7, 9), ((" great", "Ġgreat"), (" ter", "Ġter")))
    assert labels.scores({"token_id:7": -1.0, "token_id:9": -2.0}).scores.tolist() == [-1.0, -2.0]
    assert labels.scores({"Ġgreat": -1.0, " ter": -2.0}).scores.tolist() == [-1.0, -2.0]
    scored = labels.scores({" great": -1.0, " terrible": -2.0, "x": -5.0})
    assert scored.scores.tolist() == [-1.0, -5.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Great, really", [1.0, 0.0, 0.0]),
        ("\n\nTERRIBLE", [0.0, 1.0, 0.0]),
        ("greatest of all", [0.0, 0.0, 1.0]),  # the longest word that fits
        ("so great", [0.0, -1.0, 0.0]),
        ("", [0.0, -1.0, 0.0]),
    ],
)
def test_an_answer_in_words_scores_the_label_that_it_begins_with(text: str, expected: list[float]) -> None:
    scored = generated_scores(text, (" great", " terrible", " greatest"), label=1)
    assert scored.scores.tolist() == expected
    assert scored.counts == ({} if 1.0 in expected else {"unmatched_answers": 1})


@pytest.mark.parametrize("label", [0, 1])
def test_an_answer_that_is_no_label_is_wrong_whatever_the_truth(label: int) -> None:
    assert int(generated_scores("I cannot say", WORDS, label).scores.argmax()) != label


def test_logprobs_are_read_in_the_form_of_either_api() -> None:
    listed = [{"token": " a", "logprob": -1}, {"token": " b", "logprob": -2.5}]
    chat = {"logprobs": {"content": [{"token": " a", "logprob": -1, "top_logprobs": listed}]}}
    completion = {"logprobs": {"tokens": [" a"], "top_logprobs": [{" a": -1, " b": -2.5}]}}
    assert top_logprobs(chat) == top_logprobs(completion) == {" a": -1.0, " b": -2.5}


def test_odd_entries_are_left_out_and_minus_infinity_is_bounded() -> None:
    told = json.loads('{"a": -1, "b": NaN, "c": "x", "d": true, "e": 3.5, "f": -Infinity, "g": null}')
    told["h"] = 10**400
    assert top_logprobs({"logprobs": {"top_logprobs": [told]}}) == {"a": -1.0, "f": -9999.0}


@pytest.mark.parametrize(
    "logprobs",
    [None, 7, {}, {"content": None}, {"content": [None]}, {"top_logprobs": []}, {"top_logprobs": [[" a", -1]]}],
)
def test_an_answer_without_logprobs_is_not_worth_another(logprobs: Any) -> None:
    with pytest.raises(Unusable, match="no logprobs") as caught:
        top_logprobs({"logprobs": logprobs})
    assert not caught.value.again


@pytest.mark.parametrize("body", ["", "{broken", "null", "[1, 2]", "[" * 100_000, "<html></html>"])
def test_what_is_no_json_object(body: str) -> None:
    with pytest.raises(Unusable, match="no JSON object") as caught:
        parsed(body.encode())
    assert caught.value.again


@pytest.mark.parametrize("answer", [{}, {"choices": None}, {"choices": []}, {"choices": 5}, {"choices": [None]}])
def test_what_holds_no_choice(answer: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match="no choice"):
        first_choice(answer)


def test_text_of_either_api() -> None:
    assert written({"text": " great"}) == written({"message": {"content": " great"}}) == " great"
    assert written({"message": {"content": None}}) == ""
    with pytest.raises(Unusable, match="no text"):
        written({"message": {"role": "assistant"}})


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 3}, Usage(20, 0, 3)),
        ({"prompt_tokens": 20, "prompt_tokens_details": {"cached_tokens": 16}}, Usage(20, 16, 0)),
        ({"prompt_tokens": 20, "prompt_tokens_details": {"cached_tokens": 90}}, Usage(20, 20, 0)),
        ({"prompt_tokens": 20, "prompt_tokens_details": None, "completion_tokens": "many"}, Usage(20, 0, 0)),
        (None, None),
        ({"prompt_tokens": -4}, None),
        ({"prompt_tokens": 10**400}, None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert usage_of({"usage": usage}) == expected
