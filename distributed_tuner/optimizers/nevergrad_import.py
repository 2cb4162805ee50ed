"""Imports nevergrad, repairs what breaks it here (seen in 1.0.12) and knows its members. Using it is left to
``nevergrad.py``.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

import numpy as np

from distributed_tuner.errors import ConfigError
from distributed_tuner.later import Later, postponed
from distributed_tuner.optimizers.isolation import isolated_randomness

PARALLEL = frozenset(
    {
        "CMA",
        "DE",
        "DiagonalCMA",
        "DiscreteLenglerOnePlusOne",
        "DiscreteOnePlusOne",
        "DoubleFastGADiscreteOnePlusOne",
        "FastGADiscreteOnePlusOne",
        "LhsDE",
        "NGOpt",
        "NaiveTBPSA",
        "NoisyDiscreteOnePlusOne",
        "NoisyOnePlusOne",
        "OnePlusOne",
        "PSO",
        "PortfolioDiscreteOnePlusOne",
        "RandomSearch",
        "TBPSA",
        "TwoPointsDE",
    }
)
"""Members of the registry that propose any number of candidates at a time; known without nevergrad, whose import takes
seconds."""


def require_member(name: str, workers: int) -> None:
    """Check that nevergrad has an optimizer, and that it proposes so many candidates at a time.

    Raises:
        ConfigError: it has none of that name, or it proposes one at a time.
    """
    if name in PARALLEL:
        return
    with isolated_randomness(("nevergrad",)):
        registry = import_nevergrad().optimizers.registry
    if name not in registry:
        near = get_close_matches(name, list(registry), n=3, cutoff=0.4)
        raise ConfigError(
            f"optimizer must be in nevergrad's registry; got {name!r}: "
            + (f"did you mean {' or '.join(near)}?" if near else "see nevergrad.optimizers.registry")
        )
    if getattr(registry[name], "no_parallelization", False) and workers > 1:
        raise ConfigError(f"{name} proposes one candidate at a time; got num_workers {workers}: set 1")


def import_nevergrad() -> Any:
    """Return the module ``nevergrad``; the repairs are the same however often they are made.

    What it imports for one member (bayes_opt, and with it scikit-learn and pandas) and for its own tests comes later.
    """
    with postponed(Later("bayes_opt", "BayesianOptimization", "UtilityFunction"), Later("pytest")):
        nevergrad: Any = import_module("nevergrad")
    # A background thread (members that wrap scipy) whose last question stays unanswered would keep a finished process
    # from exiting.
    recaster: Any = import_module("nevergrad.optimization.recaster")
    recaster._MessagingThread.daemon = True
    # The surrogate that NGOpt fits in small dimensions calls float() on arrays of one element, which numpy 2.4 refuses.
    metamodel: Any = import_module("nevergrad.optimization.metamodel")
    metamodel.float = _as_float
    return nevergrad


def _as_float(value: Any) -> float:
    """Return the number that ``value`` is or holds as its only element."""
    return float(np.asarray(value).item())
