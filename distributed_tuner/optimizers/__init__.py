"""Optimizers that ask for candidates and learn from their losses. ``build`` makes one from its settings.

They never see a model, a budget or an oracle: stages bring those together. Growing the family: one config class, one
file, one case below; the conformance suite takes it from there.
"""

from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np

from distributed_tuner.config.optimizer import (
    AdamWConfig,
    CmaConfig,
    CustomFirstOrderConfig,
    CustomOptimizerConfig,
    FirstOrderConfig,
    NevergradConfig,
    OptimizerConfig,
    RandomSearchConfig,
    SgdConfig,
    SurrogateConfig,
    TokenEditConfig,
    TrainableConfig,
    ZotConfig,
)
from distributed_tuner.custom import made, subclass
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers.base import Optimizer, promised
from distributed_tuner.optimizers.cma import Cma
from distributed_tuner.optimizers.first_order import AdamW, Sgd, Trainable
from distributed_tuner.optimizers.nevergrad import Nevergrad
from distributed_tuner.optimizers.nevergrad_words import NevergradWords
from distributed_tuner.optimizers.random_search import RandomSearch
from distributed_tuner.optimizers.surrogate import Surrogate
from distributed_tuner.optimizers.token_edit import TokenEdit
from distributed_tuner.optimizers.zot import Zot
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array, Start

__all__ = ["Optimizer", "TrainableOptimizer", "build"]


def __getattr__(name: str) -> Any:
    """Return ``TrainableOptimizer``, which loads torch, when it is asked for."""
    if name == "TrainableOptimizer":
        from distributed_tuner.optimizers import trainable

        return trainable.TrainableOptimizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def build(
    config: OptimizerConfig | FirstOrderConfig,
    *,
    dim: int,
    key: Key,
    steps: int,
    start: Start | None = None,
    vocabulary: Sequence[str] = (),
) -> Optimizer:
    """Return the optimizer that ``config`` describes, before its first step.

    dim: P, the prompt's coordinates; the most words of a prompt where the search is in words. key: ``(run_seed,
    trial_id, stage)``, the prefix of all its randomness. steps: how many are planned, for schedules and budgets of its
    own. start: initial coordinates, shape (P,), copied, or a text; zeros or no words when None. vocabulary: what a
    search in words may take. Raises ConfigError for settings that cannot work together, OptimizerError where a member
    cannot be made.
    """
    if dim < 1 or steps < 1 or not key:
        raise ConfigError(f"dim and steps must be at least 1 and key not empty; got {dim}, {steps} and {key!r}")
    with promised(config.kind, "be made of its settings"):
        return _made(config, dim, key, steps, start, vocabulary)


def _made(
    config: OptimizerConfig | FirstOrderConfig,
    dim: int,
    key: Key,
    steps: int,
    start: Start | None,
    vocabulary: Sequence[str],
) -> Optimizer:
    if isinstance(config, TokenEditConfig):
        text, words = _checked_text(start), _checked_words(vocabulary)
        return TokenEdit(config, dim=dim, key=key, start=text, words=words)
    if isinstance(config, NevergradConfig) and config.space == "words":
        text, words = _checked_text(start), _checked_words(vocabulary)
        return NevergradWords(config, dim=dim, key=key, steps=steps, start=text, words=words)
    if isinstance(config, CustomOptimizerConfig | CustomFirstOrderConfig):
        return _own(config, dim, key, steps, start, vocabulary)
    x = _checked_start(start, dim)
    match config:
        case RandomSearchConfig():
            return RandomSearch(config, dim=dim, key=key, start=x)
        case ZotConfig():
            return Zot(config, dim=dim, key=key, steps=steps, start=x)
        case SurrogateConfig():
            return Surrogate(config, dim=dim, key=key, start=x)
        case CmaConfig():
            return Cma(config, dim=dim, key=key, start=x)
        case NevergradConfig():
            return Nevergrad(config, dim=dim, key=key, steps=steps, start=x)
        case AdamWConfig():
            return AdamW(config, dim=dim, key=key, steps=steps, start=x)
        case SgdConfig():
            return Sgd(config, dim=dim, key=key, steps=steps, start=x)
        case TrainableConfig():
            return Trainable(config, dim=dim, key=key, steps=steps, start=x)
        case _:
            assert_never(config)


def _own(
    config: CustomOptimizerConfig | CustomFirstOrderConfig,
    dim: int,
    key: Key,
    steps: int,
    start: Start | None,
    vocabulary: Sequence[str],
) -> Optimizer:
    """Make an optimizer of the user's own."""
    words, white_box = config.is_discrete, isinstance(config, CustomFirstOrderConfig)
    found: type[Optimizer] = subclass(config, Optimizer, ["_relocate_text" if words else "_relocate"])
    if found.white_box != white_box:
        raise ConfigError(
            f"search stages have optimizers that learn from losses, gradient stages those whose white_box is true, but"
            f" {config.import_path} has white_box = {found.white_box}; put it into a stage of kind"
            f" {'search' if white_box else 'gradient'}, or mend white_box"
        )
    if found.is_discrete != words:
        raise ConfigError(
            f"an optimizer's space must be what its class searches, but {config.import_path} has is_discrete ="
            f" {found.is_discrete} and space is {getattr(config, 'space', 'coordinates')}; set space:"
            f" {'words' if found.is_discrete else 'coordinates'}"
        )
    given: dict[str, Any] = {"dim": dim, "key": key, "steps": steps}
    if words:
        given |= {"start": _checked_text(start), "vocabulary": _checked_words(vocabulary)}
    else:
        given |= {"start": _checked_start(start, dim)}
    optimizer: Optimizer = made(config, found, given)
    if not hasattr(optimizer, "_pending"):
        raise ConfigError(
            "the constructor of an optimizer begins with super().__init__(dim, key), but that of"
            f" {config.import_path} does not; add it"
        )
    for name, count in (("queries_per_step", optimizer.queries_per_step), ("batch_size", optimizer.batch_size or 1)):
        if not isinstance(count, int) or count < 1:
            raise ConfigError(
                f"{name} of an optimizer is a whole number of at least 1, but that of {config.import_path} is"
                f" {count!r}; mend it there, or change settings"
            )
    return optimizer


def _checked_text(start: Start | None) -> str:
    if isinstance(start, str) or start is None:
        return start or ""
    raise ConfigError("a search in words starts from a text, but got coordinates; give it the prompt's words")


def _checked_words(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Return the different words of a vocabulary, without the spaces around them."""
    words = tuple(dict.fromkeys(word.strip() for word in vocabulary if word.strip()))
    if len(words) < 2:
        raise ConfigError(
            f"a search in words needs at least 2 different words, got {len(words)}; set prompt.vocabulary to words or"
            " task"
        )
    return words


def _checked_start(start: Start | None, dim: int) -> Array:
    """Return ``start`` or zeros, float32, shape (dim,)."""
    if start is None:
        return np.zeros(dim, dtype=np.float32)
    if isinstance(start, str):
        raise ConfigError("a search of coordinates starts from coordinates, but got a text; embed it first")
    x = np.array(start, dtype=np.float32)
    if x.shape != (dim,) or not np.isfinite(x).all():
        raise ConfigError(f"start must be {dim} finite coordinates; got shape {x.shape}: flatten the prompt's rows")
    return x
