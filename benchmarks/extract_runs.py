"""What a search adds on a task with targets: whole runs of search_spaces/extract.yaml, method by method, over splits.

    python -m benchmarks.extract_runs --out runs/extract
    python -m benchmarks.extract_runs --methods bbt --splits 0 --queries 60 --test-limit 40 --out runs/extract_small

"screen" is the best of prompts with 4 or 8 messages of train and their targets in front, which takes few queries;
"gradient" is prompt tuning by AdamW on the same rows as BBT and ZOT, whose steps count as three queries each: the upper
line. A run that is done is only read, one that was interrupted is resumed. Told are exact match and token F1 of the
texts that the model writes for the test messages, and p of a one-sided paired t test of exact match against the manual
prompt. Over splits a message counts once, with the mean of its gains.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.tables import table

ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "search_spaces" / "extract.yaml"
METHODS: Mapping[str, list[dict[str, Any]]] = {
    "bbt": [
        {
            "kind": "search",
            "optimizer": {"kind": "cma", "name": "bbt", "popsize": 20, "alpha": 0.3, "recommend": "mean"},
            "eval_every": 100,
        }
    ],
    "zot": [
        {
            "kind": "search",
            "optimizer": {"kind": "zot", "points": 4, "rho": 1.0, "learning_rate": 3.0},
            "eval_every": 100,
        }
    ],
    "screen": [
        {"kind": "screen", "patterns": False, "demonstrations": [4, 8], "orders": 4, "finalists": 5},
        {"kind": "search", "steps": 1, "optimizer": {"kind": "random_search", "name": "screen", "popsize": 1}},
    ],
    "gradient": [
        {"kind": "gradient", "optimizer": {"kind": "adamw", "learning_rate": 0.1}, "eval_every": 30},
    ],
}
HEADINGS = ("method", "split", "queries", "manual", "tuned", "manual F1", "tuned F1", "mended", "spoiled", "p")


@dataclass(frozen=True, slots=True)
class Line:
    """One split of one method: exact match and token F1 on test, and the paired test of exact match.

    ``gains``: of each test message, 1 where the tuned prompt alone is right, -1 where the manual one alone is.
    """

    method: str
    split: int
    queries: int
    manual: float
    tuned: float
    manual_f1: float
    tuned_f1: float
    gains: tuple[int, ...]

    @property
    def p_value(self) -> float:
        """One-sided."""
        return p_value(np.array(self.gains, dtype=np.float64))


def p_value(gains: "np.ndarray[Any, np.dtype[np.float64]]") -> float:
    """Return the one-sided p of a paired t test that the mean gain is above 0."""
    from scipy.special import stdtr

    from distributed_tuner.maths.intervals import paired_t

    t, degrees = paired_t(gains)
    return float(stdtr(degrees, -t))


def arguments(method: str, run: Path, splits: str, queries: int, test_limit: int | None) -> list[str]:
    """Return the command of a run, new or resumed."""
    given = [
        f"stages={json.dumps(METHODS[method])}",
        f"budget={{queries: {queries}}}",
        f"task.split_seed=!grid [{splits}]",
        *([] if test_limit is None else [f"task.test_limit={test_limit}"]),
    ]
    command = [sys.executable, "tune.py", "run", str(SPACE), "--out", str(run.resolve())]
    for setting in given:
        command += ["--set", setting]
    return [*command, "--resume"] if (run / "config.json").exists() else command


def is_done(run: Path) -> bool:
    """Return whether a run has come to its end."""
    from distributed_tuner.ledger.digest import digest

    if not (run / "ledger.jsonl").exists():
        return False
    end = digest(run / "ledger.jsonl").end
    return end is not None and end.status == "done"


def lines_of(method: str, run: Path) -> list[Line]:
    """Return a run's lines, one a split."""
    from distributed_tuner.ledger.digest import digest
    from distributed_tuner.report.answers import is_right, paired

    ledger = digest(run / "ledger.jsonl")
    tested = [row for row in ledger.measures if row.split == "test" and row.texts]
    manual = {row.split_seed: row for row in tested if row.what == "manual_prompt"}
    found = []
    for row in sorted((row for row in tested if row.what == "selected"), key=lambda row: row.split_seed):
        before = manual[row.split_seed]
        gains = [
            is_right(after.text, told.target) - is_right(told.text, told.target) for told, after in paired(before, row)
        ]
        found.append(
            Line(
                method,
                row.split_seed,
                ledger.trials[row.trial_id or ""].spent.queries,
                before.metrics["exact_match"],
                row.metrics["exact_match"],
                before.metrics["token_f1"],
                row.metrics["token_f1"],
                tuple(gains),
            )
        )
    return found


def cells(line: Line) -> list[str]:
    """Return a line of the table."""
    shares = [f"{value:.4f}" for value in (line.manual, line.tuned, line.manual_f1, line.tuned_f1)]
    counts = [str(line.gains.count(1)), str(line.gains.count(-1))]
    return [line.method, str(line.split), str(line.queries), *shares, *counts, f"{line.p_value:.2g}"]


def together(lines: Sequence[Line]) -> list[str]:
    """Return a method's means as a row: the test messages are the same in every split, so that each counts once."""
    shares = [
        f"{statistics.fmean(getattr(line, name) for line in lines):.4f}"
        for name in ("manual", "tuned", "manual_f1", "tuned_f1")
    ]
    gains = np.array([line.gains for line in lines], dtype=np.float64).mean(axis=0)
    return [lines[0].method, "mean", "", *shares, "", "", f"{p_value(gains):.2g}"]


def main(
    methods: Annotated[str, typer.Option(help="Of bbt, zot, screen, gradient.")] = "bbt,zot,screen,gradient",
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1,2",
    queries: Annotated[int, typer.Option(help="Of each trial.")] = 300,
    test_limit: Annotated[int | None, typer.Option(help="Test messages, at most.")] = None,
    out: Annotated[Path, typer.Option(help="Run directories, one a method.")] = Path("runs/extract"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the lines here as well.")] = None,
) -> None:
    """Run (resume, or read) the runs and print their table."""
    chosen = methods.split(",")
    if unknown := [name for name in chosen if name not in METHODS]:
        raise typer.BadParameter(f"methods are {', '.join(METHODS)}, got {unknown[0]!r}")
    rows: list[list[str]] = []
    found: list[Line] = []
    for method in chosen:
        run = out / method
        if not is_done(run):
            subprocess.run(arguments(method, run, splits, queries, test_limit), cwd=ROOT, check=True)
        lines = lines_of(method, run)
        found += lines
        rows += [*map(cells, lines), together(lines)]
    for text in table(HEADINGS, rows):
        print(text)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        told = [{**asdict(line), "p_value": line.p_value} for line in found]
        json_file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
