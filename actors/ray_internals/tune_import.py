"""Imports Ray Tune without Ray Data, pandas and rich: what it has for data sets, data frames and tables of its own.

They are most of what Tune costs, and the driver and every process of a trial pays. Who asks for them later, Tune
included, gets them. Every module of this package that uses Tune takes it from here.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from distributed_tuner.later import Later, postponed

DATASETS = "ray.tune.impl.out_of_band_serialize_dataset"  # a module of Tune's for data sets among a trial's settings


@contextmanager
def _no_datasets() -> Iterator[None]:
    """Do nothing: a trial's settings here are its number and a restart's, and hold no data set."""
    yield


def _import_tune() -> None:
    """Import the package, or leave it to be imported as it is where another Ray asks for more."""
    import_module("ray")
    before = set(sys.modules)
    datasets: Any = ModuleType(DATASETS)
    datasets.out_of_band_serialize_dataset = _no_datasets
    sys.modules.setdefault(DATASETS, datasets)
    try:
        with postponed(Later("pandas", "DataFrame"), Later("ray.data"), Later("rich", "Console")):
            import_module("ray.tune")
    except (ImportError, AttributeError):
        for name in set(sys.modules) - before:
            del sys.modules[name]


if "ray.tune" not in sys.modules:
    _import_tune()

from ray import tune  # noqa: E402  # it is there, or comes as it is
from ray.tune import Checkpoint  # noqa: E402
from ray.tune.execution.tune_controller import TuneController  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler  # noqa: E402

__all__ = ["ASHAScheduler", "Checkpoint", "FIFOScheduler", "Trial", "TrialScheduler", "TuneController", "tune"]
