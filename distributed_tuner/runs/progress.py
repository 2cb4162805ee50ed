"""Progress of a run: a live table in a terminal, plain lines everywhere else."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger.rows import EvalRow, Row
from distributed_tuner.report.row_lines import row_line
from distributed_tuner.shown import plain


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
        if isinstance(row, EvalRow):
            self._scored(trial_id, row)
            if self._console.is_terminal:  # the table shows it
                return
        if line := row_line(row, self._metric):
            self.note(f"{trial_id}: {line}")

    def _scored(self, trial_id: str, row: EvalRow) -> None:
        line = self._lines[trial_id]
        if row.selected:
            line.metric, line.loss = row.dev_metric, row.dev_loss

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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
