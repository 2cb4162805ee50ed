"""Model facts that counting needs, without transformers and torch where this machine has counted with the model before.

Loading a tokenizer and a configuration costs seconds, nearly all of them for imports of what is then not used. Of a
model in a directory the facts are kept (machine_cache.py) under the contents of its files and the versions of the
libraries, with the state of the tokenizer that transformers made of them: the same ids, by the same code of the
tokenizers library. Models whose code comes from the hub, ids of the hub, whose files may change, and tokenizers that
are more than that library's are loaded anew every time.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distributed_tuner.oracles.local.loading import (
    ModelSource,
    is_masked,
    load_model_config,
    load_tokenizer,
    locate,
    reads_ids,
    why_whole,
)
from distributed_tuner.oracles.local.machine_cache import keep, recall
from distributed_tuner.oracles.local.row_limits import context_of, reach_of
from distributed_tuner.oracles.local.speed import trunk_parameters
from distributed_tuner.oracles.tile_size import inner_size, most
from distributed_tuner.oracles.tokens.answer_encoding import Tokenizer

LIBRARIES = ("transformers", "tokenizers", "torch")
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".h5", ".msgpack", ".onnx")
FORM = 3  # of what is kept
PROBES = (
    "",
    " ",
    "The film was great.\nIt was",
    "  two  spaces, \t a tab\r\nand   Ünïcödé — 漢字 🙂 é e\u0301 \u00a0",
    "123,456.78 isn't I'LL <s> </s> <mask> [MASK] [CLS] <|endoftext|> <|im_start|> ▁under_score",
)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model's settings, as far as counting asks for them."""

    masked: bool
    context: int
    reach: int
    """Tokens of the longest row that may share a sequence with others (limits.py)."""
    whole: str
    """Why no rows share a sequence; empty where they may."""
    reads_ids: bool
    """Whether its layers read the tokens' ids in addition to their embeddings."""
    rows: int
    """Of its embeddings."""
    width: int
    """The numbers of a row of a prompt."""
    hidden_size: int
    intermediate_size: int
    """Of its layers' widest part."""
    kept_numbers: int
    """Numbers that the keys and values of one token are, over all layers."""
    weights: int | None
    """Of what every token is multiplied with (speed.py); None where it has not been counted."""


class KeptTokenizer:
    """A tokenizer as it was kept, in place of the one of transformers."""

    def __init__(self, kept: dict[str, Any]) -> None:
        from tokenizers import Tokenizer as Backend

        self._backend: Any = Backend.from_str(kept["state"])
        self._backend.encode_special_tokens = kept["split"]
        self._backend.no_truncation()
        self._backend.no_padding()
        self.mask_token: str | None = kept["mask_token"]
        self.mask_token_id: int | None = kept["mask_token_id"]
        self.all_special_ids: list[int] = kept["all_special_ids"]

    def __len__(self) -> int:
        count: int = self._backend.get_vocab_size(with_added_tokens=True)
        return count

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        return {"input_ids": self._backend.encode(text, add_special_tokens=add_special_tokens).ids}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self._backend.id_to_token(index) for index in ids]


class CountedModel:
    """A model's facts and its tokenizer."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        key = _key(source)
        self._kept = None if key is None else recall("model", key)
        if self._kept is not None:
            self.facts = ModelFacts(**self._kept["facts"])
            return
        model_config = load_model_config(source)
        self.facts = _facts(model_config)
        if key is not None and (state := _state(self.tokenizer)) is not None:
            self.facts = dataclasses.replace(self.facts, weights=trunk_parameters(model_config))
            keep("model", key, {"facts": dataclasses.asdict(self.facts), "tokenizer": state})

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Tokenizer that gives the same ids as the model's own."""
        if self._kept is not None:
            return KeptTokenizer(self._kept["tokenizer"])
        loaded: Tokenizer = load_tokenizer(self._source)
        return loaded

    @cached_property
    def weights(self) -> int:
        """The weights that every token is multiplied with."""
        counted = self.facts.weights
        return trunk_parameters(load_model_config(self._source)) if counted is None else counted


class GivenModel:
    """The facts of a model that was handed in as an object, and its tokenizer."""

    def __init__(self, model: Any, tokenizer: Tokenizer) -> None:
        self._config = model.config
        self.facts = _facts(model.config)
        self.tokenizer = tokenizer

    @cached_property
    def weights(self) -> int:
        """The weights that every token is multiplied with."""
        return trunk_parameters(self._config)


def _key(source: ModelSource) -> Any:
    """Return an identifier of tokenizer and configuration; None if it cannot be determined."""
    where = Path(locate(source.model))
    if source.trust_remote_code or not where.is_dir():
        return None
    files = {}
    try:
        for path in sorted(where.iterdir()):
            if path.is_file() and path.suffix not in WEIGHTS:
                files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
    return [FORM, {name: version(name) for name in LIBRARIES}, str(where), source.revision, files]


def _facts(model_config: Any) -> ModelFacts:
    text = model_config.get_text_config()
    whole = why_whole(model_config)
    return ModelFacts(
        masked=is_masked(model_config),
        context=context_of(model_config),
        reach=0 if whole else reach_of(model_config),
        whole=whole,
        reads_ids=reads_ids(model_config),
        rows=int(text.vocab_size),
        width=int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size),
        hidden_size=int(text.hidden_size),
        intermediate_size=inner_size(text),
        kept_numbers=0 if whole else _kept_numbers(text),
        weights=None,
    )


def _kept_numbers(text: Any) -> int:
    """Return the numbers of a token's keys and values in all layers. Models without attention have none."""
    heads = most(getattr(text, "num_key_value_heads", None)) or text.num_attention_heads
    head = getattr(text, "qk_head_dim", None) or getattr(text, "head_dim", None)
    return int(2 * text.num_hidden_layers * heads * (head or text.hidden_size // text.num_attention_heads))


def _state(tokenizer: Any) -> dict[str, Any] | None:
    """Return what a tokenizer's ids follow from; None where it does more than the tokenizers library, or differs."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    family = type(tokenizer)
    own = isinstance(tokenizer, PreTrainedTokenizerFast) and family.__call__ is PreTrainedTokenizerBase.__call__
    if (
        not own
        or hasattr(family, "_switch_to_input_mode")
        or any(
            getattr(family, name) is not getattr(PreTrainedTokenizerFast, name)
            for name in ("_encode_plus", "convert_ids_to_tokens", "set_truncation_and_padding")
        )
    ):
        return None
    state = {
        "state": tokenizer.backend_tokenizer.to_str(),
        "split": bool(tokenizer.split_special_tokens),
        "mask_token": tokenizer.mask_token,
        "mask_token_id": tokenizer.mask_token_id,
        "all_special_ids": list(tokenizer.all_special_ids),
    }
    again = KeptTokenizer(state)
    same = all(
        again(text, add_special_tokens=special)["input_ids"] == tokenizer(text, add_special_tokens=special)["input_ids"]
        for text in PROBES
        for special in (True, False)
    )
    return state if same else None
