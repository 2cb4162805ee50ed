"""Running totals of a ledger: all that a report needs, in memory that grows with trials and not with rows."""

import math
from array import array
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from distributed_tuner.ledger.curve import Curve
from distributed_tuner.ledger.quick_rows import AnyRow, Eval, QuickCost, QuickEval, QuickMetrics, QuickStep, Step
from distributed_tuner.ledger.reader import RowFeed, Session, Sessions, name_of, require_ledger
from distributed_tuner.ledger.rows import (
    DATA_WARNING,
    CalibrationRow,
    CostRow,
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
    StepRow,
    SurveyRow,
    TrialEndRow,
    TrialRow,
)
from distributed_tuner.ledger.step_columns import TrialSteps, by_trial, cost_of, span_of

R = TypeVar("R")
CHUNK = 1 << 24
"""Bytes of a ledger that are read at once."""
_SCREENED = 1_000  # more than a screen has finalists
_SELECTED = 32  # selected evaluations of a trial that are kept, in case that the last ones are not selected again
EVENTS = 1000
"""Events that are kept: the latest; of warnings of proposers the first."""
TALKS = 20
"""Exchanges that are kept whole: the first."""


class _Paid(Protocol):
    """A row of a trial that says what its budget has paid for until then."""

    @property
    def time(self) -> float: ...
    @property
    def spent(self) -> CostRow | QuickCost: ...
    @property
    def elapsed(self) -> float: ...


class Selected(NamedTuple):
    """The evaluation of a prompt that became its trial's best, as in `EvalRow`. ``numbers``: its losses, None as
    NaN."""

    train_loss: float | None
    dev_loss: float | None
    dev_metric: float | None
    score: float | None
    numbers: "array[float]"
    text: str | None

    @classmethod
    def of(cls, row: Eval) -> "Selected":
        return cls(row.train_loss, row.dev_loss, row.dev_metric, row.score, _numbers(row.losses), row.text)

    @property
    def losses(self) -> tuple[float | None, ...]:
        """The loss of each row, train's before dev's."""
        return tuple(None if math.isnan(one) else one for one in self.numbers)


@dataclass(slots=True)
class TrialDigest:
    """Totals of the rows of one trial.

    ``start`` and ``end`` are the latest. ``least`` and ``most``: of the losses of candidates, as far as steps tell of
    them.
    """

    start: TrialRow | None = None
    end: TrialEndRow | None = None
    elapsed: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    steps: Curve = field(
        default_factory=lambda: Curve(
            last=("time", "queries"),
            total=("loss", "losses", "failed", "raced", "queries_saved", "forwards_saved"),
        )
    )
    evaluations: Curve = field(
        default_factory=lambda: Curve(last=("time", "queries", "elapsed", "train_loss"), best=("dev_metric",))
    )
    calls: dict[tuple[int, int, bool], ExchangeRow] = field(default_factory=dict)
    """Requests to proposers without their texts, by stage, number, and whether a screen asked."""
    _spent: CostRow | QuickCost = field(default_factory=CostRow)
    _selected: dict[tuple[int, int, bool], Selected] = field(default_factory=dict)
    _others: list[tuple[float, int]] = field(default_factory=list)

    @property
    def spent(self) -> CostRow:
        """The largest of the cumulative costs."""
        spent = self._spent
        return spent if isinstance(spent, CostRow) else spent.row

    @property
    def selected(self) -> Selected | None:
        """The evaluation of the prompt that is the trial's best; None before the first that was selected."""
        return next(reversed(self._selected.values()), None)

    def queries_at(self, time: float) -> int:
        """Return what the trial's budget had paid for at a moment, in queries."""
        curves = (self.steps.columns("time", "queries"), self.evaluations.columns("time", "queries"))
        paid = [float(rows[rows[:, 0] <= time, 1].max(initial=0)) for rows in curves]
        return int(max(*paid, *(queries for moment, queries in self._others if moment <= time), 0))

    def add_step(self, row: Step) -> None:
        self._pay(row)
        loss = row.loss
        for told in (loss, row.best_loss):
            if told is not None:
                self.least, self.most = min(self.least, told), max(self.most, told)
        self.steps.add(
            (
                *(row.stage, row.step, 1, row.time, row.spent.queries),
                *((0, 0) if loss is None else (loss, 1)),
                row.failed,
                *_saved(row),
            )
        )

    def add_steps(self, steps: TrialSteps) -> None:
        self._pay(steps.spent)
        self.elapsed = max(self.elapsed, steps.elapsed)
        if steps.least <= steps.most:
            self.least, self.most = min(self.least, steps.least), max(self.most, steps.most)
        self.steps.extend(steps.curve)

    def add_eval(self, row: Eval) -> None:
        self._pay(row)
        order = row.step - _SCREENED if row.screen else row.step  # finalists come before the search's first evaluation
        self.evaluations.add(
            (
                *(row.stage, order, 1, row.time, row.spent.queries, row.elapsed),
                math.nan if row.train_loss is None else row.train_loss,
                math.nan if row.dev_metric is None else row.dev_metric,
            )
        )
        key = (row.stage, row.step, row.screen)
        if row.selected:
            self._selected[key] = Selected.of(row)
            if len(self._selected) > _SELECTED:
                del self._selected[next(iter(self._selected))]
        else:
            self._selected.pop(key, None)

    def add_other(self, row: FeedbackRow | RestartRow | SurveyRow | ScreenRow) -> None:
        self._pay(row)
        self._others.append((row.time, row.spent.queries))

    def _pay(self, row: _Paid) -> None:
        spent, most = row.spent, self._spent
        if spent.queries > most.queries or _order(spent) > _order(most):  # rows of one moment may come in any order
            self._spent = spent
        if row.elapsed > self.elapsed:
            self.elapsed = row.elapsed


