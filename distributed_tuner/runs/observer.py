"""Observer of a run: the interface of progress tables, progress bars and a user's callbacks."""

from types import TracebackType
from typing import Protocol

from distributed_tuner.ledger.rows import Row


class Observer(Protocol):
    """Listener of a run's events, in order, called by the process that writes the ledger. Entered while trials run."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, message: str) -> None:
        """Something that a person should know."""
        ...

    def row(self, trial_id: str, row: Row) -> None:
        """A trial has reported a row, which is in the ledger."""
        ...

    def update(self, trial_id: str, progress: dict[str, float]) -> None:
        """A trial has reported: what it has spent so far, and how its selected prompt scores."""
        ...

    def status(self, trial_id: str, status: str) -> None:
        """A trial begins ("running") or ends ("done", "stopped", "interrupted", "failed")."""
        ...
