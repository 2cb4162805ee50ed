"""Ablation of MaaO: search alone, LLM alone, restarts from random texts, search with an LLM, at equal queries.

    python -m benchmarks.ablation sst2 DATA --out runs/ablation   # runs the arms, prints the table
    python -m benchmarks.ablation sst2 DATA --out runs/ablation   # again: of the runs that are there

DATA holds train.jsonl and test.jsonl with the fields ``text`` and ``label``. Gradient descent on the opened model
stands beside the four as the upper line. The tables are quoted in docs/results.md.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchmarks.data_tasks import TASKS, DataTask

SPACE = Path(__file__).resolve().parent.parent / "search_spaces" / "maao.yaml"
ROUNDS = 4
ASKED_ALONE = 1  # query that a round of the LLM alone takes at least: a proposal; nothing else is asked twice

LOOKS = "eval_every: 60, select: metric_then_loss"
SEARCH = f"{{kind: search, {LOOKS}, optimizer: {{kind: zot, points: 4, rho: 1.0, learning_rate: LR}}}}"
GRADIENT = f"{{kind: gradient, {LOOKS}, optimizer: {{kind: adamw, learning_rate: 0.3, schedule: cosine}}}}"
LOCAL = "{kind: local, max_tokens: 100, give_up_after: 1000}"
ARMS: dict[str, tuple[str, ...]] = {
    "search only": (SEARCH,),
    "LLM only": (f"{{kind: restart, proposals: 8, trajectory: 1, proposer: {LOCAL}}}",),
    "random-text restarts": (SEARCH, "{kind: restart, proposer: {kind: random}}"),
    "alternating": (SEARCH, f"{{kind: restart, proposer: {LOCAL}}}"),
    "gradient descent": (GRADIENT,),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One arm: means and deviations over the splits; calls, restart stages and adopted prompts of all splits."""

    arm: str
    splits: int
    queries: float
    train_loss: float
    dev: float
    dev_std: float
    test: float
    test_std: float
    calls: int
    adopted: int
    restarts: int


def main(
    task: Annotated[Literal["sst2", "agnews"], typer.Argument(help="How the data are worded.")],
    data: Annotated[Path, typer.Argument(help="Folder with train.jsonl and test.jsonl.")],
    out: Annotated[Path, typer.Option(help="Where the runs go; those that are there are only read.")],
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1,2",
    queries: Annotated[int, typer.Option(help="Queries a trial.")] = 300,
    learning_rate: Annotated[float, typer.Option(help="Of ZOT, in units of the embeddings' deviation.")] = 3.0,
    test_limit: Annotated[int, typer.Option(help="Test examples, balanced over the classes.")] = 500,
    alone_rounds: Annotated[
        int | None, typer.Option(help="Rounds of the LLM alone; as many as the queries pay for when left out.")
    ] = None,
    arms: Annotated[str, typer.Option(help="Which arms, by their place in the list; all when left out.")] = "0,1,2,3,4",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here as well.")] = None,
) -> None:
    """Run (or read) the arms and print their table."""
    lines: list[Line] = []
    for place in map(int, arms.split(",")):
        arm = list(ARMS)[place]
        folder = out / f"{task}-{arm.lower().replace(' ', '-')}"
        if not (folder / "summary.json").exists():
            _run(folder, settings(arm, TASKS[task], data, splits, queries, learning_rate, test_limit, alone_rounds))
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        if not lines:
            print(f"{task}, splits {splits}, {queries} queries a trial; manual prompt: {_manual(summary)}\n")
        lines.append(line(arm, summary))
    print("| arm | queries | train loss | dev accuracy | test accuracy | LLM calls | prompts adopted |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for each in lines:
        adopted = f"{each.adopted} of {each.restarts}" if each.restarts else "-"
        print(
            f"| {each.arm} | {each.queries:.0f} | {each.train_loss:.4f} | {each.dev:.4f} ± {each.dev_std:.4f}"
            f" | {each.test:.4f} ± {each.test_std:.4f} | {each.calls or '-'} | {adopted} |"
        )
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(each) for each in lines], indent=1) + "\n", encoding="utf-8")


def settings(
    arm: str,
    task: DataTask,
    data: Path,
    splits: str,
    queries: int,
    learning_rate: float,
    test_limit: int,
    alone_rounds: int | None = None,
) -> list[str]:
    """Return what is set on top of maao.yaml for one arm."""
    alone = arm == "LLM only"
    stages = ", ".join(stage.replace("LR", str(learning_rate)) for stage in ARMS[arm])
    return [
        *task.settings(data, splits, test_limit),
        f"prompt={json.dumps({'length': 8, 'init': 'text', 'text': task.init, 'layout': 'suffix'})}",
        f"stages=[{stages}]",
        f"rounds={(alone_rounds or queries // ASKED_ALONE) if alone else ROUNDS}",
        f"budget.queries={queries}",
        "head=label_words",
        "oracle.threads=1",  # the other core is the proposer's
    ]


def line(arm: str, summary: dict[str, Any]) -> Line:
    """Return the table's row of one run."""
    trials: Sequence[dict[str, Any]] = summary["trials"]

    def values(name: str) -> list[float]:
        return [trial[name] for trial in trials]

    return Line(
        arm=arm,
        splits=len(trials),
        queries=statistics.mean(values("queries")),
        train_loss=statistics.mean(values("train_loss")),
        dev=statistics.mean(values("dev_metric")),
        dev_std=_spread(values("dev_metric")),
        test=statistics.mean(values("test_metric")),
        test_std=_spread(values("test_metric")),
        calls=sum(trial["proposer_calls"] for trial in trials),
        adopted=sum(trial["restarts_adopted"] for trial in trials),
        restarts=sum(trial["restarts"] for trial in trials),
    )


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _manual(summary: dict[str, Any]) -> str:
    found = summary["baseline"]["manual_prompt"]
    return f"dev {found['dev_metric']:.4f}, test {found['test_metric']:.4f} (means)"


def _run(folder: Path, given: list[str]) -> None:
    from actors.run.experiment import run
    from distributed_tuner.preflight.prepare import prepare
    from distributed_tuner.runs.directory import RunDirectory

    prepared = prepare(SPACE, given)
    run(prepared, RunDirectory(folder), address=None, resume=False, command="python -m benchmarks.ablation")


if __name__ == "__main__":
    typer.run(main)