def _numbers(losses: Sequence[float | None]) -> "array[float]":
    """Return losses as numbers, None as NaN."""
    try:
        return array("d", cast("Sequence[float]", losses))
    except TypeError:  # there is a None
        return array("d", [math.nan if one is None else one for one in losses])


def _saved(row: Step) -> tuple[bool, float, float]:
    """Return whether candidates of a step were raced, and the queries and forwards that it saved."""
    metrics = row.metrics
    if isinstance(metrics, QuickMetrics):
        return metrics.saved
    queries, forwards = metrics.get("queries_saved"), metrics.get("forwards_saved")
    return queries is not None or forwards is not None, queries or 0.0, forwards or 0.0


def _order(cost: CostRow | QuickCost) -> tuple[int, int, int]:
    return (cost.queries, cost.forwards, cost.tokens)


class Digest:
    """Totals of a ledger so far. Rows are added in the order they were written; of rows that were written twice,
    as after a resume, the later one counts."""

    def __init__(self, rows: Iterable[AnyRow] = ()) -> None:
        self.trials: dict[str, TrialDigest] = {}
        self.events: deque[EventRow] = deque(maxlen=EVENTS)
        self.events_seen = 0
        self.warnings: dict[Hashable, EventRow] = {}
        """Of proposers: each trial's first failure, and every one that was given up."""
        self.data_warnings: dict[str, None] = {}
        """Warnings about the data, in order of report."""
        self.talks: dict[Hashable, ExchangeRow] = {}
        self._sessions = Sessions()
        self._tables: dict[type[Any], dict[Hashable, Any]] = {}
        for row in rows:
            self.add(row)

    def extend(self, rows: Iterable[AnyRow]) -> None:
        """Take more rows: the same as `add` of each, several times as fast."""
        steps: list[QuickStep] = []
        for row in rows:
            if type(row) is QuickStep:
                steps.append(row)
                continue
            if type(row) is RunRow:  # its stretch begins after what those before have cost
                self._add_steps(steps)
                steps = []
            self.add(row)
        self._add_steps(steps)

    def add(self, row: AnyRow) -> None:
        """Take one more row."""
        self._sessions.add(row)
        take = _TAKEN.get(type(row))
        if take is not None:
            take(self, row)

    # ------------------------------------------------------------------------------------------------ what is known
    @property
    def sessions(self) -> tuple[Session, ...]:
        """The stretches of the run."""
        return self._sessions.so_far()

    @property
    def end(self) -> RunEndRow | None:
        """Status of the last session; None if it was killed or is still running."""
        sessions = self.sessions
        return sessions[-1].end if sessions else None

    @property
    def started(self) -> dict[str, TrialDigest]:
        """The trials that have begun, by name."""
        return {name: trial for name, trial in self.trials.items() if trial.start is not None}

    def queries_at(self, trial_id: str, time: float) -> int:
        """Return what a trial's budget had paid for at a moment, in queries."""
        trial = self.trials.get(trial_id)
        return trial.queries_at(time) if trial else 0

    @property
    def restarts(self) -> list[RestartRow]:
        """All restart stages that have ended, in the order they did."""
        return self._table(RestartRow)

    @property
    def measures(self) -> list[MeasureRow]:
        return self._table(MeasureRow)

    @property
    def calibrations(self) -> list[CalibrationRow]:
        return self._table(CalibrationRow)

    @property
    def parities(self) -> list[ParityRow]:
        return self._table(ParityRow)

    @property
    def layouts(self) -> list[LayoutRow]:
        return self._table(LayoutRow)

    @property
    def surveys(self) -> list[SurveyRow]:
        return self._table(SurveyRow)

    @property
    def screens(self) -> list[ScreenRow]:
        return self._table(ScreenRow)

    @property
    def ensembles(self) -> list[EnsembleRow]:
        return self._table(EnsembleRow)

    @property
    def calls(self) -> list[ExchangeRow]:
        """All requests to proposers, without their texts."""
        return [call for trial in self.trials.values() for call in trial.calls.values()]

    # ------------------------------------------------------------------------------------------------ parts
    def _table(self, kind: type[R]) -> list[R]:
        return list(self._tables.get(kind, {}).values())

    def _keep(self, row: Row) -> None:
        table = self._tables.setdefault(type(row), {})
        table[name_of(row) or len(table)] = row

    def _trial(self, name: str) -> TrialDigest:
        found = self.trials.get(name)
        if found is None:
            found = self.trials[name] = TrialDigest()
        return found

    def _add_steps(self, steps: list[QuickStep]) -> None:
        if not steps:
            return
        self._sessions.add_paid(*span_of(steps), cost_of(steps))
        for one in by_trial(steps):
            self._trial(one.trial_id).add_steps(one)

    def _step(self, row: Step) -> None:
        self._trial(row.trial_id).add_step(row)

    def _validate(self, row: Eval) -> None:
        self._trial(row.trial_id).add_eval(row)

    def _other(self, row: FeedbackRow | RestartRow | SurveyRow | ScreenRow) -> None:
        self._trial(row.trial_id).add_other(row)
        if not isinstance(row, FeedbackRow):
            self._keep(row)

    def _start(self, row: TrialRow) -> None:
        self._trial(row.trial_id).start = row

    def _end(self, row: TrialEndRow) -> None:
        self._trial(row.trial_id).end = row

    def _exchange(self, row: ExchangeRow) -> None:
        name = name_of(row)
        if name in self.talks or len(self.talks) < TALKS:
            self.talks[name] = row
        light = row.model_copy(update={"instruction": "", "answer": "", "texts": []})
        self._trial(row.trial_id).calls[row.stage, row.number, row.screen] = light

    def _event(self, row: EventRow) -> None:
        self.events.append(row)
        self.events_seen += 1
        if row.kind == DATA_WARNING and len(self.data_warnings) < EVENTS:
            self.data_warnings[row.message] = None
        if row.kind in ("proposer", "proposer_given_up") and len(self.warnings) < EVENTS:
            self.warnings.setdefault(row.trial_id if row.kind == "proposer" else self.events_seen, row)


_TAKEN: Mapping[type[AnyRow], Callable[[Digest, Any], None]] = {
    StepRow: Digest._step,
    QuickStep: Digest._step,
    EvalRow: Digest._validate,
    QuickEval: Digest._validate,
    FeedbackRow: Digest._other,
    RestartRow: Digest._other,
    SurveyRow: Digest._other,
    ScreenRow: Digest._other,
    TrialRow: Digest._start,
    TrialEndRow: Digest._end,
    ExchangeRow: Digest._exchange,
    EventRow: Digest._event,
    EnsembleRow: Digest._keep,
    MeasureRow: Digest._keep,
    CalibrationRow: Digest._keep,
    ParityRow: Digest._keep,
    LayoutRow: Digest._keep,
}


def digest(path: Path | str) -> Digest:
    """Read the ledger at ``path`` and return what it comes to.

    Raises:
        LedgerError: as `read`.
    """
    path = require_ledger(path)
    found, feed = Digest(), RowFeed(path)
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            found.extend(feed.quick_rows(data))
    found.extend(feed.rest())
    return found
