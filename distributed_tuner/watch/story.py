"""What a page tells of a run beside its totals: the latest lines, restarts and answers of proposers."""

from collections import deque
from typing import NamedTuple

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.quick_rows import AnyRow, QuickEval
from distributed_tuner.ledger.rows import EvalRow, EventRow, ExchangeRow, RestartRow, TrialEndRow
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
    """Totals of a ledger, and what happened last in it. ``metric``: the name of the dev metric."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = "metric"
        self.lines: deque[LogLine] = deque(maxlen=LINES)
        self.last_restarts: deque[RestartRow] = deque(maxlen=RESTARTS)
        self.last_answers: deque[ExchangeRow] = deque(maxlen=ANSWERS)

    def add(self, row: AnyRow) -> None:
        """Take one more row."""
        super().add(row)
        if isinstance(row, RestartRow):
            self.last_restarts.append(row)
        elif isinstance(row, ExchangeRow):
            self.last_answers.append(row)
        if isinstance(row, QuickEval | EvalRow) and not row.selected:
            return
        if isinstance(row, TrialEndRow):
            self.lines.append(LogLine(row.time, row.status, row.trial_id, row.reason))
        elif line := row_line(row, self.metric):
            kind = row.kind if isinstance(row, EventRow) else row.type
            self.lines.append(LogLine(row.time, kind, getattr(row, "trial_id", None) or "", line.strip()))
