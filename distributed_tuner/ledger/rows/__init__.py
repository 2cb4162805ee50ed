"""The rows of a ledger: what may be written down, typed. How rows reach the disk is left to `writer` and `reader`."""

from typing import Annotated, TypeAlias

from pydantic import Field, TypeAdapter

from distributed_tuner.ledger.rows.fields import CostRow, Count, Metrics, Score, Seconds, Seed
from distributed_tuner.ledger.rows.measurements import (
    CalibrationRow,
    CurvatureRow,
    GeneratedText,
    LayoutRow,
    MeasureRow,
    ParityRow,
)
from distributed_tuner.ledger.rows.restart import ExchangeRow, FeedbackRow, RestartRow, ScoredText
from distributed_tuner.ledger.rows.run import DATA_WARNING, EventRow, RunEndRow, RunRow
from distributed_tuner.ledger.rows.trial import (
    EnsembleRow,
    EvalRow,
    ScreenedText,
    ScreenRow,
    StageRow,
    StepRow,
    SurveyRow,
    TrialEndRow,
    TrialRow,
)

Row: TypeAlias = Annotated[
    RunRow
    | TrialRow
    | StepRow
    | EvalRow
    | FeedbackRow
    | ExchangeRow
    | RestartRow
    | MeasureRow
    | CalibrationRow
    | ParityRow
    | LayoutRow
    | CurvatureRow
    | SurveyRow
    | ScreenRow
    | EnsembleRow
    | StageRow
    | EventRow
    | TrialEndRow
    | RunEndRow,
    Field(discriminator="type"),
]

ROW: TypeAdapter[Row] = TypeAdapter(Row)
"""Reads one line: ``ROW.validate_json(line)``."""

__all__ = [
    "CalibrationRow",
    "CostRow",
    "Count",
    "CurvatureRow",
    "DATA_WARNING",
    "EnsembleRow",
    "EvalRow",
    "EventRow",
    "ExchangeRow",
    "FeedbackRow",
    "GeneratedText",
    "LayoutRow",
    "MeasureRow",
    "Metrics",
    "ParityRow",
    "ROW",
    "RestartRow",
    "Row",
    "RunEndRow",
    "RunRow",
    "Score",
    "ScoredText",
    "ScreenRow",
    "ScreenedText",
    "Seconds",
    "Seed",
    "StageRow",
    "StepRow",
    "SurveyRow",
    "TrialEndRow",
    "TrialRow",
]
