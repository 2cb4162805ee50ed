"""State of a trial between its stages: where it stands, and what its stages have found and left to each other."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from distributed_tuner.stages.selection import Selected
from distributed_tuner.stages.trajectory import Trajectory
from distributed_tuner.stages.trial_memory import Memory
from distributed_tuner.values import Candidate, Cost, Start


@dataclass(frozen=True, eq=False, slots=True)
class Left:
    """The optimizer of a search or gradient stage that has ended, for the same stage of the next round."""

    state: dict[str, Any]
    horizon: int


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a trial's screen; ``template`` and ``label_words`` empty where they are the task's."""

    instruction: str
    template: str = ""
    label_words: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class TrialState:
    """State common to a trial's stages, saved with it. Places are those in ``experiment.stages``."""

    stage_index: int = 0
    """In the schedule, over all rounds."""
    opened: Cost = field(default_factory=Cost)
    """Cost so far when the stage began."""
    horizon: int = 1
    """The steps that the optimizer was made for, over this and later rounds."""
    current: Candidate | None = None
    """End point of the stage before; None: the start."""
    selected: Selected | None = None
    """The best prompt of the stages before."""
    adopted: Start | None = None
    """The place that a restart stage had the next search begin at, until it does."""
    trajectory: Trajectory = field(default_factory=Trajectory)
    """Of the search right before."""
    memory: Memory = field(default_factory=Memory)
    left: dict[int, Left] = field(default_factory=dict)
    """Optimizers of the round before, by place."""
    screened: Found | None = None
    surveyed: dict[int, dict[str, float]] = field(default_factory=dict)
    """Measured values of "auto" settings, by place."""
    settings: dict[str, float] = field(default_factory=dict)
    """Settings that were taken over from other trials, by path."""
    restart_id: str = ""
    """The ``Exploit`` that was carried out last."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain data, arrays and frozen objects that share nothing with this state."""
        shared = {one.name: getattr(self, one.name) for one in fields(self)}
        return shared | _copied(shared) | {"trajectory": self.trajectory.state_dict()}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> "TrialState":
        """Return the state that ``state_dict`` described; older versions may not have known all of it."""
        known = {one.name: state[one.name] for one in fields(cls) if one.name in state}
        trajectory = Trajectory()
        trajectory.load_state_dict(known["trajectory"])
        return cls(**known | _copied(known) | {"trajectory": trajectory})


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Return what of a state may be changed, copied."""
    copies = {name: dict(state[name]) for name in ("left", "surveyed", "settings")}
    return copies | {"memory": replace(state["memory"])}
