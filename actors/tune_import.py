"""Imports Ray Tune without Ray Data and pandas, which Tune imports for data sets and data frames: no run here has any.

They are most of what Tune costs, and the driver and every process of a trial pays. Who asks for them later, Tune
included, gets them. Every module of this package that uses Tune takes it from here.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

DATASETS = "ray.tune.impl.out_of_band_serialize_dataset"  # a module of Tune's for data sets among a trial's settings


class Later(ModuleType):
    """Stands for a module that is loaded when something of it is asked for.

    ``stand_ins``: what is given in its place until ``settle``, where only annotations ask for it.
    """

    def __init__(self, name: str, **stand_ins: Any) -> None:
        super().__init__(name)
        self._stand_ins = stand_ins

    def __getattr__(self, name: str) -> Any:
        if name in self._stand_ins:
            return self._stand_ins[name]
        self.settle()
        return getattr(import_module(self.__name__), name)

    def settle(self) -> None:
        """Leave the place to the module itself, for whoever imports it from here on."""
        self._stand_ins = {}
        package, _, child = self.__name__.rpartition(".")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        if package and vars(sys.modules[package]).get(child) is self:
            delattr(sys.modules[package], child)


class DataFrame:
    """What Tune writes into its annotations; whoever makes one gets a pandas.DataFrame."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        return import_module("pandas").DataFrame(*arguments, **named)


@contextmanager
def _no_datasets() -> Iterator[None]:
    """Do nothing: a trial's settings here are its number and a restart's, and hold no data set."""
    yield


def _import_tune() -> None:
    """Import the package, or have it as it is where another Ray asks for more."""
    import_module("ray")
    before = set(sys.modules)
    late = [Later("pandas", __path__=[], DataFrame=DataFrame), Later("ray.data")]
    datasets: Any = ModuleType(DATASETS)
    datasets.out_of_band_serialize_dataset = _no_datasets
    for module in (*late, datasets):
        sys.modules.setdefault(module.__name__, module)
    try:
        import_module("ray.tune")
    except (ImportError, AttributeError):
        for name in set(sys.modules) - before:
            del sys.modules[name]
    finally:
        for module in late:
            module.settle()


if "ray.tune" not in sys.modules:
    _import_tune()

from ray import tune  # noqa: E402  # it is there, or comes as it is
from ray.tune import Checkpoint  # noqa: E402
from ray.tune.execution.tune_controller import TuneController  # noqa: E402
from ray.tune.experiment import Trial  # noqa: E402
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler  # noqa: E402

__all__ = ["ASHAScheduler", "Checkpoint", "FIFOScheduler", "Trial", "TrialScheduler", "TuneController", "tune"]
