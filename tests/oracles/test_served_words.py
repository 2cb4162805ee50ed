"""Labels in written answers: found in the text around them, and never guessed."""

import numpy as np
import pytest

from distributed_tuner.clients.openai_answers import Unusable
from distributed_tuner.oracles.served.answer_words import generated_scores, named_label

WORDS = (" bad", " good")


@pytest.mark.parametrize(
    "text",
    [
        "good",
        " Good, really",
        "\n\nGOOD",
        '"good"',
        "\u201cGood\u201d.",
        "\u00ab good \u00bb",
        "**Good**",
        "`good`",
        "- good",
        "1. good",
        "# Good",
        "(good)",
        "Answer: good",
        "**Answer:** good",
        "Final Answer: **Good**.",
        "Label \u2192 good",
        "Sentiment - good",
        "The answer is good.",
        "I'd say it's good",
        "It was good.",
        "it was: good",
        "Sure! The label is **good**",
        "The review praises the soup. Final answer: good",
        "The review is good, not bad",
        '{"label": "good"}',
        '```json\n{"sentiment": "good"}\n```',
        "<answer>good</answer>",
        "\\boxed{good}",
        "$\\boxed{\\text{good}}$",
        "<think>Is it bad? It is bad...</think>\n\ngood",
        "so it is bad after all</think>good",  # where the template begins the thought
        "<|channel|>analysis<|message|>bad?<|end|><|start|>assistant<|channel|>final<|message|>good",
    ],
)
def test_the_label_is_found_in_what_models_write_around_it(text: str) -> None:
    assert generated_scores(text, WORDS, " It was").scores.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot say",
        "not good",
        "It was not good",
        "It isn't good",
        "The soup isn't: good",
        "Neither good nor bad",
        "good or bad? I'd say bad",
        "good/bad",
        "Good and bad",
        "Possible label: good or bad",
        "goodness",
        "so good",
    ],
)
def test_an_answer_that_leaves_a_doubt_is_wrong_whatever_the_truth(text: str) -> None:
    scored = generated_scores(text, WORDS, " It was")
    assert np.isneginf(scored.scores).all()
    assert scored.counts == {"unmatched_answers": 1}
    assert scored.sample


@pytest.mark.parametrize(
    ("text", "words", "label"),
    [
        ("greatest of all", (" great", " terrible", " greatest"), 2),  # the longest word that fits
        ("C++", (" C", " C++"), 1),
        ("C", (" C", " C++"), 0),
        ("\u597d\u7684", ("\u597d", "\u574f"), 0),  # scripts that do not part words
        ("10/10", ("1", "2"), None),
        ("2", ("1", "2"), 1),
        ("Not sure", ("yes", "no"), None),
        ("Sci/Tech", (" World", " Sci/Tech"), 1),
        ("Business", (" World", " Business", ""), 1),
    ],
)
def test_words_of_all_kinds(text: str, words: tuple[str, ...], label: int | None) -> None:
    assert named_label(text, words) == label


def test_thoughts_that_come_to_no_end_are_no_answer() -> None:
    with pytest.raises(Unusable, match="all of them thoughts"):
        generated_scores("<think>\nOkay, the user", WORDS, cut=True)
    assert generated_scores("<think>\nOkay, the user", WORDS).counts == {"unmatched_answers": 1}
