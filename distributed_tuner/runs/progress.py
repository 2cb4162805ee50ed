"""Progress of a run: a live table in a terminal, plain lines everywhere else."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger.rows import EvalRow, EventRow, RestartRow, Row, ScreenRow, StageRow, SurveyRow
from distributed_tuner.report import formatting
from distributed_tuner.shown import plain

_SHOWN = 60  # characters of a prompt in words


@dataclass(slots=True)
class _Line:
    budget: int | None
    status: str = "waiting"
    metric: float | None = None
    loss: float | None = None
    queries: int = 0
    elapsed: float = 0.0
    samples: list[tuple[float, int]] = field(default_factory=list)

    def rate(self) -> float:
        """Queries a second over the last minute."""
        if len(self.samples) < 2:
            return 0.0
        (t0, q0), (t1, q1) = self.samples[0], self.samples[-1]
        return (q1 - q0) / (t1 - t0) if t1 > t0 else 0.0


class Progress:
    """Shows the trials of a run. ``metric`` names the dev metric. A context manager, for the terminal's sake."""

    def __init__(self, plans: list[TrialPlan], metric: str, console: Console | None = None) -> None:
        self._console = console or Console(stderr=False)
        self._metric = metric
        self._lines = {plan.trial_id: _Line(plan.experiment.budget.queries) for plan in plans}
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._next_draw = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._draw(now=True)
            self._live.stop()

    def status(self, trial_id: str, status: str) -> None:
        """A trial begins or ends."""
        self._lines[trial_id].status = status
        if not self._console.is_terminal and status != "running":
            line = self._lines[trial_id]
            self.note(f"{trial_id}: {status} after {line.queries} queries, {line.elapsed:.0f} s")
        self._draw(now=True)

    def row(self, trial_id: str, row: Row) -> None:
        """A trial has reported a row."""
        match row:
            case EvalRow():
                self.evaluation(trial_id, row)
            case RestartRow():
                self.restart(trial_id, row)
            case SurveyRow():
                self.survey(trial_id, row)
            case ScreenRow():
                self.screen(trial_id, row)
            case StageRow():
                self.stage(trial_id, row)
            case EventRow():
                self.note(f"{trial_id}: {formatting.one_line(row.message, 500)}")

    def evaluation(self, trial_id: str, row: EvalRow) -> None:
        """A trial has evaluated its recommended prompt."""
        line = self._lines[trial_id]
        if row.selected:
            line.metric, line.loss = row.dev_metric, row.dev_loss
        if not self._console.is_terminal:
            mark = "  <- selected" if row.selected else ""
            if row.selected and row.text:
                mark += f": {formatting.one_line(row.text, 100)}"
            self.note(
                f"{trial_id}: {row.spent.queries:>5} queries  train loss {_number(row.train_loss)}  dev loss"
                f" {_number(row.dev_loss)}  dev {self._metric} {_number(row.dev_metric)}{mark}"
            )

    def restart(self, trial_id: str, row: RestartRow) -> None:
        """A restart stage has ended."""
        self.note(f"{trial_id}: restart after {row.spent.queries} queries: {_outcome(row)}")

    def survey(self, trial_id: str, row: SurveyRow) -> None:
        """A survey has chosen a search's settings."""
        self.note(f"{trial_id}: {formatting.survey(row)}")

    def screen(self, trial_id: str, row: ScreenRow) -> None:
        """A screen has found what the search starts from."""
        self.note(f"{trial_id}: {formatting.screen(row)}")

    def stage(self, trial_id: str, row: StageRow) -> None:
        """A stage has ended."""
        steps = "" if row.kind == "restart" else f"{row.steps} steps, "
        self.note(
            f"{trial_id}: stage {row.stage} ({row.kind}, {row.method}) ended after {steps}{row.paid.queries} queries,"
            f" best dev {self._metric} {_number(row.dev_metric)}: {formatting.one_line(row.reason, 3 * _SHOWN)}"
        )

    def update(self, trial_id: str, progress: dict[str, float]) -> None:
        """A trial has reported."""
        line = self._lines[trial_id]
        line.queries, line.elapsed = int(progress["queries"]), progress["elapsed"]
        recent = [(t, q) for t, q in line.samples if t > line.elapsed - 60][-60:]
        line.samples = [*recent, (line.elapsed, line.queries)]
        self._draw()

    def note(self, message: str) -> None:
        """Say something, above the table if there is one."""
        console = self._live.console if self._console.is_terminal else self._console
        console.print(f"[{time.strftime('%H:%M:%S')}] {plain(message)}", markup=False, highlight=False, soft_wrap=True)

    def _draw(self, now: bool = False) -> None:
        if self._console.is_terminal and (now or time.monotonic() >= self._next_draw):
            self._next_draw = time.monotonic() + 0.5
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "status"):
            table.add_column(name)
        for name in (f"best dev {self._metric}", "dev loss", "queries", "left", "queries/s", "ETA"):
            table.add_column(name, justify="right")
        for trial_id, line in self._lines.items():
            left = None if line.budget is None else max(0, line.budget - line.queries)
            rate = line.rate()
            running = line.status == "running" and left is not None and rate > 0
            eta = time.strftime("%H:%M:%S", time.gmtime((left or 0) / rate)) if running else "-"
            table.add_row(
                plain(trial_id),
                line.status,
                _number(line.metric),
                _number(line.loss),
                str(line.queries),
                "-" if left is None else str(left),
                f"{rate:.2f}",
                eta,
            )
        return table


def _outcome(row: RestartRow) -> str:
    """Say what became of the prompt, and by which losses on the feedback examples."""
    source_loss = next((text.loss for text in row.scored if text.source == "source_trial"), None)
    match row.adopted:
        case "proposal":
            new = next((text.loss for text in row.scored if text.text == row.text and text.source == "proposal"), None)
            to_beat = row.incumbent_loss if source_loss is None else source_loss
            return f'adopted "{formatting.one_line(row.text, _SHOWN)}" ({_compared(new, to_beat)})'
        case "source_trial":
            return f"took over {row.source_trial}'s prompt ({_compared(source_loss, row.incumbent_loss)})"
        case _:
            return f"kept its own prompt ({formatting.one_line(row.reason, 3 * _SHOWN) or 'none was proposed'})"


def _compared(new: float | None, old: float | None) -> str:
    if new is None:
        return "not scored"
    if old is None:
        return f"feedback loss {new:.4g}"
    return f"feedback loss {new:.4g} {'<' if new < old else '>='} {old:.4g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
