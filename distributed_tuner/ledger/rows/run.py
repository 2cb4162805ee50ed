"""Rows of a run: its start, events, its end."""

from typing import Literal

from pydantic import Field

from distributed_tuner.ledger.rows.fields import Count, Seconds, Seed, TypedRow


class RunRow(TypedRow):
    """A run begins, or begins again (``resumed``)."""

    type: Literal["run"] = "run"
    name: str
    version: str
    seed: Seed
    methods: list[str]
    resumed: bool = False


DATA_WARNING = "data_warning"
"""The kind of an event that tells what in the data flatters or spoils the numbers."""


class EventRow(TypedRow):
    """Something a reader of the report should know: a retry, a restart, a stop, a warning."""

    type: Literal["event"] = "event"
    trial_id: str | None = None
    kind: str
    message: str


class RunEndRow(TypedRow):
    """A run ends. Seconds and counts are of the stretch since the latest `RunRow`, not of the stretches before."""

    type: Literal["run_end"] = "run_end"
    status: Literal["done", "interrupted", "failed"]
    wall_seconds: Seconds
    oracle_busy_seconds: Seconds
    """Device seconds in which oracles computed, summed over actors."""
    oracle_actors: Count
    tiles: Count
    retries: Count
    counts: dict[str, Count] = Field(default_factory=dict)
    """Other counts in the oracles' answers, summed by name: ``cached_forwards``, ``absent_labels``, ..."""
