"""Base of all nevergrad searches: asking, telling, failed queries, replay and state.

The spaces are ``nevergrad.py`` (coordinates) and ``nevergrad_words.py`` (words).
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import NevergradConfig
from distributed_tuner.errors import ConfigError, TunerError
from distributed_tuner.optimizers.base import Optimizer, ranked_last
from distributed_tuner.optimizers.nevergrad_import import PARALLEL, import_nevergrad, refusal, require_member
from distributed_tuner.optimizers.seeded_globals import isolated_randomness
from distributed_tuner.seeds import Key, seed_of
from distributed_tuner.values import Array, Array64, Candidate

SAME = 1e-6  # of the marks of a step that is taken again: other machines round otherwise
UNKNOWN_WORST = 1e3  # loss of failures before any finite loss: above any cross-entropy of a handful of label words


@dataclass(slots=True)
class Stretch:
    """Steps of a search under one key. told: the losses of each. marks: a number for each step's candidates."""

    key: Key
    workers: int
    told: list[Array64] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)


class NevergradSearch(Optimizer):
    """``num_workers`` asks in flight per step, each told afterwards; a budget of ``steps * num_workers`` queries.

    A step may have fewer candidates where the member cannot propose more before it is told: pycma's large-dimension
    CMA, for one, refuses to begin a generation while another is open.

    **Failed queries** are told as just above the worst finite loss of the stage so far (``UNKNOWN_WORST`` before there
    is one), since many members wait for an answer to every ask. A step of failures alone is thus told too. Nothing but
    the start is recommended before a finite loss was seen.

    **Moving.** The state of nevergrad's members cannot be moved in general: ``relocate`` makes the new place the origin
    and begins the search afresh around it, with the budget of the steps that are left. The count of steps goes on.

    **State** is what the search was told: loading asks and tells it again. nevergrad's own objects are never written
    down, since only pickle could, and loading pickles runs what is in them. Where the state is loaded under another key
    (a clone, the next round) the search goes on from the same place with noise of its own, and the state names both.
    The state keeps a number of every answer as well, so that a member that does not do the same again is found out.
    """

    kind: ClassVar[str] = "nevergrad"
    replays: ClassVar[bool] = True
    fixed: ClassVar[tuple[str, ...]]
    """Settings in which a state and its reader may not differ."""

    def __init__(self, config: NevergradConfig, *, dim: int, key: Key, steps: int) -> None:
        super().__init__(dim, key)
        self._config = config
        self._steps = steps

    def _begin(self, step: int) -> None:
        """Begin the search at its origin, ``step`` steps into the stage."""
        self._start_search(self._config, self._search_key(step), step, max(1, self._steps - step))
        self._stretches = [Stretch(self.key, self._config.num_workers)]

    def _start_search(self, config: NevergradConfig, key: Key, step: int, steps: int) -> None:
        require_member(config.optimizer, config.num_workers)
        # The threads of scipy-based members run between our calls, and warn of settings that the user did not choose.
        warnings.filterwarnings("ignore", module=r"scipy\.")
        self._built, self._begun, self._horizon, self._origin_key = config, step, steps, key
        self.__dict__.pop("_ng", None)
        self._asked: list[Any] = []
        self._worst = -math.inf

    @cached_property
    def _ng(self) -> Any:
        """nevergrad's optimizer, made when it is first needed: it takes seconds to import, and a plan does without."""
        config, key = self._built, self._origin_key
        with self._isolated((*key, "build"), self._begun):
            ng = import_nevergrad()
            parametrization = self._parametrization(ng, config)
            parametrization.random_state = np.random.RandomState(seed_of((*key, "nevergrad")))
            self._recommended = np.array(parametrization.value, dtype=np.float64)
            budget = self._horizon * config.num_workers
            family = ng.optimizers.registry[config.optimizer]
            return family(parametrization=parametrization, budget=budget, num_workers=config.num_workers)

    @contextmanager
    def _isolated(self, key: Key, step: int) -> Iterator[None]:
        """Keep nevergrad from the global generators, and say in one line what it raises.

        Its registry is other people's work: of some members the package is missing, others fail with some settings.
        """
        with isolated_randomness(key):
            try:
                yield
            except TunerError:
                raise
            except Exception as error:
                raise ConfigError(refusal(self._built.optimizer, error, step)) from error

    @property
    def vouched_for(self) -> bool:
        return self._config.optimizer in PARALLEL and self.dim > 1

    def _search_key(self, step: int) -> Key:
        """Return the key of the search that begins ``step`` steps into the stage."""
        return (*self.key, "relocated", step) if step else self.key

    @property
    def queries_per_step(self) -> int:
        return self._config.num_workers

    def recommend(self) -> Candidate:
        _ = self._ng  # a search that has just begun recommends its origin
        return self._candidate(self._recommended)

    # ------------------------------------------------------------------------------------------- what the spaces write
    @abstractmethod
    def _parametrization(self, ng: Any, config: NevergradConfig) -> Any:
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
        self._propose(self.steps_told, self._stretches[-1])
        return [self._candidate(np.asarray(asked.value)) for asked in self._asked]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        stretch = self._stretches[-1]
        stretch.told.append(losses.copy())
        stretch.marks.append(self._mark())
        self._learn(self.steps_told, stretch, losses)
        if not np.isnan(losses).all():
            self._metrics = {"step_loss": float(np.nanmin(losses)), "num_ask": float(self._ng.num_ask)}

    def _propose(self, step: int, stretch: Stretch) -> None:
        self._asked = []
        with self._isolated((*stretch.key, step, "ask"), step):
            for _ in range(stretch.workers):
                try:
                    self._asked.append(self._ng.ask())
                except RuntimeError:
                    if not self._asked:
                        raise
                    break  # the open generation must get its losses first

    def _mark(self) -> float:
        """Return a number that other candidates would not have."""
        values = np.concatenate([np.ravel(np.asarray(asked.value, dtype=np.float64)) for asked in self._asked])
        return float(values @ np.cos(np.arange(len(values))))

    def _learn(self, step: int, stretch: Stretch, losses: Array64) -> None:
        if not np.isnan(losses).all():
            self._worst = max(self._worst, float(np.nanmax(losses)))
        seen_finite = math.isfinite(self._worst)
        answers = ranked_last(losses, self._worst if seen_finite else UNKNOWN_WORST)
        with self._isolated((*stretch.key, step, "tell"), step):
            for asked, answer in zip(self._asked, answers, strict=True):
                self._ng.tell(asked, float(answer))
            if seen_finite:  # here and not in recommend(), which may be called any number of times
                value = np.asarray(self._ng.provide_recommendation().value, dtype=np.float64)
                self._recommended = value.copy() if np.isfinite(value).all() else self._recommended
        self._asked = []

    # --------------------------------------------------------------------------------------------------------- state
    def _save(self) -> dict[str, Any]:
        return {
            "settings": self._built.model_dump_json(),
            **self._save_space(),
            "begun": self._begun,
            "horizon": self._horizon,
            "origin": list(self._origin_key),
            "stretches": [
                {
                    "key": list(stretch.key),
                    "workers": stretch.workers,
                    "sizes": [len(losses) for losses in stretch.told],
                    "told": np.concatenate([np.zeros(0), *stretch.told]),
                    "marks": np.array(stretch.marks),
                }
                for stretch in self._stretches
            ],
        }

    def _load(self, state: dict[str, Any]) -> None:
        theirs = NevergradConfig.model_validate_json(state["settings"])
        if differing := [name for name in self.fixed if getattr(theirs, name) != getattr(self._config, name)]:
            raise ConfigError(
                f"a nevergrad state fits only the settings it was made with; {', '.join(differing)} differ: use "
                + ", ".join(f"{name}={getattr(theirs, name)}" for name in differing)
            )
        self._load_space(state)
        self._start_search(theirs, tuple(state["origin"]), int(state["begun"]), int(state["horizon"]))
        self._stretches = []
        step = self._begun
        for saved in state["stretches"]:
            stretch = self._go_on_as(tuple(saved["key"]), int(saved["workers"]), step)
            steps = np.split(np.array(saved["told"]), np.cumsum(saved["sizes"])[:-1]) if saved["sizes"] else []
            for losses, mark in zip(steps, saved["marks"], strict=True):
                self._again(step, stretch, losses, float(mark))
                step += 1
        if self._stretches[-1].key != self.key:  # a clone in another trial: same place, noise of its own
            self._go_on_as(self.key, self._config.num_workers, step)

    def _go_on_as(self, key: Key, workers: int, step: int) -> Stretch:
        """Go on under a key from ``step`` on; all but the first begin with randomness of their own."""
        if self._stretches:
            fresh = np.random.RandomState(seed_of((*key, step, "clone")))
            self._ng.parametrization.random_state.set_state(fresh.get_state())
        self._stretches.append(Stretch(key, workers))
        return self._stretches[-1]

    def _again(self, step: int, stretch: Stretch, losses: Array64, mark: float) -> None:
        """Take a step that was taken before; raise ConfigError where the member proposes something else now."""
        self._propose(step, stretch)
        again = self._mark()
        same = np.isclose(again, mark, rtol=SAME, atol=SAME, equal_nan=True)
        if len(self._asked) != len(losses) or not same:
            raise ConfigError(
                f"{self._built.optimizer} must propose the same candidates again to be resumed or to go on in the next"
                f" round, but does not in step {step}: choose another optimizer, or the restart stage's state reset"
            )
        stretch.told.append(losses)
        stretch.marks.append(mark)
        self._learn(step, stretch, losses)
