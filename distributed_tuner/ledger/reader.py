"""Reading a ledger back, typed. Knows torn tails, replays and resumed runs; what rows mean is left to `report`."""

import logging
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from msgspec import MsgspecError
from pydantic import ValidationError

from distributed_tuner import __version__
from distributed_tuner.errors import LedgerError
from distributed_tuner.ledger.quick_rows import QUICK, AnyRow, QuickCost, QuickEval, QuickStep
from distributed_tuner.ledger.rows import (
    ROW,
    CalibrationRow,
    CostRow,
    CurvatureRow,
    EnsembleRow,
    EvalRow,
    EventRow,
    ExchangeRow,
    FeedbackRow,
    LayoutRow,
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

log = logging.getLogger(__name__)

R = TypeVar("R")

_PAID = (
    *(StepRow, EvalRow, FeedbackRow, RestartRow, MeasureRow, CalibrationRow, ParityRow, LayoutRow, CurvatureRow),
    *(SurveyRow, ScreenRow, QuickStep, QuickEval),
)
"""Rows that say what they cost."""
_CHUNK = 1 << 20


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
    evaluations: tuple[EvalRow, ...]
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
    ensembles: tuple[EnsembleRow, ...]
    stages: tuple[StageRow, ...]
    events: tuple[EventRow, ...]
    trial_ends: tuple[TrialEndRow, ...]

    @property
    def end(self) -> RunEndRow | None:
        """Status of the last session; None if it was killed or is still running."""
        return self.sessions[-1].end if self.sessions else None


def read(path: Path | str) -> Ledger:
    """Read the ledger at ``path``, every row of it. A torn last line is left out with a warning.

    What a million rows come to is `digest`'s, in a thousandth of the memory.

    Raises:
        LedgerError: there is no such file, or a line other than a torn last one is not a row.
    """
    return collect(read_rows(path))


def read_rows(path: Path | str) -> Iterator[Row]:
    """Yield the rows of the ledger at ``path`` one after the other, those that were written twice as well.

    Raises:
        LedgerError: as `read`.
    """
    path = require_ledger(path)
    feed = RowFeed(path)
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            yield from feed.rows(data)
    yield from feed.rest()


def require_ledger(path: Path | str) -> Path:
    """Return ``path``, which must be a file.

    Raises:
        LedgerError: there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise LedgerError(f"A ledger is a file of JSON lines, found none at {path}. Give the folder of a run.")
    return path


def collect(rows: Iterable[Row]) -> Ledger:
    """Sort ``rows``, in the order they were written, by type; of rows with the same name the last one wins."""
    kept: dict[Hashable, Row] = {}
    sessions = Sessions()
    for number, row in enumerate(rows):
        sessions.add(row)
        kept[name_of(row) or number] = row
    latest = tuple(kept.values())
    return Ledger(
        sessions=sessions.so_far(),
        trials=_only(latest, TrialRow),
        steps=_only(latest, StepRow),
        evaluations=_only(latest, EvalRow),
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
        ensembles=_only(latest, EnsembleRow),
        stages=_only(latest, StageRow),
        events=_only(latest, EventRow),
        trial_ends=_only(latest, TrialEndRow),
    )


class RowFeed:
    """Turns the bytes of a ledger into rows, as they come. ``name``: what a person calls the ledger."""

    def __init__(self, name: Path | str) -> None:
        self._name = name
        self._number = 0  # lines that are done with
        self._torn: list[bytes] = []  # what stands behind the last newline
        self._written_by = ""

    def rows(self, data: bytes) -> Iterator[Row]:
        """Yield the rows that ``data`` ends; what stands behind its last newline waits for more.

        Raises:
            LedgerError: a line is not a row.
        """
        for line in self._lines(data):
            self._number += 1
            yield self._row(line)

    def quick_rows(self, data: bytes) -> list[AnyRow]:
        """Return the rows that ``data`` ends, steps and evaluations as `QUICK` parses them.

        Raises:
            LedgerError: a line is not a row.
        """
        decode, rows, before = QUICK.decode, list[AnyRow](), self._number
        for line in self._lines(data):
            try:
                rows.append(decode(line))
            except MsgspecError:
                self._number = before + len(rows) + 1
                rows.append(self._row(line))
        self._number = before + len(rows)
        return rows

    def _lines(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` ends."""
        *lines, rest = data.split(b"\n")
        if not lines:
            self._torn.append(rest)
            return []
        lines[0] = b"".join((*self._torn, lines[0]))
        self._torn = [rest] if rest else []
        return lines

    def rest(self) -> Iterator[Row]:
        """Yield the row whose newline is missing, if it is a whole one; one that a crash cut short is warned of."""
        line = b"".join(self._torn)
        if not line:
            return
        if is_row(line):
            yield self._row(line)
        else:
            log.warning("%s: line %d is torn and left out", self._name, self._number + 1)

    def _row(self, line: bytes) -> Row:
        try:
            row = ROW.validate_json(line)
        except ValidationError as error:
            raise LedgerError(self._malformed(line, error)) from None
        if type(row) is RunRow:
            self._written_by = row.version
        return row

    def _malformed(self, line: bytes, error: ValidationError) -> str:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = line[:80].decode(errors="replace").strip()
        advice = "Mend or delete that line, then read it again."
        if first["type"] in ("union_tag_invalid", "extra_forbidden") and self._written_by not in ("", __version__):
            advice = f"The run was written by version {self._written_by}, and this is {__version__}: read it with that."
        return (
            f"Every line of a ledger must be one row, got {shown!r} in line {self._number} of {self._name} "
            f"({where + ': ' if where else ''}{first['msg'][:200]}). {advice}"
        )


class Sessions:
    """The stretches of a run, added up row after row."""

    def __init__(self) -> None:
        self._done: list[Session] = []
        self._first = self._last = 0.0
        self._run: RunRow | None = None
        self._end: RunEndRow | None = None
        self._begun = False
        self._sums = [0, 0, 0, 0.0, 0.0, 0]

    def add(self, row: AnyRow) -> None:
        """Take one more row, in the order they were written."""
        if not self._begun or isinstance(row, RunRow):
            self._begin(row.time)
        self._see(row.time, row.time)
        if isinstance(row, _PAID):
            self._pay(row.cost)
        elif isinstance(row, RunRow):
            self._run = row
        elif isinstance(row, RunEndRow):
            self._end = row

    def add_paid(self, first: float, last: float, cost: CostRow) -> None:
        """Take rows that were written within a time and have cost so much together."""
        if not self._begun:
            self._begin(first)
        self._see(first, last)
        self._pay(cost)

    def _begin(self, time: float) -> None:
        self._done = list(self.so_far())
        self._begun, self._first, self._last = True, time, time
        self._run = self._end = None
        self._sums = [0, 0, 0, 0.0, 0.0, 0]

    def _see(self, first: float, last: float) -> None:
        self._first, self._last = min(self._first, first), max(self._last, last)

    def _pay(self, cost: CostRow | QuickCost) -> None:
        sums = self._sums
        sums[0] += cost.queries
        sums[1] += cost.forwards
        sums[2] += cost.tokens
        sums[3] += cost.seconds
        sums[4] += cost.usd
        sums[5] += cost.output_tokens

    def so_far(self) -> tuple[Session, ...]:
        """Return the stretches, the last one as far as it has come."""
        if not self._begun:
            return ()
        queries, forwards, tokens, seconds, usd, output = self._sums
        cost = Cost(int(queries), int(forwards), int(tokens), seconds, usd, int(output))
        return (*self._done, Session(self._first, self._last, self._run, self._end, cost))


def name_of(row: Row) -> Hashable:
    """Return what makes a row the same row when it is written again; None for rows that never replace another."""
    match row:
        case EvalRow():
            return (row.type, row.trial_id, row.stage, row.step, row.screen)
        case StepRow():
            return (row.type, row.trial_id, row.stage, row.step)
        case FeedbackRow() | RestartRow() | SurveyRow() | ScreenRow() | StageRow():
            return (row.type, row.trial_id, row.stage)
        case ExchangeRow():
            return (row.type, row.trial_id, row.stage, row.number, row.screen)
        case MeasureRow():
            return (row.type, row.what, row.split, row.trial_id, row.split_seed)
        case TrialRow() | TrialEndRow() | EnsembleRow():
            return (row.type, row.trial_id)
        case _:
            return None


def _only(rows: Iterable[Row], kind: type[R]) -> tuple[R, ...]:
    return tuple(row for row in rows if isinstance(row, kind))
