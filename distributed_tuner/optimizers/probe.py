"""Probes: what an optimizer asks around a search's start to measure the settings that were left to "auto".

Who asks an oracle, pays and writes down what was found is the stage's business (``stages.auto_settings``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from distributed_tuner.values import Array64, Candidate


@dataclass(frozen=True, slots=True)
class Measured:
    """What a probe found. settings: by name, those without a number keep their defaults. told: on what grounds, by the
    names of a survey's ledger row (``ledger.rows.SurveyRow``)."""

    settings: Mapping[str, float]
    told: Mapping[str, Any] = field(default_factory=dict)


class Probe(Protocol):
    """One request around the start of a search, and what follows from its losses."""

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Candidates to score; the same number for every start point."""
        ...

    def measure(self, losses: Array64) -> Measured | None:
        """Return what the losses tell, shape (C,), not finite where the query failed; None where too many have."""
        ...
