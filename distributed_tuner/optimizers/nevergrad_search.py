"""What every search with nevergrad shares, whatever its space: asking, telling, failed queries, replay and state.

The spaces are ``nevergrad.py`` (coordinates) and ``nevergrad_words.py`` (words).
"""

import math
import pickle
from abc import abstractmethod
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import NevergradConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers.base import Optimizer, ranked_last
from distributed_tuner.optimizers.isolation import isolated_randomness
from distributed_tuner.optimizers.nevergrad_import import import_nevergrad
from distributed_tuner.seeds import Key, seed_of
from distributed_tuner.values import Array, Array64, Candidate

UNKNOWN_WORST = 1e3  # told for failures before any finite loss: above any cross-entropy of a handful of label words


class NevergradSearch(Optimizer):
    """``num_workers`` asks in flight per step, each told afterwards; a budget of ``steps * num_workers`` queries.

    A step may have fewer candidates where the member cannot propose more before it is told: pycma's large-dimension
    CMA, for one, refuses to begin a generation while another is open.

    **Failed queries** are told as just above the worst finite loss of the stage so far (``UNKNOWN_WORST`` before there
    is one), since many members wait for an answer to every ask. A step of failures alone is thus told too. Nothing but
    the start is recommended before a finite loss was seen.

    **Moving.** The state of nevergrad's members cannot be moved in general: ``relocate`` makes the new place the origin
    and begins the search afresh around it, with the budget of the steps that are left. The count of steps goes on.

    **State** is the pickled nevergrad object. Members that cannot be pickled are replayed instead: the state keeps all
    losses told since the search began, and loading asks and tells them again, under the same key and settings only. On
    the whole prompt the state grows with every query, since nevergrad archives what it asked.
    """

    kind: ClassVar[str] = "nevergrad"
    fixed: ClassVar[tuple[str, ...]]
    """Settings in which a state and its reader may not differ."""

    def __init__(self, config: NevergradConfig, *, dim: int, key: Key, steps: int) -> None:
        super().__init__(dim, key)
        self._config = config
        self._steps = steps

    def _begin(self, step: int) -> None:
        """Begin the search at its origin, ``step`` steps into the stage."""
        self._begun = step
        self._ng = self._make(self._search_key(step), max(1, self._steps - step))
        self._asked: list[Any] = []
        self._told: list[Array64] = []
        self._worst = -math.inf
        self._recommended: Array64 = np.array(self._ng.parametrization.value, dtype=np.float64)

    def _search_key(self, step: int) -> Key:
        """Return the key of the search that begins ``step`` steps into the stage."""
        return (*self.key, "relocated", step) if step else self.key

    @property
    def queries_per_step(self) -> int:
        return self._config.num_workers

    def recommend(self) -> Candidate:
        return self._candidate(self._recommended)

    # ------------------------------------------------------------------------------------------- what the spaces write
    @abstractmethod
    def _parametrization(self, ng: Any) -> Any:
        """Return nevergrad's picture of the space, the origin being its value. ``ng``: the module."""

    @abstractmethod
    def _candidate(self, value: Array64) -> Candidate:
        """Return the candidate that a value of the parametrization stands for."""

    @abstractmethod
    def _save_space(self) -> dict[str, Any]:
        """Return the space as numbers, strings and arrays, copied."""

    @abstractmethod
    def _load_space(self, state: dict[str, Any]) -> None:
        """Restore what ``_save_space`` returned, copying."""

    # -------------------------------------------------------------------------------------------------- ask and tell
    def _ask(self) -> list[Candidate]:
        self._propose(self.steps_told)
        return [self._candidate(np.asarray(asked.value)) for asked in self._asked]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        self._learn(self.steps_told, losses)
        if not np.isnan(losses).all():
            self._metrics = {"step_loss": float(np.nanmin(losses)), "num_ask": float(self._ng.num_ask)}

    def _propose(self, step: int) -> None:
        self._asked = []
        with isolated_randomness((*self.key, step, "ask")):
            for _ in range(self._config.num_workers):
                try:
                    self._asked.append(self._ng.ask())
                except RuntimeError as error:
                    if not self._asked:
                        raise ConfigError(
                            f"nevergrad's optimizer must propose a candidate; {self._config.optimizer} gave up in step "
                            f"{step}: {error}. Choose another optimizer or num_workers"
                        ) from error
                    break  # the open generation must be told first

    def _learn(self, step: int, losses: Array64) -> None:
        self._told.append(losses.copy())
        if not np.isnan(losses).all():
            self._worst = max(self._worst, float(np.nanmax(losses)))
        seen_finite = math.isfinite(self._worst)
        answers = ranked_last(losses, self._worst if seen_finite else UNKNOWN_WORST)
        with isolated_randomness((*self.key, step, "tell")):
            for asked, answer in zip(self._asked, answers, strict=True):
                self._ng.tell(asked, float(answer))
            if seen_finite:  # here and not in recommend(), which may be called any number of times
                value = np.asarray(self._ng.provide_recommendation().value, dtype=np.float64)
                self._recommended = value.copy() if np.isfinite(value).all() else self._recommended
        self._asked = []

    # --------------------------------------------------------------------------------------------------------- state
    def _save(self) -> dict[str, Any]:
        return {
            "settings": self._config.model_dump_json(),
            "key": list(self.key),
            **self._save_space(),
            "pickled": _pickled(self._ng),
            "begun": self._begun,
            "told": [losses.copy() for losses in self._told],
            "worst": self._worst,
            "recommended": self._recommended.copy(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        theirs = NevergradConfig.model_validate_json(state["settings"])
        if differing := [name for name in self.fixed if getattr(theirs, name) != getattr(self._config, name)]:
            raise ConfigError(
                f"a nevergrad state fits only the settings it was made with; {', '.join(differing)} differ: use "
                + ", ".join(f"{name}={getattr(theirs, name)}" for name in differing)
            )
        if not state["pickled"]:
            self._require_same(state, theirs)
        self._load_space(state)
        if not state["pickled"]:
            self._begin(int(state["begun"]))
            for step, losses in enumerate(state["told"], start=self._begun):
                self._propose(step)
                self._learn(step, np.array(losses))
            return
        self._begun = int(state["begun"])
        self._ng = pickle.loads(state["pickled"])
        self._asked = []
        self._told = [np.array(losses) for losses in state["told"]]
        self._worst = float(state["worst"])
        self._recommended = np.array(state["recommended"], dtype=np.float64)
        if tuple(state["key"]) != self.key:  # a clone in another trial: same place, noise of its own
            fresh = np.random.RandomState(seed_of((*self.key, int(state["steps_told"]), "clone")))
            self._ng.parametrization.random_state.set_state(fresh.get_state())

    def _require_same(self, state: dict[str, Any], theirs: NevergradConfig) -> None:
        """Check that replaying ``state`` here gives what it was."""
        same_settings = theirs.model_dump(exclude={"name"}) == self._config.model_dump(exclude={"name"})
        if not same_settings or tuple(state["key"]) != self.key:
            raise ConfigError(
                f"{self._config.optimizer} can only be resumed under its own key and settings, not copied into "
                f"another trial; the state is of {tuple(state['key'])}, this is {self.key}: choose one that pickles"
            )

    def _make(self, key: Key, steps: int) -> Any:
        """Return the nevergrad object; raise ConfigError for a name or number of workers that cannot be."""
        with isolated_randomness((*key, "build")):
            ng = import_nevergrad()
            registry, name = ng.optimizers.registry, self._config.optimizer
            if name not in registry:
                near = get_close_matches(name, list(registry), n=3, cutoff=0.4)
                raise ConfigError(
                    f"optimizer must be in nevergrad's registry; got {name!r}: "
                    + (f"did you mean {' or '.join(near)}?" if near else "see nevergrad.optimizers.registry")
                )
            family, workers = registry[name], self._config.num_workers
            if getattr(family, "no_parallelization", False) and workers > 1:
                raise ConfigError(f"{name} proposes one candidate at a time; got num_workers {workers}: set 1")
            parametrization = self._parametrization(ng)
            parametrization.random_state = np.random.RandomState(seed_of((*key, "nevergrad")))
            return family(parametrization=parametrization, budget=steps * workers, num_workers=workers)


def _pickled(optimizer: Any) -> bytes:
    """Return the pickle, or no bytes where the object holds what cannot be pickled (threads, local functions)."""
    try:
        return pickle.dumps(optimizer)
    except (TypeError, AttributeError, ValueError, pickle.PicklingError):
        return b""
