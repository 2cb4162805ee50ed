"""Optimizers that ask for candidates and learn from their losses.

``build`` makes one from its settings, ``build_probe`` what measures settings that are "auto".

They never see a model, a budget or an oracle: stages bring those together. Growing the family: one config class, one
file, one case below; the conformance suite takes it from there. One that has settings to be measured says which in its
config, and has a probe.
"""

from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np

from distributed_tuner.config.first_order import (
    AdamWConfig,
    CustomFirstOrderConfig,
    FirstOrderConfig,
    SgdConfig,
    TrainableConfig,
)
from distributed_tuner.config.optimizer import (
    CmaConfig,
    CustomOptimizerConfig,
    NevergradConfig,
    OptimizerConfig,
    RandomSearchConfig,
    SurrogateConfig,
    TokenEditConfig,
    ZotConfig,
)
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.optimizers.cma import Cma
from distributed_tuner.optimizers.cma_probe import CmaProbe
from distributed_tuner.optimizers.contract import promised
from distributed_tuner.optimizers.custom import own_optimizer, own_probe
from distributed_tuner.optimizers.first_order import AdamW, Sgd, Trainable
from distributed_tuner.optimizers.nevergrad import Nevergrad
from distributed_tuner.optimizers.nevergrad_words import NevergradWords
from distributed_tuner.optimizers.probe import Measured, Probe
from distributed_tuner.optimizers.random_search import RandomSearch
from distributed_tuner.optimizers.surrogate import Surrogate
from distributed_tuner.optimizers.token_edit import TokenEdit
from distributed_tuner.optimizers.zot import Zot
from distributed_tuner.optimizers.zot_probe import ZotProbe
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array, Center, Start

__all__ = ["Measured", "Optimizer", "Probe", "TrainableOptimizer", "build", "build_probe"]


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


def build_probe(config: OptimizerConfig, *, start: Start, key: Key, unit: float) -> Probe | None:
    """Return what measures the settings that ``config`` leaves to "auto"; None where it leaves none.

    start: where the search begins: coordinates, shape (P,), or a text. key: the prefix of the probe's randomness. unit:
    how long a standard deviation of the model's embeddings is in coordinates. Raises ConfigError where nothing can
    measure them.
    """
    if not config.unresolved:
        return None
    if isinstance(config, CustomOptimizerConfig):
        return own_probe(config, start, key, unit)
    assert not isinstance(start, str), "settings are measured around coordinates"
    center = Center("/".join(map(str, key)), start)
    match config:
        case ZotConfig():
            return ZotProbe(config, center, key, unit)
        case CmaConfig():
            return CmaProbe(config, center, key, unit)
        case _:
            raise AssertionError(f"{config.kind} says what may be measured, but has no probe")


def _made(
    config: OptimizerConfig | FirstOrderConfig,
    dim: int,
    key: Key,
    steps: int,
    start: Start | None,
    vocabulary: Sequence[str],
) -> Optimizer:
    if config.is_discrete:
        return _of_words(config, dim, key, steps, _checked_text(start), _checked_words(vocabulary))
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
        case CustomOptimizerConfig() | CustomFirstOrderConfig():
            return own_optimizer(config, {"dim": dim, "key": key, "steps": steps, "start": x})
        case TokenEditConfig():
            raise AssertionError("token_edit searches words")
        case _:
            assert_never(config)


def _of_words(
    config: OptimizerConfig | FirstOrderConfig, dim: int, key: Key, steps: int, text: str, words: tuple[str, ...]
) -> Optimizer:
    match config:
        case TokenEditConfig():
            return TokenEdit(config, dim=dim, key=key, start=text, words=words)
        case NevergradConfig():
            return NevergradWords(config, dim=dim, key=key, steps=steps, start=text, words=words)
        case CustomOptimizerConfig():
            given = {"dim": dim, "key": key, "steps": steps, "start": text, "vocabulary": words}
            return own_optimizer(config, given)
        case _:
            raise AssertionError(f"{config.kind} does not search words")


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
