"""The contract of every stage of a trial: it is advanced until it is done, and leaves something to the next."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from distributed_tuner.ledger.rows import Row
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.trial_state import TrialState
from distributed_tuner.values import Candidate


class Stage(ABC):
    """A stretch of one trial.

    ``advance`` does the next part until ``done``; ``reason`` then says why it ended. A stage that is at a sync point
    (``waiting``) goes on once ``go_on`` or ``take_over`` was called.
    """

    prepares: ClassVar[bool] = False
    """Does it ready the stage at its own place in the schedule, which is opened again when it has ended?"""

    done: bool = False
    reason: str = ""
    exhausted: bool = False
    """Has what it alone asks for used up the budget, so that its like would be refused as well?"""

    @property
    @abstractmethod
    def selected(self) -> Selected | None:
        """The trial's best prompt so far; None where there is none, or the stage evaluates nothing."""

    @property
    @abstractmethod
    def current(self) -> Candidate:
        """The prompt that the stage stands at."""

    @property
    def steps(self) -> int:
        """The optimizer's steps that are done; 0 of a stage without an optimizer."""
        return 0

    @property
    def waiting(self) -> bool:
        """True while a population's schedule must decide."""
        return False

    @abstractmethod
    def advance(self) -> list[Row]:
        """Do the next part; return its rows."""

    @abstractmethod
    def hand_over(self, state: TrialState, place: int) -> None:
        """Leave to the stages that follow what they go on from. ``place``: of the stage in ``experiment.stages``."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the stage between two calls of ``advance``."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a stage that was opened in the same way, to go on with the same bits."""

    def go_on(self) -> list[Row]:
        """The schedule leaves the trial its prompt; return the row that says so."""
        raise AssertionError("only a stage that waits goes on")

    def take_over(self, exploit: Exploit) -> None:
        """The schedule has the trial restart."""
        raise AssertionError("only a stage that waits takes over")
