"""Seconds and memory of ``tune.py report`` on a long ledger, which is made up in a temporary folder.

    python -m benchmarks.ledger [--rows 1000000] [--trials 8,1000] [--json FILE]

Of every 25 rows of a trial one is an evaluation, as in a run of ZOT; every evaluation is selected, which is the most to
be kept."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from distributed_tuner.ledger.rows import CostRow, EvalRow, Row, RunRow, StepRow, TrialRow

ROOT = Path(__file__).parents[1]
LOOK_EVERY = 25
EXAMPLES = 64  # of train and dev, each with a loss in an evaluation
MOST_SECONDS, MOST_MEGABYTES = 20.0, 300.0  # of a million rows


@dataclass(frozen=True, slots=True)
class Line:
    """One report. cpu: the processor's seconds. megabytes: the most of the process. page: of the page, in megabytes."""

    rows: int
    trials: int
    on_disk: float
    seconds: float
    cpu: float
    megabytes: float
    page: float


def main(
    rows: Annotated[int, typer.Option(help="Rows of the ledger.")] = 1_000_000,
    trials: Annotated[str, typer.Option(help="Among how many trials they are, one report each.")] = "8,1000",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the lines here as well.")] = None,
) -> None:
    """Measure, print the table and the verdict."""
    lines = [measure(rows, int(number)) for number in trials.split(",")]
    print("| rows | trials | MB on disk | report s | CPU s | peak MB | report.html MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for line in lines:
        print(
            f"| {line.rows:,} | {line.trials:,} | {line.on_disk:.0f} | {line.seconds:.1f} | {line.cpu:.1f} |"
            f" {line.megabytes:.0f} | {line.page:.1f} |"
        )
    met = all(line.seconds <= MOST_SECONDS and line.megabytes <= MOST_MEGABYTES for line in lines)
    print(f"\n{'met' if met else 'MISSED':<8}at most {MOST_SECONDS:g} s and {MOST_MEGABYTES:g} MB")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")


def measure(rows: int, trials: int) -> Line:
    """Return what a report on so many rows takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text('{"trials": []}', encoding="utf-8")
        ledger = folder / "ledger.jsonl"
        written = write(ledger, rows, trials)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tune.py"), "report", name], cwd=ROOT, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"report ended with {process.returncode}")
        page = (folder / "report.html").stat().st_size / 1e6
        cpu = used.ru_utime + used.ru_stime
        return Line(written, trials, ledger.stat().st_size / 1e6, seconds, cpu, used.ru_maxrss / 1e3, page)


def write(path: Path, rows: int, trials: int) -> int:
    """Write a ledger of about so many rows; return of how many. Trials take turns, as in a run."""
    names = [f"zot-{number:04d}" for number in range(trials)]
    count = 1 + trials
    with path.open("w", encoding="utf-8") as file:
        print(RunRow(time=0, name="long", version="0", seed=0, methods=["zot"]).model_dump_json(), file=file)
        for name in names:
            start = TrialRow(time=0, trial_id=name, method="zot", seed=0, split_seed=0, drawn={})
            print(start.model_dump_json(), file=file)
        for line in _lines(max(1, rows // trials)):
            count += trials
            for name in names:
                print(line.replace("TRIAL", name), file=file)
    return count


def _lines(rows: int) -> Iterator[str]:
    """Yield the rows of a trial that is called TRIAL."""
    for number in range(rows):
        queries, step = 2 * number, number - number // LOOK_EVERY
        paid = {
            "trial_id": "TRIAL",
            "time": number / 10,
            "elapsed": number / 10,
            "stage": 0,
            "step": step,
            "cost": CostRow(queries=2, forwards=64, tokens=3200, seconds=0.1234567),
            "spent": CostRow(queries=queries, forwards=32 * queries, tokens=1600 * queries, seconds=0.0617 * queries),
        }
        loss = 0.3 + 0.4 / (1 + number / rows * 10)
        row: Row
        if number % LOOK_EVERY == 0:
            scores = {"train_loss": loss, "dev_loss": loss + 0.05, "dev_metric": 1 - loss, "score": loss}
            losses = [loss + 0.001 * example for example in range(EXAMPLES)]
            row = EvalRow.model_validate(paid | scores | {"selected": True, "losses": losses})
        else:
            seen = {"gradient_norm": 1.23456789 * loss, "learning_rate": 0.03, "rho": 0.1}
            row = StepRow.model_validate(paid | {"loss": loss, "best_loss": loss, "failed": 0, "metrics": seen})
        yield row.model_dump_json()


if __name__ == "__main__":
    typer.run(main)
