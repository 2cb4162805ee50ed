"""Gain of a search over an untuned prompt with a head: whole runs of search_spaces/heads.yaml, split by split.

    python -m benchmarks.head_runs DATA --tasks sst2,agnews,demo --out runs/head_runs
    python -m benchmarks.head_runs DATA --tasks sst2 --variant screen --queries 60 --out runs/screens

DATA is that of benchmarks.heads. An existing run is only read. Variants: "profiled" searches by what a bias leaves,
"plain" by the label words' loss, "screen" races instructions, templates and demonstrations and takes one step.
"Together" are the best prompts of a trial that its ensemble has: of the best trial of every split.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchmarks.heads import file_settings
from benchmarks.tables import table

ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "search_spaces" / "heads.yaml"
ENSEMBLE = 5  # prompts at most
SCREEN = {"kind": "screen", "demonstrations": [4, 8], "orders": 4, "instructions_kept": 3, "finalists": 5}
BBT = {"kind": "cma", "name": "bbt", "popsize": 20, "alpha": 0.3, "recommend": "mean"}
HEADINGS = (
    "task",
    "split",
    "bag of words",
    "manual",
    "manual, head",
    "tuned, label words",
    "tuned, head",
    "together",
    "members",
    "p",
    "returned",
    "queries",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One split of one task: test metrics, and what the run would return of it."""

    task: str
    split: int
    bag: float | None
    manual: float | None
    manual_head: float | None
    tuned_label_words: float | None
    tuned: float | None
    together: float | None
    members: int
    p_value: float | None
    kept: str
    queries: int


def settings(
    name: str,
    data: Path,
    splits: str,
    variant: str,
    queries: int,
    layout: str,
    length: int,
    step_size: str = "csa",
    test_limit: int | None = None,
) -> list[str]:
    """Return what is set on top of heads.yaml."""
    search = {"kind": "search", "optimizer": {**BBT, "step_size": step_size}, "eval_every": 100}
    stages: list[dict[str, Any]] = [search]
    if variant == "screen":
        one_step = {"kind": "random_search", "name": "screen", "popsize": 1}
        stages = [SCREEN, {"kind": "search", "steps": 1, "optimizer": one_step}]
    given = [
        f"ensemble={{size: {ENSEMBLE}}}",
        f"stages={json.dumps(stages)}",
        f"budget={{queries: {queries}}}",
        f"prompt={{length: {length}, init: text, layout: {layout}}}",
        f"objective={{head: {'label_words' if variant == 'plain' else 'bias'}}}",
    ]
    if name != "demo":
        given.append(f"task={json.dumps(file_settings(name, data))}")
    if test_limit is not None:
        given.append(f"task.test_limit={test_limit}")
    return [*given, f"task.split_seed=!grid [{splits}]"]


def lines_of(name: str, run: Path) -> list[Line]:
    """Return a run's lines, one a trial."""
    from distributed_tuner.ledger.digest import digest
    from distributed_tuner.report.choice import choose
    from distributed_tuner.report.trials import summarize_trials
    from distributed_tuner.runs.recorded_config import Recorded
    from distributed_tuner.storage.json_files import read_told

    ledger = digest(run / "ledger.jsonl")
    config = read_told(run / "config.json", Recorded)
    found = []
    for trial in summarize_trials(ledger, config):
        baseline = {
            row.what: row.metric
            for row in ledger.measures
            if row.split == "test" and row.split_seed == trial.split_seed and row.trial_id is None
        }
        of_trial = [row for row in ledger.measures if row.trial_id == trial.trial_id]
        choice = choose(trial, ledger, config)
        found.append(
            Line(
                name,
                trial.split_seed or 0,
                baseline.get("bag_of_words"),
                baseline.get("manual_prompt"),
                baseline.get("manual_prompt_with_head"),
                trial.test_metric_label_words,
                trial.test_metric,
                next((row.metric for row in of_trial if row.what == "ensemble"), None),
                next((row.members for row in ledger.ensembles if row.trial_id == trial.trial_id), 0),
                choice.p_value,
                choice.kept,
                trial.spent.queries,
            )
        )
    return found


def mean_of(lines: Sequence[Line]) -> list[str]:
    """Return a task's means as a row."""
    cells = [lines[0].task, "mean"]
    for field in ("bag", "manual", "manual_head", "tuned_label_words", "tuned", "together"):
        known = [value for line in lines if (value := getattr(line, field)) is not None]
        cells.append(f"{statistics.fmean(known):.4f}" if known else "-")
    returned = [line.tuned if line.kept == "tuned" else line.manual_head for line in lines]
    known = [value for value in returned if value is not None]
    cells += ["", "-", f"{statistics.fmean(known):.4f}" if known else "-", ""]
    return cells


def main(
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each task, of train.jsonl and test.jsonl.")],
    names: Annotated[str, typer.Option("--tasks", help="Of sst2, agnews, demo.")] = "sst2,agnews,demo",
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1,2",
    variant: Annotated[Literal["profiled", "plain", "screen"], typer.Option(help="See above.")] = "profiled",
    queries: Annotated[int, typer.Option(help="Of each trial.")] = 500,
    layout: Annotated[str, typer.Option(help="prefix, suffix or instruction_suffix.")] = "prefix",
    length: Annotated[int, typer.Option(help="Prompt rows.")] = 16,
    test_limit: Annotated[int | None, typer.Option(help="Test rows, at most.")] = None,
    step_size: Annotated[Literal["csa", "tpa"], typer.Option(help="How BBT adapts sigma.")] = "csa",
    out: Annotated[Path, typer.Option(help="Run directories, one a task.")] = Path("runs/head_runs"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the lines here as well.")] = None,
) -> None:
    """Run (or read) the runs and print their table."""
    rows: list[list[str]] = []
    found: list[Line] = []
    for name in names.split(","):
        run = out / name
        if not (run / "config.json").exists():
            arguments = [sys.executable, "tune.py", "run", str(SPACE), "--out", str(run.resolve())]
            for setting in settings(name, data, splits, variant, queries, layout, length, step_size, test_limit):
                arguments += ["--set", setting]
            subprocess.run(arguments, cwd=ROOT, check=True)
        lines = lines_of(name, run)
        found += lines
        rows += [[_spelled(value) for value in asdict(line).values()] for line in lines]
        rows.append(mean_of(lines))
    for text in table(HEADINGS, rows):
        print(text)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps([asdict(line) for line in found], indent=1) + "\n", encoding="utf-8")


def _spelled(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else str(value).replace("manual_prompt", "manual")


if __name__ == "__main__":
    typer.run(main)
