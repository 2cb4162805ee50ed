"""A model that is met again: the same facts and the same ids as transformers gives, and only where that is certain."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import ARCHITECTURES, MASKED_ARCHITECTURES, make_tokenizer, save_tiny
from transformers import MambaConfig, PreTrainedTokenizerFast

from distributed_tuner.oracles.local import loading, model_facts
from distributed_tuner.oracles.local.loading import load_model_config, load_tokenizer
from distributed_tuner.oracles.local.machine_cache import keep, recall
from distributed_tuner.oracles.local.model_facts import PROBES, CountedModel, KeptTokenizer
from distributed_tuner.oracles.local.speed import trunk_parameters
from distributed_tuner.oracles.served.text_prompts import Source

TEXTS = (
    *PROBES,
    "a film",
    " It was",
    "good\n",
    "Classify<s>review </s>",
    "It is <mask>.",
    "\u200bzero \ud7ff \x00 width",
)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give every test a cache of its own."""
    monkeypatch.setenv("DISTRIBUTED_TUNER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ids(tokenizer: Any) -> list[list[int]]:
    return [
        list(tokenizer(text, add_special_tokens=special)["input_ids"]) for text in TEXTS for special in (True, False)
    ]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MASKED_ARCHITECTURES])
def test_a_model_that_was_met_says_the_same(architecture: str, bos: bool, tiny_directory: Callable[..., Path]) -> None:
    source = Source(str(tiny_directory(architecture, bos)))
    first, again = CountedModel(source), CountedModel(source)
    assert not isinstance(first.tokenizer, KeptTokenizer) and isinstance(again.tokenizer, KeptTokenizer)
    assert again.facts == first.facts
    assert again.weights == first.weights == trunk_parameters(load_model_config(source))
    theirs = load_tokenizer(source)
    assert ids(again.tokenizer) == ids(theirs)
    every = list(range(len(theirs)))
    assert again.tokenizer.convert_ids_to_tokens(every) == theirs.convert_ids_to_tokens(every)
    assert (again.tokenizer.mask_token, again.tokenizer.mask_token_id) == (theirs.mask_token, theirs.mask_token_id)
    assert again.tokenizer.all_special_ids == theirs.all_special_ids


@pytest.mark.parametrize("settings", [{"split_special_tokens": True}, {"extra_special_tokens": ["<new>", "film"]}])
def test_settings_beside_the_tokenizer_s_own_file_count(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = save_tiny("gpt2", tmp_path / "model")
    theirs = make_tokenizer(bos=True)
    PreTrainedTokenizerFast(tokenizer_object=theirs.backend_tokenizer, bos_token="<s>", **settings).save_pretrained(
        folder
    )
    source = Source(str(folder))
    CountedModel(source)
    again = CountedModel(source).tokenizer
    assert isinstance(again, KeptTokenizer)
    assert ids(again) == ids(load_tokenizer(source))


def test_other_files_are_another_model(tmp_path: Path) -> None:
    source = Source(str(save_tiny("gpt2", tmp_path / "model")))
    CountedModel(source)
    make_tokenizer(bos=True).save_pretrained(source.model)
    changed = CountedModel(source)
    assert not isinstance(changed.tokenizer, KeptTokenizer)
    assert changed.tokenizer("a film")["input_ids"] == load_tokenizer(source)("a film")["input_ids"]


def test_a_model_with_code_of_its_own_is_never_kept(cache: Path, tmp_path: Path) -> None:
    source = Source(str(save_tiny("gpt2", tmp_path / "model")), trust_remote_code=True)
    assert CountedModel(source).weights == CountedModel(source).weights
    assert not cache.exists()


def test_an_id_of_the_hub_is_never_kept(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path, tiny_directory: Callable[..., Path]
) -> None:
    """The hub's files may change behind the same name."""
    folder = str(tiny_directory("gpt2"))
    monkeypatch.setattr(loading, "locate", lambda name: folder)  # as transformers finds it in its own cache
    assert not isinstance(CountedModel(Source("someone/model")).tokenizer, KeptTokenizer)
    assert not cache.exists()


class Shouting(PreTrainedTokenizerFast):  # type: ignore[misc]
    """A tokenizer that does more than its library."""

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._encode_plus(text.upper(), *args, **kwargs)


def test_a_tokenizer_that_does_more_than_its_library_is_never_kept(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path
) -> None:
    source = Source(str(save_tiny("gpt2", tmp_path / "model")))
    loud = Shouting(tokenizer_object=make_tokenizer(bos=False).backend_tokenizer)
    monkeypatch.setattr(model_facts, "load_tokenizer", lambda source: loud)
    for _ in range(2):
        assert CountedModel(source).tokenizer is loud
    assert not cache.exists()


def test_a_torn_file_is_no_answer_and_neither_is_one_that_cannot_be_written(cache: Path) -> None:
    keep("some", ["key", 1], {"answer": 2})
    assert recall("some", ["key", 1]) == {"answer": 2}
    assert recall("some", ["key", 2]) is None
    (kept,) = (cache / "known").iterdir()
    kept.write_text(kept.read_text()[:-3])
    assert recall("some", ["key", 1]) is None
    kept.unlink()
    (cache / "known").rmdir()
    (cache / "known").write_text("in the way")
    keep("some", ["key", 1], 3)
    assert recall("some", ["key", 1]) is None


def test_a_model_without_attention_keeps_no_keys_of_texts(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(bos=True)
    tokenizer.save_pretrained(tmp_path)
    MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4).save_pretrained(tmp_path)
    facts = CountedModel(Source(str(tmp_path))).facts
    assert (facts.whole != "", facts.kept_numbers, facts.width) == (True, 0, 16)
