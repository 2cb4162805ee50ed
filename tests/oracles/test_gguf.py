"""GGUF tokenizers: texts are cut as llama.cpp cuts them, or a warning names the difference."""

from typing import Any

import pytest
from tiny_models import make_tokenizer

from distributed_tuner.oracles.local.gguf import restore_splits

PIECES = {
    "room  101": ["room", "  ", "1", "0", "1"],
    "a\n\n1. one": ["a", "\n\n", "1", ".", " one"],
    "12  34": ["1", "2", "  ", "3", "4"],
    "x 1": ["x", " ", "1"],
    "  1": ["  ", "1"],
    "a  b": ["a", " ", " b"],
    "3.14": ["3", ".", "1", "4"],
    "\u00bd \u00b2  \u0663": ["\u00bd", " ", "\u00b2", "  ", "\u0663"],
    "10\n\n 20": ["1", "0", "\n\n ", "2", "0"],
    "it's 5  o'clock": ["it", "'s", " ", "5", " ", " o", "'", "clock"],
}


def pieces(tokenizer: Any, text: str) -> list[str]:
    """Return the parts that no merge reaches over."""
    found = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    return [text[at:until] for _, (at, until) in found]


@pytest.mark.parametrize("text", PIECES)
def test_smollm_cuts_at_every_digit(text: str) -> None:
    tokenizer = make_tokenizer(bos=False)
    restore_splits(tokenizer, "gpt2", "smollm")
    assert pieces(tokenizer, text) == PIECES[text]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_as_transformers_reads_it_spaces_stick_to_digits() -> None:
    assert pieces(make_tokenizer(bos=False), "room  101") == ["room", " ", " 101"]


@pytest.mark.parametrize(
    ("kind", "split", "told"),
    [
        ("gpt2", "gpt-2", False),
        ("gpt2", "llama-bpe", False),
        ("gpt2", "qwen2", False),
        ("llama", None, False),
        ("gpt2", "deepseek-llm", True),
        ("gpt2", None, True),
    ],
)
def test_a_pre_tokenizer_that_is_not_known_is_named(
    kind: str, split: str | None, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = make_tokenizer(bos=False)
    before = tokenizer.backend_tokenizer.to_str()
    restore_splits(tokenizer, kind, split)
    assert tokenizer.backend_tokenizer.to_str() == before
    assert (f"names the pre-tokenizer {split!r}" in caplog.text) == told
