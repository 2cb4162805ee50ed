"""What a page tells of a run beside its totals: the latest lines, restarts and answers of proposers."""

from collections import deque
from typing import NamedTuple

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.quick_rows import AnyRow, QuickEval
from distributed_tuner.ledger.rows import (
    EvalRow,
    EventRow,
    ExchangeRow,
    RestartRow,
    ScreenRow,
    StageRow,
    SurveyRow,
    TrialEndRow,
)
from distributed_tuner.report.row_lines import row_line

LINES, RESTARTS, ANSWERS = 200, 50, 20
"""Lines, restart stages and requests to proposers that are shown: the latest."""


class LogLine(NamedTuple):
    """``time``: in unix seconds. ``trial``: empty for what concerns the run."""

    time: float
    kind: str
    trial: str
    text: str


class Story(Digest):
    """Totals of a ledger, and what happened last in it."""

    def __init__(self) -> None:
        super().__init__()
        self.last_restarts: deque[RestartRow] = deque(maxlen=RESTARTS)
        self.last_answers: deque[ExchangeRow] = deque(maxlen=ANSWERS)
        self._told: deque[AnyRow] = deque(maxlen=LINES)

    def add(self, row: AnyRow) -> None:
        """Take one more row."""
        super().add(row)
        if isinstance(row, QuickEval | EvalRow):
            if row.selected:
                self._told.append(row)
        elif isinstance(row, ExchangeRow):
            self.last_answers.append(row)
        elif isinstance(row, EventRow | RestartRow | ScreenRow | StageRow | SurveyRow | TrialEndRow):
            self._told.append(row)
            if isinstance(row, RestartRow):
                self.last_restarts.append(row)

    def lines(self, metric: str) -> list[LogLine]:
        """Return what happened, the latest last. ``metric``: the name of the dev metric."""
        return [_line(row, metric) for row in self._told]


def _line(row: AnyRow, metric: str) -> LogLine:
    trial = getattr(row, "trial_id", None) or ""
    if isinstance(row, TrialEndRow):
        return LogLine(row.time, row.status, trial, row.reason)
    kind = row.kind if isinstance(row, EventRow) else getattr(row, "type", "evaluation")
    return LogLine(row.time, kind, trial, row_line(row, metric).strip())
