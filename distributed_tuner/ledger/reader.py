"""Reading a ledger back, typed. Knows torn tails, replays and resumed runs; what rows mean is left to `report`."""

import warnings
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from distributed_tuner.errors import LedgerError
from distributed_tuner.ledger.rows import (
    ROW,
    CalibrationRow,
    CurvatureRow,
    EventRow,
    ExchangeRow,
    FeedbackRow,
    LayoutRow,
    LookRow,
    MeasureRow,
    ParityRow,
    RestartRow,
    Row,
    RunEndRow,
    RunRow,
    ScreenRow,
    StageRow,
    StepRow,
    SurveyRow,
    TrialEndRow,
    TrialRow,
)
from distributed_tuner.ledger.writer import is_row
from distributed_tuner.values import Cost

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Session:
    """One stretch of a run, from a `RunRow` to its `RunEndRow` (None: it died, or is still going).

    ``first`` and ``last`` are unix times of its rows. ``cost`` sums everything it paid for, replays included.
    """

    first: float
    last: float
    run: RunRow | None = None
    end: RunEndRow | None = None
    cost: Cost = field(default_factory=Cost)

    @property
    def wall_seconds(self) -> float:
        """Wall-clock seconds: as the end row says, else the time its rows span."""
        return self.end.wall_seconds if self.end else max(0.0, self.last - self.first)

    @property
    def oracle_busy_seconds(self) -> float:
        """Device seconds of all oracles: as the end row says, else what the rows paid for."""
        return self.end.oracle_busy_seconds if self.end else self.cost.seconds


@dataclass(frozen=True, slots=True)
class Ledger:
    """The rows of a run by type. A row that was replayed after a resume stands once, in its latest version."""

    sessions: tuple[Session, ...]
    trials: tuple[TrialRow, ...]
    steps: tuple[StepRow, ...]
    looks: tuple[LookRow, ...]
    feedbacks: tuple[FeedbackRow, ...]
    exchanges: tuple[ExchangeRow, ...]
    restarts: tuple[RestartRow, ...]
    measures: tuple[MeasureRow, ...]
    calibrations: tuple[CalibrationRow, ...]
    parities: tuple[ParityRow, ...]
    layouts: tuple[LayoutRow, ...]
    curvatures: tuple[CurvatureRow, ...]
    surveys: tuple[SurveyRow, ...]
    screens: tuple[ScreenRow, ...]
    stages: tuple[StageRow, ...]
    events: tuple[EventRow, ...]
    trial_ends: tuple[TrialEndRow, ...]

    @property
    def end(self) -> RunEndRow | None:
        """How the last session ended; None when it died or is still going."""
        return self.sessions[-1].end if self.sessions else None


def read(path: Path | str) -> Ledger:
    """Read the ledger at ``path``. A torn last line is left out with a warning.

    Raises:
        LedgerError: there is no such file, or a line other than a torn last one is not a row.
    """
    path = Path(path)
    if not path.is_file():
        raise LedgerError(f"A ledger is a file of JSON lines, found none at {path}. Give the folder of a run.")
    return collect(_rows(path))


def collect(rows: Iterable[Row]) -> Ledger:
    """Sort ``rows``, in the order they were written, by type; of rows with the same name the last one wins."""
    kept: dict[Hashable, Row] = {}
    sessions: list[Session] = []
    for number, row in enumerate(rows):
        if not sessions or isinstance(row, RunRow):
            sessions.append(Session(row.time, row.time))
        sessions[-1] = _extended(sessions[-1], row)
        kept[_name(row) or number] = row
    latest = tuple(kept.values())
    return Ledger(
        sessions=tuple(sessions),
        trials=_only(latest, TrialRow),
        steps=_only(latest, StepRow),
        looks=_only(latest, LookRow),
        feedbacks=_only(latest, FeedbackRow),
        exchanges=_only(latest, ExchangeRow),
        restarts=_only(latest, RestartRow),
        measures=_only(latest, MeasureRow),
        calibrations=_only(latest, CalibrationRow),
        parities=_only(latest, ParityRow),
        layouts=_only(latest, LayoutRow),
        curvatures=_only(latest, CurvatureRow),
        surveys=_only(latest, SurveyRow),
        screens=_only(latest, ScreenRow),
        stages=_only(latest, StageRow),
        events=_only(latest, EventRow),
        trial_ends=_only(latest, TrialEndRow),
    )


def _rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            # Only the last line can lack its newline, and only that shows that a crash cut it short.
            if not line.endswith(b"\n") and not is_row(line):
                warnings.warn(f"{path}: line {number} is torn and left out.", stacklevel=2)
                return
            try:
                yield ROW.validate_json(line)
            except ValidationError as error:
                raise LedgerError(_malformed(path, number, line, error)) from error


def _malformed(path: Path, number: int, line: bytes, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    shown = line[:80].decode(errors="replace").strip()
    return (
        f"Every line of a ledger must be one row, got {shown!r} in line {number} of {path} "
        f"({where + ': ' if where else ''}{first['msg']}). Mend or delete that line, then read it again."
    )


def _name(row: Row) -> Hashable:
    """Return what makes a row the same row when it is written again; None for rows that never replace another."""
    match row:
        case LookRow():
            return (row.type, row.trial_id, row.stage, row.step, row.screen)
        case StepRow():
            return (row.type, row.trial_id, row.stage, row.step)
        case FeedbackRow() | RestartRow() | SurveyRow() | ScreenRow() | StageRow():
            return (row.type, row.trial_id, row.stage)
        case ExchangeRow():
            return (row.type, row.trial_id, row.stage, row.number)
        case MeasureRow():
            return (row.type, row.what, row.split, row.trial_id, row.split_seed)
        case TrialRow() | TrialEndRow():
            return (row.type, row.trial_id)
        case _:
            return None


def _extended(session: Session, row: Row) -> Session:
    session = replace(session, first=min(session.first, row.time), last=max(session.last, row.time))
    match row:
        case RunRow():
            return replace(session, run=row)
        case RunEndRow():
            return replace(session, end=row)
        case (
            StepRow()
            | LookRow()
            | FeedbackRow()
            | RestartRow()
            | MeasureRow()
            | CalibrationRow()
            | ParityRow()
            | LayoutRow()
            | CurvatureRow()
            | SurveyRow()
            | ScreenRow()
        ):
            return replace(session, cost=session.cost + row.cost.value())
        case _:
            return session


def _only(rows: Iterable[Row], kind: type[R]) -> tuple[R, ...]:
    return tuple(row for row in rows if isinstance(row, kind))
