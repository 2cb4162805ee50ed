"""Any ask-and-tell optimizer of nevergrad's registry, made deterministic and restorable.

Which of its optimizers suits is the user's choice; the projection of latent vectors happens beside the model.
"""

import math
import pickle
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import NevergradConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers.base import Optimizer, frozen_copy, ranked_last
from distributed_tuner.optimizers.isolation import isolated_randomness
from distributed_tuner.optimizers.latent import LatentSpace
from distributed_tuner.optimizers.nevergrad_import import import_nevergrad
from distributed_tuner.seeds import Key, seed_of
from distributed_tuner.values import Array, Array64, Candidate, Point

UNKNOWN_WORST = 1e3  # told for failures before any finite loss: above any cross-entropy of a handful of label words


class Nevergrad(Optimizer):
    """``num_workers`` asks in flight per step, each told afterwards; a budget of ``steps * num_workers`` queries.

    A step may have fewer candidates where the member cannot propose more before it is told: pycma's large-dimension
    CMA, for one, refuses to begin a generation while another is open.

    **Failed queries** are told as just above the worst finite loss of the stage so far (``UNKNOWN_WORST`` before there
    is one), since many members wait for an answer to every ask. A step of failures alone is thus told too. Nothing but
    the start is recommended before a finite loss was seen.

    **Moving.** The state of nevergrad's members cannot be moved in general: ``relocate`` makes the new point the origin
    and begins the search afresh around it, with the budget of the steps that are left. The count of steps goes on.

    **State** is the pickled nevergrad object. Members that cannot be pickled are replayed instead: the state keeps all
    losses told since the search began, and loading asks and tells them again, under the same key and settings only. On
    the whole prompt the state grows with every query, since nevergrad archives what it asked.
    """

    kind: ClassVar[str] = "nevergrad"

    def __init__(self, config: NevergradConfig, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(dim, key)
        self._config = config
        self._steps = steps
        self._start = frozen_copy(start)
        self._space = LatentSpace.around(start, config, key) if config.space == "latent" else None
        self._begin(0)

    def _begin(self, step: int) -> None:
        """Begin the search at the origin, ``step`` steps into the stage."""
        key = (*self.key, "relocated", step) if step else self.key
        self._begun = step
        self._ng = _make(self._config, self._size(), key, max(1, self._steps - step))
        self._asked: list[Any] = []
        self._told: list[Array64] = []
        self._worst = -math.inf
        self._recommended: Array64 = np.zeros(self._size())

    def _size(self) -> int:
        return self.dim if self._config.space == "full" else self._config.intrinsic_dim

    @property
    def queries_per_step(self) -> int:
        return self._config.num_workers

    def recommend(self) -> Candidate:
        return self._candidate(self._recommended)

    def _candidate(self, value: Array64) -> Candidate:
        if self._space is not None:
            return self._space.candidate(value)
        return Point(frozen_copy(self._start + value.astype(np.float32)))

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

    def _relocate(self, x: Array) -> None:
        self._start = x
        self._space = None if self._space is None else self._space.moved(x, self.key, self.steps_told)
        self._begin(self.steps_told)

    # --------------------------------------------------------------------------------------------------------- state
    def _save(self) -> dict[str, Any]:
        return {
            "settings": self._config.model_dump_json(),
            "key": list(self.key),
            "start": self._start.copy(),
            "space": {} if self._space is None else self._space.state(),
            "pickled": _pickled(self._ng),
            "begun": self._begun,
            "told": [losses.copy() for losses in self._told],
            "worst": self._worst,
            "recommended": self._recommended.copy(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        theirs = NevergradConfig.model_validate_json(state["settings"])
        fixed = ("optimizer", "space", "intrinsic_dim", "num_workers")
        if differing := [name for name in fixed if getattr(theirs, name) != getattr(self._config, name)]:
            raise ConfigError(
                f"a nevergrad state fits only the settings it was made with; {', '.join(differing)} differ: use "
                + ", ".join(f"{name}={getattr(theirs, name)}" for name in differing)
            )
        if not state["pickled"]:
            self._require_same(state, theirs)
        self._start = frozen_copy(state["start"])
        if state["space"]:
            self._space = LatentSpace.restored(state["space"], self._config.intrinsic_dim, self.key)
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


def _make(config: NevergradConfig, size: int, key: Key, steps: int) -> Any:
    """Return the nevergrad object; raise ConfigError for a name or number of workers that cannot be."""
    with isolated_randomness((*key, "build")):
        ng = import_nevergrad()
        registry = ng.optimizers.registry
        if config.optimizer not in registry:
            near = get_close_matches(config.optimizer, list(registry), n=3, cutoff=0.4)
            raise ConfigError(
                f"optimizer must be in nevergrad's registry; got {config.optimizer!r}: "
                + (f"did you mean {' or '.join(near)}?" if near else "see nevergrad.optimizers.registry")
            )
        family = registry[config.optimizer]
        if getattr(family, "no_parallelization", False) and config.num_workers > 1:
            raise ConfigError(
                f"{config.optimizer} proposes one candidate at a time; got num_workers {config.num_workers}: set 1"
            )
        parametrization = ng.p.Array(shape=(size,))
        parametrization.set_mutation(sigma=config.sigma)
        parametrization.random_state = np.random.RandomState(seed_of((*key, "nevergrad")))
        workers = config.num_workers
        return family(parametrization=parametrization, budget=steps * workers, num_workers=workers)


def _pickled(optimizer: Any) -> bytes:
    """Return the pickle, or no bytes where the object holds what cannot be pickled (threads, local functions)."""
    try:
        return pickle.dumps(optimizer)
    except (TypeError, AttributeError, ValueError, pickle.PicklingError):
        return b""
