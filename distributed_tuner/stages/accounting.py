"""Fields common to all ledger rows of a stage: the trial, the step's cost, and what was spent until then."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from distributed_tuner.ledger.rows import CostRow, EvalRow, FeedbackRow, RestartRow, Row, ScreenRow, StepRow, SurveyRow
from distributed_tuner.values import Cost


@dataclass(frozen=True, slots=True)
class Accounting:
    """The books of one stage of one trial. ``spent`` and ``elapsed`` ask the trial."""

    trial_id: str
    stage: int
    spent: Callable[[], Cost]
    elapsed: Callable[[], float]

    @property
    def names(self) -> dict[str, Any]:
        """Whose row it is."""
        return {"trial_id": self.trial_id, "stage": self.stage}

    def of(self, cost: Cost) -> dict[str, Any]:
        """Return what a row says of a cost that has just been paid."""
        return {"cost": CostRow.of(cost), "spent": CostRow.of(self.spent()), "elapsed": self.elapsed()}

    def given_up(self, before: Cost, rows: Iterable[Row]) -> Cost | None:
        """Return the cost since ``before`` that is in none of ``rows``: requests without an answer."""
        paid = StepRow | EvalRow | FeedbackRow | RestartRow | SurveyRow | ScreenRow
        told = sum((row.cost.value() for row in rows if isinstance(row, paid)), before)
        lost = self.spent() - told
        if lost.queries == 0:
            return None
        return replace(lost, seconds=max(0.0, lost.seconds), usd=max(0.0, lost.usd))  # no -1e-17 from rounding
