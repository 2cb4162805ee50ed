"""The benchmarks' texts: the same everywhere, of the lengths that are claimed."""

from typing import Any

import pytest

from benchmarks.plain import Plain
from benchmarks.random_models import make_tokenizer
from benchmarks.texts import LABEL_WORDS, LENGTHS, TAIL, batch


def test_sst2_like_lengths_are_those_that_are_claimed() -> None:
    lengths = LENGTHS["SST-2"]
    assert (len(lengths), sum(lengths) / 32, max(lengths)) == (32, 25.0, 48)
    assert sum(LENGTHS["150 tokens"]) / 32 == 149.5


@pytest.mark.parametrize("name", ["SST-2", "150 tokens"])
def test_every_length_occurs_and_labels_are_balanced(name: Any) -> None:
    examples = batch(name).examples
    words = [len((example.text + example.cue).split()) for example in examples]
    assert sorted(words) == sorted(LENGTHS[name])
    assert words != sorted(words)
    assert sum(example.label for example in examples) == 16
    assert batch(name) == batch(name)


@pytest.mark.parametrize("masked", [False, True])
def test_a_word_is_a_token_of_the_tokenizer_that_is_made_on_the_spot(masked: bool) -> None:
    tokenizer = make_tokenizer(masked)
    plain = Plain(None, tokenizer, batch("SST-2", tail=TAIL if masked else ""))
    beside = 4 if masked else 1  # <s>, mask, " .", </s>; or <s>
    assert sorted(plain.lengths("add")) == sorted(length + beside for length in LENGTHS["SST-2"])
    assert all(len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1 for word in LABEL_WORDS)


@pytest.mark.model
def test_a_word_is_a_token_of_smollm2() -> None:
    from transformers import AutoTokenizer

    from distributed_tuner.oracles.local.loading import locate

    tokenizer = AutoTokenizer.from_pretrained(locate("smollm2-135m"))
    for name, lengths in LENGTHS.items():
        plain = Plain(None, tokenizer, batch(name))
        assert {sum(plain.lengths(layout)) for layout in ("prefix", "suffix", "add")} == {sum(lengths)}
