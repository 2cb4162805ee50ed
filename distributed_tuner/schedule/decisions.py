"""Decisions of a population's schedule, as a resumed run must know them. JSON in, JSON out."""

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from distributed_tuner.prompts.pool import PooledText, present_source
from distributed_tuner.schedule.population import Decision, Standing


@dataclass(frozen=True, slots=True)
class Restart:
    """Decision for a trial at a sync point. place: of the source trial's prompt, encoded, empty without one. pool: the
    texts that it is shown."""

    id: str
    sync_point: int
    source_trial: str | None
    settings: dict[str, float]
    place: str
    pool: tuple[PooledText, ...]


@dataclass(slots=True)
class Decisions:
    """All decisions so far.

    decided: by trial and sync point. met: by sync point, how all stood that met there ("sync"). restarts: by trial and
    sync point, the last two: a trial's checkpoint may be a sync point behind.
    """

    decided: dict[str, dict[int, Decision]] = field(default_factory=dict)
    met: dict[int, tuple[Standing, ...]] = field(default_factory=dict)
    restarts: dict[str, dict[int, Restart]] = field(default_factory=dict)

    def of(self, trial_id: str, sync_point: int) -> Decision | None:
        """Return what was decided for a trial at a sync point; None while nothing is."""
        return self.decided.get(trial_id, {}).get(sync_point)

    def restart_of(self, trial_id: str, sync_point: int) -> Restart | None:
        """Return the decision for a trial at a sync point; None if there was none, or it is too old."""
        return self.restarts.get(trial_id, {}).get(sync_point)

    def order(self, trial_id: str, restart: Restart) -> None:
        """Record the decision for a trial."""
        recent = {at: one for at, one in self.restarts.get(trial_id, {}).items() if at >= restart.sync_point - 1}
        self.restarts[trial_id] = recent | {restart.sync_point: restart}

    def settings_of(self, trial_id: str) -> dict[str, float]:
        """Return the settings that a trial has taken over so far, by path."""
        settings: dict[str, float] = {}
        for _, decision in sorted(self.decided.get(trial_id, {}).items()):
            settings |= decision.settings
        return settings

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> "Decisions":
        """Return the decisions of ``to_json``, read back from JSON.

        Raises:
            ValueError: this is something else.
        """
        return _ADAPTER.validate_python(_present(raw))


_PRESENT = {"boundary": "sync_point", "donor": "source_trial"}
"""Names in the files of older versions, with their present ones."""


def _present(raw: Any) -> Any:
    """Return a tree of any age with present names; trials are names of their own and end with a number."""
    match raw:
        case dict():
            named = {_PRESENT.get(name, name): _present(value) for name, value in raw.items()}
            return named | {"source": present_source(named["source"])} if "source" in named else named
        case list() | tuple():
            return [_present(one) for one in raw]
    return raw


_ADAPTER = TypeAdapter(Decisions)
