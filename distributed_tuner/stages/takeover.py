"""What a population's schedule tells a trial that restarts."""

from dataclasses import dataclass

from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.values import Start


@dataclass(frozen=True, eq=False, slots=True)
class Takeover:
    """What a population's schedule says to a laggard: whom it takes after, and what the whole population knows.

    place: the donor's prompt. settings: by path, explored already. No donor: the trial keeps its own.
    """

    id: str
    donor: str | None
    settings: dict[str, float]
    place: Start | None
    pool: tuple[PooledText, ...]
