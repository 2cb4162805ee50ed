"""ZOT with measured settings (``auto``), compared with the paper's defaults and with its grid of settings.

    python -m benchmarks.auto_zot DATA --out runs/auto_zot      # DATA/sst2, DATA/agnews, DATA/rte
    python -m benchmarks.auto_zot DATA --out runs/auto_zot      # again: of the runs that are there

Every trial has the same queries, those of its survey among them. "Grid, best on dev" is what somebody gets who pays for
the whole grid and keeps the trial of best dev metric (ties by dev loss), as the paper does. Test scores were seen by
nobody before. The table is quoted in docs/theory.md.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.data_tasks import TASKS, DataTask

SPACE = Path(__file__).resolve().parent.parent / "search_spaces" / "zot.yaml"
RHOS = (0.1, 0.2)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
LOOKS = "eval_every: 60, select: metric_then_loss"
AUTO = "{kind: zot, name: auto, points: auto, rho: auto, learning_rate: auto}"
DEFAULT = (0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Line:
    """One way of coming by settings, on one task: means over the splits. ``trials``: what had to be run for a split."""

    task: str
    settings: str
    trials: int
    train_loss: float
    dev: float
    test: float
    test_std: float


def main(
    data: Annotated[Path, typer.Argument(help="Folder of folders with train.jsonl and test.jsonl.")],
    out: Annotated[Path, typer.Option(help="Where the runs go; those that are there are only read.")],
    tasks: Annotated[str, typer.Option(help="Which tasks.")] = ",".join(TASKS),
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1",
    queries: Annotated[int, typer.Option(help="Queries a trial.")] = 600,
    examples: Annotated[int, typer.Option(help="Train examples, over all classes; as many for dev.")] = 32,
    test_limit: Annotated[int, typer.Option(help="Test examples, balanced over the classes.")] = 500,
    threads: Annotated[int, typer.Option(help="Of each of the two oracle actors.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here as well.")] = None,
) -> None:
    """Run (or read) the comparison and print its tables."""
    lines: list[Line] = []
    found: list[str] = []
    for name in tasks.split(","):
        folder = out / name
        if not (folder / "summary.json").exists():
            task = replace(TASKS[name], shots=examples // len(TASKS[name].words), feedback=0)
            _run(folder, settings(task, data / name, splits, queries, test_limit, threads))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        lines.extend(table(name, summary))
        found.extend(f"{name}, {line}" for line in _surveys(folder))
    print(f"{queries} queries a trial on {examples} examples, splits {splits}\n")
    print("| task | settings | trials a split | train loss | dev | test |")
    print("| --- | --- | --- | --- | --- | --- |")
    for line in lines:
        print(
            f"| {line.task} | {line.settings} | {line.trials} | {line.train_loss:.4f} | {line.dev:.4f} |"
            f" {line.test:.4f} ± {line.test_std:.4f} |"
        )
    print("\nmeasured:")
    print("\n".join(found))
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")


def settings(task: DataTask, data: Path, splits: str, queries: int, test_limit: int, threads: int) -> list[str]:
    """Return what is set on top of zot.yaml: the task, the grid and "auto", three rows of words behind the text."""
    grid = [f"{{kind: zot, name: {_name(rho, rate)}, rho: {rho}, learning_rate: {rate}}}" for rho, rate in _grid()]
    prompt = {"length": 3, "init": "text", "text": task.init, "layout": "suffix", "scale": "paper"}
    return [
        *task.settings(data, splits, test_limit),
        "head=label_words",
        f"prompt={json.dumps(prompt)}",
        f"stages=[{{kind: search, {LOOKS}, optimizer: !grid [{', '.join([AUTO, *grid])}]}}]",
        f"budget.queries={queries}",
        "oracle.actors=2",
        f"oracle.threads={threads}",
    ]


def table(task: str, summary: dict[str, Any]) -> list[Line]:
    """Return the lines of one run: auto, the defaults, and the best, the middle and the worst of the grid."""
    splits = sorted({trial["split_seed"] for trial in summary["trials"]})
    of: dict[str, list[dict[str, Any]]] = {name: [] for name in ("auto", "defaults", "best", "median", "worst")}
    for split in splits:
        mine = {trial["method"]: trial for trial in summary["trials"] if trial["split_seed"] == split}
        grid = sorted((mine[_name(*pair)] for pair in _grid()), key=lambda t: (-t["dev_metric"], t["dev_loss"]))
        for name, trial in (
            ("auto", mine["auto"]),
            ("defaults", mine[_name(*DEFAULT)]),
            ("best", grid[0]),
            ("median", grid[len(grid) // 2]),
            ("worst", grid[-1]),
        ):
            of[name].append(trial)
    count = len(_grid())
    return [
        _line(task, "auto", 1, of["auto"]),
        _line(task, f"the paper's code: rho {DEFAULT[0]:g}, rate {DEFAULT[1]:g}", 1, of["defaults"]),
        _line(task, "grid, best on dev", count, of["best"]),
        _line(task, "grid, the middle one on dev", count, of["median"]),
        _line(task, "grid, worst on dev", count, of["worst"]),
    ]


def _grid() -> list[tuple[float, float]]:
    return [(rho, rate) for rho in RHOS for rate in RATES]


def _name(rho: float, rate: float) -> str:
    return f"rho {rho:g} rate {rate:g}"


def _line(task: str, settings: str, count: int, trials: Sequence[dict[str, Any]]) -> Line:
    tests = [trial["test_metric"] for trial in trials]
    return Line(
        task=task,
        settings=settings,
        trials=count,
        train_loss=statistics.mean(trial["train_loss"] for trial in trials),
        dev=statistics.mean(trial["dev_metric"] for trial in trials),
        test=statistics.mean(tests),
        test_std=statistics.stdev(tests) if len(tests) > 1 else 0.0,
    )


def _surveys(folder: Path) -> list[str]:
    from distributed_tuner.ledger.reader import read
    from distributed_tuner.report import formatting
    from distributed_tuner.runs.directory import RunDirectory

    return [f"{row.trial_id}: {formatting.survey(row)}" for row in read(RunDirectory(folder).ledger).surveys]


def _run(folder: Path, given: list[str]) -> None:
    from actors.run.experiment import run
    from distributed_tuner.preflight.prepare import prepare
    from distributed_tuner.runs.directory import RunDirectory

    run(
        prepare(SPACE, given), RunDirectory(folder), address=None, resume=False, command="python -m benchmarks.auto_zot"
    )


if __name__ == "__main__":
    typer.run(main)
