"""Memory of a trial from one restart stage to the next: scored texts, and how its proposer did."""

from dataclasses import dataclass

from distributed_tuner.prompts.pool import PooledText


@dataclass(slots=True)
class Memory:
    """State of a trial from one restart stage to the next."""

    pool: tuple[PooledText, ...] = ()
    calls: int = 0
    usd: float = 0.0
    failures: int = 0
    """Restart stages in a row that got no proposal."""
    incumbent_loss: float | None = None
    """Feedback loss of the prompt that the last restart stage left, until a search moves away from it."""
    cut_told: bool = False
    """Whether a warning of too long a proposal was logged."""
    told: bool = False
    """Whether a failure was logged."""
