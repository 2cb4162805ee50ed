"""Imports nevergrad, repairs what breaks it here (seen in 1.0.12) and knows its members. Using it is left to
``nevergrad.py``.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

import numpy as np

from distributed_tuner.errors import ConfigError
from distributed_tuner.later import Later, postponed
from distributed_tuner.optimizers.seeded_globals import isolated_randomness

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


PACKAGES = {
    "ConfigSpace": "smac",
    "ax": "ax-platform",
    "bayes_optim": "bayes-optim",
    "poap": "pySOT",
    "pybobyqa": "Py-BOBYQA",
}
"""What pip calls packages that members of the registry need and nevergrad does not bring, where not as Python does."""


def refusal(name: str, error: Exception, step: int) -> str:
    """Return why a member of the registry cannot be used, as it raised ``error``, and what to do."""
    missing = _missing(error)
    if missing is not None:
        return (
            f"nevergrad's {name} needs the package {missing}, which nevergrad does not bring and this Python does not"
            f" have; pip install {PACKAGES.get(missing, missing)}, or choose another optimizer"
        )
    kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
    return (
        f"nevergrad's optimizer must propose candidates and learn, but {name} gave up in step {step}:"
        f" {kind}{' '.join(str(error).split())}. Choose another optimizer, num_workers or intrinsic_dim"
    )


def _missing(error: BaseException | None) -> str | None:
    """Return the package for want of which an error was raised, itself or by what it was raised from."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.partition(".")[0]
        error = error.__cause__ or error.__context__
    return None


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
        lower = {known.lower(): known for known in registry}
        near = [lower[known] for known in get_close_matches(name.lower(), list(lower), n=3, cutoff=0.4)]
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
    recaster.RecastOptimizer._messaging_thread = None  # its destructor reads it of one that could not be made as well
    # The surrogate that NGOpt fits in small dimensions calls float() on arrays of one element, which numpy 2.4 refuses.
    metamodel: Any = import_module("nevergrad.optimization.metamodel")
    metamodel.float = _as_float
    return nevergrad


def _as_float(value: Any) -> float:
    """Return the number that ``value`` is or holds as its only element."""
    return float(np.asarray(value).item())
