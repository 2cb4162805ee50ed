"""Seconds and memory of a report, of its numbers alone, and of a driver, for many rows of many trials.

    python -m benchmarks.ledger [--rows 1000000] [--trials 8,1000] [--json FILE]

A run directory is made up in a temporary folder. Of every 25 rows of a trial one is an evaluation, as in a run of ZOT;
every evaluation is selected, which is the most to be kept. Every trial restarts three times, with four proposals each.
Seconds are the processor's, for a machine may be busy with other work."""

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from distributed_tuner.config.load import load_space
from distributed_tuner.config.space import draw_trials
from distributed_tuner.ledger.rows import CostRow, EvalRow, RestartRow, Row, RunRow, ScoredText, StepRow, TrialRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.runs.directory import RunDirectory, write_json
from distributed_tuner.runs.progress import Progress
from distributed_tuner.runs.recorder import Recorder
from distributed_tuner.shipped import search_spaces

ROOT = Path(__file__).parents[1]
LOOK_EVERY = 25
EXAMPLES = 64  # of train and dev, each with a loss in an evaluation
RESTARTS = 3  # of a trial
PROPOSALS = 4
TEXT = "Read the customer's message, and decide which of the four teams should answer it."
SUMMARY = (
    "from distributed_tuner.ledger import digest; from distributed_tuner.report import summarize, write_summary;"
    " from distributed_tuner.runs.directory import RunDirectory; from pathlib import Path; import sys;"
    " run = RunDirectory(Path(sys.argv[1]));"
    " write_summary(run.summary, summarize(digest(run.ledger), run.read_config()))"
)
DRIVE = "import sys; from benchmarks.ledger import drive; drive(sys.argv[1])"
LIMITS = {"report": 10.0, "summary": 5.0, "megabytes": 300.0, "page": 5.0, "growth": 16.0}
"""Of a million rows: seconds, seconds, MB of the report's process, MB of the page, MB of a driver."""


@dataclass(frozen=True, slots=True)
class Line:
    """One run. report, summary: the processor's seconds. megabytes: the most of the report's process. page: the page's.
    growth: what a driver grows by from a quarter of the rows to the last, in MB."""

    rows: int
    trials: int
    on_disk: float
    report: float
    summary: float
    megabytes: float
    page: float
    growth: float


def main(
    rows: Annotated[int, typer.Option(help="Rows of the ledger.")] = 1_000_000,
    trials: Annotated[str, typer.Option(help="Among how many trials they are, one run each.")] = "8,1000",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the lines here as well.")] = None,
) -> None:
    """Measure, print the table and the verdicts."""
    lines = [measure(rows, int(number)) for number in trials.split(",")]
    print("| rows | trials | MB on disk | report, CPU s | summary, CPU s | peak MB | report.html MB | driver +MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in lines:
        print(
            f"| {line.rows:,} | {line.trials:,} | {line.on_disk:.0f} | {line.report:.1f} | {line.summary:.1f} |"
            f" {line.megabytes:.0f} | {line.page:.1f} | {line.growth:.1f} |"
        )
    print()
    for name, limit in LIMITS.items():
        worst = max(getattr(line, name) for line in lines)
        print(f"{'met' if worst <= limit else 'MISSED':<8}{name} at most {limit:g}: {worst:.1f}")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")


def measure(rows: int, trials: int) -> Line:
    """Return what a run with so many rows takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ledger = folder / "ledger.jsonl"
        written = write(ledger, rows, trials)
        write_json(folder / "config.json", config(trials))
        report, megabytes, _ = _spent(str(ROOT / "tune.py"), "report", name)
        summary, _, _ = _spent("-c", SUMMARY, name)
        _, _, told = _spent("-c", DRIVE, name)
        page = (folder / "report.html").stat().st_size / 1e6
        return Line(written, trials, ledger.stat().st_size / 1e6, report, summary, megabytes, page, float(told))


def _spent(*arguments: str) -> tuple[float, float, str]:
    """Run Python; return the processor's seconds, the most memory in MB, and what was printed."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3, told


def drive(folder: str) -> None:
    """Take the rows of a run's ledger as reports, as a driver does; print what it grows by after the first quarter."""
    source, trials = Path(folder, "ledger.jsonl"), RunDirectory(Path(folder)).recorded().trials
    plan = draw_trials(load_space(search_spaces() / "debug.yaml", []))[0]
    plans = {one.trial_id: replace(plan, trial_id=one.trial_id) for one in trials}
    quarter, read, before = source.stat().st_size // 4, 0, 0
    progress = Progress(list(plans.values()), "accuracy", Console(file=io.StringIO(), quiet=True))
    with tempfile.TemporaryDirectory() as name, LedgerWriter(Path(name) / "ledger.jsonl") as writer:
        recorder = Recorder(list(plans.values()), writer, RunDirectory(Path(name)), progress, lambda: [], {}, {})
        for line in source.open("rb"):
            read += len(line)
            row = json.loads(line)
            if row["type"] in ("step", "eval", "restart"):
                spent = {"queries": float(row["spent"]["queries"]), "elapsed": row["elapsed"]}
                recorder.reported(plans[row["trial_id"]], {"rows": [row], "progress": spent})
            if not before and read >= quarter:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)


def config(trials: int) -> dict[str, Any]:
    """Return a config.json with so many trials."""
    plan = draw_trials(load_space(search_spaces() / "debug.yaml", []))[0].to_json()
    plans = [{**plan, "trial_id": _name(number), "index": number, "method": "zot"} for number in range(trials)]
    return {"experiment": plan["config"], "trials": plans, "task": {"name": "demo", "metric": "accuracy"}}


def _name(number: int) -> str:
    return f"zot-{number:04d}"


def write(path: Path, rows: int, trials: int) -> int:
    """Write a ledger of about so many rows; return of how many. Trials take turns, as in a run."""
    names = [_name(number) for number in range(trials)]
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
        if number in (rows * done // (RESTARTS + 1) for done in range(1, RESTARTS + 1)):
            yield _restart({**paid, "stage": 1 + number}, loss).model_dump_json()


def _restart(paid: dict[str, Any], loss: float) -> RestartRow:
    """Return a restart stage that adopted the first of its proposals."""
    texts = [
        ScoredText(text=f"{TEXT} {number}", source="proposal", loss=loss + 0.01 * number, metric=1 - loss)
        for number in range(PROPOSALS)
    ]
    del paid["step"]
    told = {"incumbent_loss": loss + 0.1, "scored": texts, "adopted": "proposal", "text": texts[0].text}
    return RestartRow.model_validate(paid | told)


if __name__ == "__main__":
    typer.run(main)
