"""The ledger: what a run wrote down, as append-only JSON lines. Reports are left to `report`, deciding to the rest."""

from distributed_tuner.ledger.digest import Digest, digest
from distributed_tuner.ledger.follower import Follower
from distributed_tuner.ledger.frames import frames
from distributed_tuner.ledger.reader import Ledger, Session, read
from distributed_tuner.ledger.rows import (
    CalibrationRow,
    CostRow,
    CurvatureRow,
    EvalRow,
    EventRow,
    ExchangeRow,
    FeedbackRow,
    MeasureRow,
    ParityRow,
    RestartRow,
    Row,
    RunEndRow,
    RunRow,
    ScoredText,
    StageRow,
    StepRow,
    SurveyRow,
    TrialEndRow,
    TrialRow,
)
from distributed_tuner.ledger.writer import LedgerWriter

__all__ = [
    "CalibrationRow",
    "Digest",
    "Follower",
    "CostRow",
    "EvalRow",
    "EventRow",
    "ExchangeRow",
    "FeedbackRow",
    "Ledger",
    "LedgerWriter",
    "MeasureRow",
    "CurvatureRow",
    "ParityRow",
    "RestartRow",
    "Row",
    "RunEndRow",
    "RunRow",
    "ScoredText",
    "Session",
    "StageRow",
    "StepRow",
    "SurveyRow",
    "TrialEndRow",
    "TrialRow",
    "digest",
    "frames",
    "read",
]
