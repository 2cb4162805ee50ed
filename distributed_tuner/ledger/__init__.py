"""The ledger: what a run wrote down, as append-only JSON lines. Reports are left to `report`, deciding to the rest."""

from distributed_tuner.ledger.frames import frames
from distributed_tuner.ledger.reader import Ledger, Session, read
from distributed_tuner.ledger.rows import (
    CalibrationRow,
    CostRow,
    EventRow,
    LookRow,
    MeasureRow,
    Row,
    RunEndRow,
    RunRow,
    StepRow,
    TrialEndRow,
    TrialRow,
)
from distributed_tuner.ledger.writer import LedgerWriter

__all__ = [
    "CalibrationRow",
    "CostRow",
    "EventRow",
    "Ledger",
    "LedgerWriter",
    "LookRow",
    "MeasureRow",
    "Row",
    "RunEndRow",
    "RunRow",
    "Session",
    "StepRow",
    "TrialEndRow",
    "TrialRow",
    "frames",
    "read",
]
