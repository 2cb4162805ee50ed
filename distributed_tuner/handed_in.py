"""Models given as Python objects: their settings, and the oracle made from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from distributed_tuner import oracles
from distributed_tuner.config.oracle import GivenOracleConfig, OracleBase, OracleConfig
from distributed_tuner.errors import ConfigError, ModelError
from distributed_tuner.oracles.base import MEMBERS, LossOracle
from distributed_tuner.oracles.codec import PlainCodec, codec_of
from distributed_tuner.oracles.cost_model import Counter, GivenCounter, build_counter

KINDS = "a hub id or directory, a (model, tokenizer) pair of transformers, an oracle's settings, or a LossOracle"


@dataclass(frozen=True, slots=True)
class Source:
    """A model that was handed in.

    tree: the oracle's settings, as a search space has them. given: it is an object, which cannot be made again from
    these. build, count: make its oracle and its counter of the settings. soft: it takes soft prompts. knows_words: it
    has a codec. profiles: its losses may be those after a head.
    """

    tree: dict[str, Any]
    build: Callable[[OracleConfig], LossOracle] = oracles.build
    count: Callable[[OracleConfig], Counter] = build_counter
    given: bool = False
    soft: bool = True
    knows_words: bool = True
    profiles: bool = True


def source_of(model: Any, tokenizer: Any = None) -> Source:
    """Return what a model that was handed in is.

    Raises:
        ConfigError: it is none that can be tuned for; says what is missing.
        ModelError: a model of transformers lies on several devices, or is on none.
    """
    if isinstance(model, tuple):
        if len(model) != 2:
            raise ConfigError(
                f"a model as a pair must be (model, tokenizer), but it has {len(model)} parts; give {KINDS}"
            )
        return source_of(*model)
    if isinstance(model, str):
        if "://" in model:
            raise ConfigError(
                f"a server needs its model's name in addition to its URL, but only {model!r} was given; write"
                f" Server(model=..., base_url={model!r})"
            )
        return Source({"kind": "transformers", "model": model})
    if isinstance(model, OracleBase | Mapping):
        tree = dict(model) if isinstance(model, Mapping) else written(model)
        served = tree.get("kind") == "openai"
        soft, profiles = not served or bool(tree.get("prompt_embeds")), tree.get("scores") != "generated"
        return Source(tree, soft=soft, profiles=profiles)
    if callable(getattr(model, "get_input_embeddings", None)) and hasattr(model, "config"):
        return _transformers(model, tokenizer)
    return _oracle(model)


def oracle_of(tree: Mapping[str, Any]) -> OracleConfig:
    """Return an oracle's settings of a tree.

    Raises:
        ConfigError: they break a rule.
    """
    try:
        adapter: TypeAdapter[OracleConfig] = TypeAdapter(OracleConfig)
        return adapter.validate_python(tree)
    except ValidationError as error:
        raise ConfigError(f"the model's settings break a rule: {error.errors(include_url=False)[0]['msg']}") from None


def written(config: BaseModel) -> dict[str, Any]:
    """Return settings as a search space has them: the kind, and what was set."""
    told = config.model_dump(mode="json", exclude_unset=True)
    return {"kind": kind} | told if (kind := getattr(config, "kind", None)) is not None else told


def _transformers(model: Any, tokenizer: Any) -> Source:
    from distributed_tuner.oracles.local.borrowed import BorrowedModel, config_of
    from distributed_tuner.oracles.local.cost_model import TokenCounter
    from distributed_tuner.oracles.local.model_facts import GivenModel

    if tokenizer is None:
        raise ConfigError(
            f"a {type(model).__name__} object needs its tokenizer, but none was given; write"
            " tune((model, tokenizer), ...), or tokenizer=AutoTokenizer.from_pretrained(...)"
        )
    if not callable(tokenizer) or not hasattr(tokenizer, "convert_ids_to_tokens"):
        raise ConfigError(
            f"the tokenizer must be one of transformers, but got {type(tokenizer).__name__}; take"
            " AutoTokenizer.from_pretrained(...)"
        )
    config = config_of(model)
    return Source(
        written(config),
        build=lambda resolved: BorrowedModel(_same(resolved, config), model, tokenizer),
        count=lambda resolved: TokenCounter(_same(resolved, config), GivenModel(model, tokenizer)),
        given=True,
    )


def _same(resolved: Any, config: Any) -> Any:
    """Return the settings as a run has resolved them; float32 cannot be had where rounding swamps."""
    if resolved.dtype != config.dtype:
        raise ModelError(f"the model was handed in as {config.dtype}; hand it in as {resolved.dtype} instead")
    return resolved


def _oracle(oracle: Any) -> Source:
    missing = [name for name in MEMBERS if not hasattr(oracle, name)]
    if missing:
        near = len(missing) < len(MEMBERS)
        lacks = f" It lacks {', '.join(missing)} of the LossOracle protocol." if near else ""
        raise ConfigError(f"a model must be {KINDS}, but got {type(oracle).__name__}.{lacks}")
    return Source(
        written(GivenOracleConfig(kind="given", name=type(oracle).__name__)),
        build=lambda resolved: oracle,
        count=lambda resolved: GivenCounter(oracle),
        given=True,
        soft=oracle.info.soft,
        knows_words=not isinstance(codec_of(oracle), PlainCodec),
        profiles=False,  # its losses are its own
    )
