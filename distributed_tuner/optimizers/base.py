"""The contract of every optimizer: ask, tell, recommend, save and restore. It owns the protocol's rules and counters.

What to propose and what to learn from losses is the members' business; scoring candidates, budgets and choosing the
batch of examples are left to the stages.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers.contract import checked_gradients, promised, require_answers, require_sound
from distributed_tuner.optimizers.probe import Probe
from distributed_tuner.seeds import Key
from distributed_tuner.values import (
    Answers,
    Array,
    Array64,
    Candidate,
    Start,
)


@dataclass(frozen=True, slots=True)
class Race:
    """Settings for racing the candidates of a step: in blocks of ``block`` examples, for the best ``mu`` of them.

    The optimizer needs the exact losses of its best ``mu`` candidates and of those at the places ``exact``, and of the
    others only that they are worse than all of these.
    """

    block: int
    mu: int
    exact: tuple[int, ...] = ()


class Optimizer(ABC):
    """Proposes candidates and learns from their losses. Lower is better.

    A step is one ``ask`` followed by one ``tell``. The same config, dim, key and start give the same asks everywhere.

    **Failed queries.** A loss that is not finite is a failed query. Members treat it as the worst of its step or leave
    it out, and never recommend it; a white-box member, which asks for the point where it stands, stays there. A step in
    which every query failed teaches nothing: apart from ``steps_told`` and the count of failures the optimizer is as it
    was, unless a member says otherwise; the next ask draws afresh.

    **State.** ``state_dict`` copies out and ``load_state_dict`` copies in, so that a clone shares nothing with its
    original. The state is taken between steps; loaded into an optimizer built with the same settings and key, the next
    ask is bit-identical. Built with another key (the clone of a population-based schedule), members whose noise is
    keyed go on from the same place with noise of their own.

    Arrays in candidates are read-only and belong to the optimizer; arrays handed in are copied.

    **An optimizer of your own** (docs/extending.md) is a subclass that is made with the keyword arguments ``dim`` (P),
    ``key``, ``steps`` (planned), ``start`` (float32, shape (P,), the member's to keep; of one that searches words a
    text) and, where it searches words, ``vocabulary``; then its own settings. It calls ``super().__init__(dim, key)``
    first, and writes ``queries_per_step``, ``_ask``, ``_tell``, ``recommend``, ``_relocate`` (``_relocate_text`` in
    words), ``_save`` and ``_load``. A coordinate of 1 moves a prompt's row by one standard deviation of the model's
    embeddings, or by 1, as ``prompt.scale`` has it.

    Example: ZOT on a loss oracle that is a formula, 100 steps of two queries each.

    >>> from distributed_tuner import Analytic, Zot
    >>> from distributed_tuner.config.task import DemoTaskConfig
    >>> from distributed_tuner.optimizers import build
    >>> from distributed_tuner.oracles.analytic import AnalyticOracle
    >>> from distributed_tuner.tasks.demo import build_demo
    >>> from distributed_tuner.values import PromptSpec, Request
    >>> oracle, train = AnalyticOracle(Analytic()), build_demo(DemoTaskConfig(shots=8)).batch("train")
    >>> prompt = PromptSpec(length=8, init="zeros", text="", layout="prefix", scale="embedding")
    >>> settings = Zot(learning_rate=0.1, momentum=0.9)
    >>> optimizer = build(settings, dim=8 * oracle.info.width, key=(0,), steps=100)
    >>> for _ in range(100):
    ...     losses = oracle.evaluate(Request(tuple(optimizer.ask()), train, prompt)).losses
    ...     optimizer.tell(losses)
    >>> tuned = oracle.evaluate(Request((optimizer.recommend(),), train, prompt)).losses[0]
    >>> print(f"{tuned:.1f}")  # of 1.4 at the start
    0.8
    """

    kind: ClassVar[str]
    """Its name in states and messages; default: the name of the class."""
    white_box: ClassVar[bool] = False
    """Whether it uses gradients. If True, a step asks for one candidate, and ``tell`` also gets its gradient."""
    losses_are_of_the_start: ClassVar[bool] = False
    """True if a step's losses measure x before the update (ZOT, gradient descent), False if they measure the
    recommended candidate (CMA)."""
    replays: ClassVar[bool] = False
    """Whether its state is the history of losses, so that it is restored by replaying ``ask`` and ``tell``."""
    is_discrete: ClassVar[bool] = False
    """Whether it searches text prompts. If True, ``dim`` is the maximum number of words, and a place is a text."""
    probe: ClassVar[Callable[..., Probe] | None] = None
    """Of an optimizer of your own: makes what measures its settings that are "auto", called with the keyword arguments
    ``start``, ``key``, ``unit`` (how long a standard deviation of the embeddings is) and its settings."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not hasattr(cls, "kind"):
            cls.kind = cls.__name__

    def __init__(self, dim: int, key: Key) -> None:
        self.dim = dim
        self.key = key
        self._steps_told = 0
        self._failed_queries = 0
        self._metrics: dict[str, float] = {}
        self._pending: tuple[Candidate, ...] | None = None

    # ------------------------------------------------------------------------------------------------ the protocol
    def ask(self) -> list[Candidate]:
        """Propose the candidates of the next step.

        Returns:
            C candidates, at least one and at most ``queries_per_step``.

        Raises:
            ConfigError: the last ask has not got its losses yet.
            OptimizerError: a member breaks the contract.
        """
        if self._pending is not None:
            raise ConfigError(
                f"every ask needs a tell before the next one; {self.kind} still waits for {len(self._pending)} losses: "
                "tell them (NaN for queries that failed)"
            )
        with promised(self.kind, "propose candidates", self.steps_told):
            candidates = tuple(self._ask())
            require_sound(self.kind, candidates, self.queries_per_step, self.is_discrete, self.steps_told)
        self._pending = candidates
        return list(candidates)

    def tell(
        self, losses: Sequence[float] | Array64, gradients: Array | None = None, answers: Answers | None = None
    ) -> None:
        """Update from the losses of the last ask.

        Args:
            losses: shape (C,), in the order of the candidates, lower is better; NaN or inf mark failed queries.
            gradients: of the losses by the coordinates, shape (C, P), only for a white-box member. A query whose
                gradient is not finite has failed.
            answers: what the losses were computed from, only for a member that wants them.

        Raises:
            ConfigError: there is no ask to answer, the number of losses differs, or gradients or answers are missing,
                unwanted or of another shape; nothing has changed then.
        """
        if self._pending is None:
            raise ConfigError(f"tell answers an ask; {self.kind} was told {len(losses)} losses unasked: ask first")
        told = np.array(losses, dtype=np.float64).reshape(-1)
        if len(told) != len(self._pending):
            raise ConfigError(
                f"tell takes one loss per candidate asked; {self.kind} asked {len(self._pending)} and was told "
                f"{len(told)}: fill queries that failed with NaN"
            )
        slopes = checked_gradients(self.kind, self.white_box, gradients, len(told), self.dim)
        require_answers(self.kind, self.wants_answers, answers, len(told))
        told[~np.isfinite(told)] = np.nan
        if slopes is not None:
            told[~np.isfinite(slopes).all(axis=1)] = np.nan
        candidates, self._pending = self._pending, None
        with promised(self.kind, "learn from losses", self.steps_told):
            if answers is None:
                self._tell(candidates, told, slopes)
            else:
                self._tell_answers(candidates, told, answers)
        self._steps_told += 1
        self._failed_queries += int(np.isnan(told).sum())

    @abstractmethod
    def recommend(self) -> Candidate:
        """Return the candidate to evaluate on train and dev: the current estimate of the best, at first the start."""

    def metrics(self) -> dict[str, float]:
        """Return numbers that describe the last step, for the ledger."""
        return {**self._metrics, "failed_queries": float(self._failed_queries)}

    # ------------------------------------------------------------------------------------------------- being moved
    def relocate(self, start: Start) -> None:
        """Go on from a place, with everything else as it is; members say what that is for them.

        start: coordinates, shape (P,), or a text where the search is in words. ``recommend`` returns it then. Counts as
        no step. Raises ConfigError between an ask and its tell, and for a place of the other sort, coordinates of
        another number, or not finite.
        """
        if self.is_discrete or isinstance(start, str):
            self._relocate_text(self._checked_text(start))
        else:
            self._relocate(self._checked_move(start))

    def inject(self, x: Array, embedding_std: float, unit: float) -> None:
        """Hand in the coordinates x, shape (P,), to be one of the next step's candidates; only cma can.

        embedding_std: of the model's embedding matrix, which the projection is scaled by. unit: the prompt's, as in
        ``prompts.recipes``. Raises ConfigError as ``relocate`` does, and for a member that takes no candidates.
        """
        self._inject(self._checked_move(x), embedding_std, unit)

    def _require_between_steps(self) -> None:
        if self._pending is not None:
            raise ConfigError(
                f"an optimizer is moved between steps; {self.kind} still waits for {len(self._pending)} losses: tell"
                " first"
            )

    def _checked_text(self, start: Start) -> str:
        """Return a text, where the search is in words."""
        self._require_between_steps()
        if not (self.is_discrete and isinstance(start, str)):
            places = ("a text", "coordinates")
            wanted, got = places if self.is_discrete else places[::-1]
            raise ConfigError(
                f"{self.kind} is moved to {wanted}, but got {got}: give it a place in the space that it searches"
            )
        return start

    def _checked_move(self, x: Array) -> Array:
        """Return a private read-only copy of x, which must be finite and of this optimizer's size."""
        self._require_between_steps()
        if np.shape(x) != (self.dim,) or not np.isfinite(x).all():
            raise ConfigError(
                f"{self.kind} is moved to {self.dim} finite coordinates; got shape {np.shape(x)}: flatten the prompt's"
                " rows"
            )
        return frozen_copy(x)

    # --------------------------------------------------------------------------------------------------- the state
    def state_dict(self) -> dict[str, Any]:
        """Return the state between two steps.

        Returns:
            Numbers, strings, lists, dicts and arrays (copies), from which ``load_state_dict`` restores exactly.

        Raises:
            ConfigError: the call is between an ask and its tell.
        """
        if self._pending is not None:
            raise ConfigError(
                f"state is saved between steps; {self.kind} still waits for {len(self._pending)} losses: tell first"
            )
        return {
            "kind": self.kind,
            "dim": self.dim,
            "steps_told": self._steps_told,
            "failed_queries": self._failed_queries,
            "metrics": dict(self._metrics),
            **self._save(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; an ask that still waits is dropped.

        Args:
            state: from ``state_dict`` of an optimizer with the same settings.

        Raises:
            ConfigError: the state is of another kind or size.
        """
        for name, mine in (("kind", self.kind), ("dim", self.dim)):
            if state.get(name) != mine:
                raise ConfigError(
                    f"a state fits only the optimizer that wrote it; {name} is {state.get(name)!r} in the state and "
                    f"{mine!r} here: build the optimizer with the settings of the run that is restored"
                )
        self._load(state)
        self._steps_told = int(state["steps_told"])
        self._failed_queries = int(state["failed_queries"])
        self._metrics = {name: float(value) for name, value in state["metrics"].items()}
        self._pending = None

    # ---------------------------------------------------------------------------------------------------- the facts
    @property
    @abstractmethod
    def queries_per_step(self) -> int:
        """The most candidates that one ask returns, hence queries that a step may cost."""

    @property
    def batch_size(self) -> int | None:
        """Training examples per step; None means all of them."""
        return None

    @property
    def wants_answers(self) -> bool:
        """Whether ``tell`` also gets the answers behind the losses, and ``_tell_answers`` is called in place of
        ``_tell``. Never of a white-box member, or of one that races."""
        return False

    @property
    def race(self) -> Race | None:
        """Settings for racing the candidates; None if every loss is needed in full."""
        return None

    @property
    def stop_reason(self) -> str | None:
        """Why the optimizer itself would stop, names and values joined; None where it has no such rule. Advice only."""
        return None

    @property
    def vouched_for(self) -> bool:
        """Whether this project's own tests stand for its settings, so that ``check`` need not take a step of it.

        For members that take seconds to import; leave it False if in doubt.
        """
        return False

    @property
    def steps_told(self) -> int:
        """Steps completed so far, failed ones included."""
        return self._steps_told

    # ------------------------------------------------------------------------------------------- what members write
    @abstractmethod
    def _ask(self) -> list[Candidate]:
        """Return the candidates of step ``steps_told``."""

    @abstractmethod
    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        """Learn from ``losses``, NaN where the query failed. ``steps_told`` still counts the steps before this one.

        ``gradients`` (C, P) are there for white-box members, None for the others.
        """

    def _tell_answers(self, candidates: tuple[Candidate, ...], losses: Array64, answers: Answers) -> None:
        """Learn from losses, as in ``_tell``, and the answers that they are of. Members that want answers have it."""
        raise NotImplementedError

    def _relocate(self, x: Array) -> None:
        """Go on from x, which is read-only and the member's to keep. Every member that searches coordinates has it."""
        raise NotImplementedError

    def _relocate_text(self, text: str) -> None:
        """Go on from a text. Every member that searches words has it."""
        raise NotImplementedError

    def _inject(self, x: Array, embedding_std: float, unit: float) -> None:
        """Have x among the next step's candidates."""
        raise ConfigError(
            f"inject needs an optimizer that takes candidates from outside, but {self.kind} does not: use cma, or the"
            " restart stage's state keep or reset"
        )

    @abstractmethod
    def _save(self) -> dict[str, Any]:
        """Return the member's own part of the state, copied."""

    @abstractmethod
    def _load(self, state: dict[str, Any]) -> None:
        """Restore what ``_save`` returned, copying."""


def frozen_copy(vector: Array) -> Array:
    """Return a private read-only float32 copy of ``vector``."""
    copy = np.array(vector, dtype=np.float32)
    copy.flags.writeable = False
    return copy


def ranked_last(losses: Array64, worst: float) -> Array64:
    """Return ``losses`` with NaN replaced by the smallest number above ``worst``: last in rank, harmless in scale."""
    return np.where(np.isnan(losses), np.nextafter(worst, np.inf), losses)
