"""Optimizers of the user's own: their classes held against the family's contract, made, and their probes watched."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from distributed_tuner.config.first_order import CustomFirstOrderConfig
from distributed_tuner.config.optimizer import CustomOptimizerConfig
from distributed_tuner.custom import made, promised, require_methods, subclass
from distributed_tuner.errors import ConfigError, PartError
from distributed_tuner.optimizers.base import Optimizer
from distributed_tuner.optimizers.probe import Measured, Probe
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array64, Candidate, Embedded, Latent, Perturbation, Point, Start, Text


def own_optimizer(config: CustomOptimizerConfig | CustomFirstOrderConfig, given: Mapping[str, Any]) -> Optimizer:
    """Build a user's own optimizer. ``given``: the constructor's arguments in addition to ``config.settings``.

    Raises:
        ConfigError: its class is not what its stage and its settings say, or cannot be made.
    """
    optimizer: Optimizer = made(config, _checked_class(config), given)
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
    if optimizer.wants_answers and (optimizer.white_box or optimizer.race is not None):
        raise ConfigError(
            "an optimizer that wants answers learns from losses of all examples, but that of"
            f" {config.import_path} {'is a white box' if optimizer.white_box else 'races its candidates'}; leave out"
            f" {'white_box' if optimizer.white_box else 'race'}, or wants_answers"
        )
    return optimizer


def own_probe(config: CustomOptimizerConfig, start: Start, key: Key, unit: float) -> Probe:
    """Make what measures settings of an optimizer of the user's own.

    Raises:
        ConfigError: its class has no probe, or one that cannot be made.
    """
    found = _checked_class(config)
    if found.probe is None:
        raise ConfigError(
            f"settings that are auto are measured by the class's probe, but {config.import_path} has none and"
            f" {', '.join(config.unresolved)} is auto; give a value, or write probe (docs/extending.md)"
        )
    probe = made(config, found.probe, {"start": start, "key": key, "unit": unit})
    require_methods(config, probe, ("candidates", "measure"), Probe)
    return _WatchedProbe(config, probe)


def _checked_class(config: CustomOptimizerConfig | CustomFirstOrderConfig) -> type[Optimizer]:
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
    return found


class _WatchedProbe:
    """A probe of the user's own, whose candidates and findings are looked at."""

    def __init__(self, config: CustomOptimizerConfig, probe: Probe) -> None:
        self._config = config
        self._probe = probe

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        with promised(self._whose, "say what it asks"):
            candidates = tuple(self._probe.candidates)
        sorts = (Text,) if self._config.is_discrete else (Perturbation, Latent, Point, Embedded)
        strange = [type(one).__name__ for one in candidates if not isinstance(one, sorts)]
        if strange or not candidates:
            raise PartError(
                f"a probe asks for one candidate or more of the sort that the optimizer searches, but {self._whose}"
                f" asks for {strange[0] if strange else 'none'}; return {', '.join(sort.__name__ for sort in sorts)}"
            )
        return candidates

    def measure(self, losses: Array64) -> Measured | None:
        with promised(self._whose, "take the losses of its candidates"):
            found = self._probe.measure(losses)
        if found is None:
            return None
        wanted = self._config.unresolved
        for name, value in found.settings.items():
            if name not in wanted or not _is_number(value):
                raise PartError(
                    f"a probe finds finite numbers for the settings that are auto ({', '.join(wanted)}),"
                    f" but {self._whose} found {name}={value!r}; return those alone"
                )
        settings = {name: np.asarray(value).item() for name, value in found.settings.items()}
        told = {name: float(value) for name, value in found.told.items() if _is_number(value)}
        return Measured(settings, {"told": told})

    @property
    def _whose(self) -> str:
        return f"the probe of {self._config.import_path}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)
