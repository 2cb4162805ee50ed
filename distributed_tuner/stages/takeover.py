"""What a population's schedule tells a trial that restarts."""

from dataclasses import dataclass

from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.values import Array


@dataclass(frozen=True, eq=False, slots=True)
class Takeover:
    """What a population's schedule says to a laggard: whom it takes after, and what the whole population knows.

    coordinates: the donor's prompt, (P,). settings: by path, explored already. No donor: the trial keeps its own.
    """

    id: str
    donor: str | None
    settings: dict[str, float]
    coordinates: Array | None
    pool: tuple[PooledText, ...]
