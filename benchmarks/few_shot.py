"""ZOT against BBT on a few-shot task, over several splits: the table of docs/results.md.

    python -m benchmarks.few_shot DATA --out runs/few_shot      # runs search_spaces/zot.yaml, then prints the table
    python -m benchmarks.few_shot DATA --out runs/few_shot      # again: prints the table of the run that is there

DATA holds train.jsonl and test.jsonl with the fields ``text`` and ``label`` (negative, positive).
"""

import json
import statistics
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

SPACE = Path(__file__).resolve().parent.parent / "search_spaces" / "zot.yaml"


def main(
    data: Annotated[Path, typer.Argument(help="Folder with train.jsonl and test.jsonl.")],
    out: Annotated[Path, typer.Option(help="Run directory; an existing run is only read.")] = Path("runs/few_shot"),
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0,1,2",
    queries: Annotated[int, typer.Option(help="Queries a trial.")] = 2000,
    length: Annotated[int, typer.Option(help="Prompt rows.")] = 3,
    layout: Annotated[str, typer.Option(help="prefix, suffix or add.")] = "suffix",
    init: Annotated[str, typer.Option(help="text, vocab, zeros or filler.")] = "text",
    learning_rate: Annotated[float, typer.Option(help="Of ZOT, one of the paper's grid.")] = 0.03,
    step_size: Annotated[Literal["csa", "tpa"], typer.Option(help="How BBT adapts sigma; csa as published.")] = "csa",
    actors: Annotated[int, typer.Option(help="Oracle actors, one thread each.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here as well.")] = None,
) -> None:
    """Run (or read) the comparison and print its table."""
    from distributed_tuner.ledger.reader import read
    from distributed_tuner.runs.directory import RunDirectory

    directory = RunDirectory(out)
    text = ', text: " Overall I thought the movie"' if init == "text" else ""
    prompt = f"{{length: {length}, init: {init}{text}, layout: {layout}, scale: paper}}"
    if not directory.config.exists():
        _run(directory, overrides(data, splits, queries, learning_rate, step_size, prompt, actors))
    rows = table(json.loads(directory.summary.read_text(encoding="utf-8")), read(directory.ledger))
    print("| split | method | queries | seconds | train loss | dev loss | dev accuracy | test accuracy |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        cells = [row["split"], row["method"], row["queries"], row["seconds"]]
        cells += [_number(row[name]) for name in ("train_loss", "dev_loss", "dev", "test")]
        print("| " + " | ".join(str(cell) for cell in cells) + " |")
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def overrides(
    data: Path, splits: str, queries: int, learning_rate: float, step_size: str, prompt: str, actors: int
) -> list[str]:
    """Return what is set on top of zot.yaml: the task from files, its splits, the prompt, how steps go, the pool."""
    folder = data.resolve()
    task = (
        f"{{kind: file, train: {folder}/train.jsonl, test: {folder}/test.jsonl, text: text, label: label,"
        ' template: "{text} It was{label_word}", label_words: {negative: " terrible", positive: " great"},'
        f' manual_prompt: "Classify the movie review.", shots: 16, split_seed: !grid [{splits}]}}'
    )
    zot = f"{{kind: zot, learning_rate: {learning_rate}}}"
    bbt = f"{{kind: cma, name: bbt, step_size: {step_size}}}"
    evaluations = "eval_every: 100, select: metric_then_loss"
    stages = f"[{{kind: search, {evaluations}, optimizer: !grid [{zot}, {bbt}]}}]"
    return [
        f"task={task}",
        f"prompt={prompt}",
        f"stages={stages}",
        f"budget.queries={queries}",
        f"oracle.actors={actors}",
        "oracle.threads=1",
    ]


def table(summary: dict[str, Any], ledger: Any) -> list[dict[str, Any]]:
    """Return one row for each split and method, and the means over splits of methods that finished on all of them."""
    rows = [
        {
            "split": trial["split_seed"],
            "method": trial["method"],
            "queries": trial["queries"],
            "seconds": round(trial["wall_seconds"] or 0),
            "train_loss": trial["train_loss"],
            "dev_loss": trial["dev_loss"],
            "dev": trial["dev_metric"],
            "test": trial["test_metric"],
        }
        for trial in summary["trials"]
    ]
    manual: dict[int, dict[str, Any]] = {}
    for measured in ledger.measures:
        if measured.what == "manual_prompt":
            nothing = {"method": "manual prompt", "queries": 0, "seconds": 0, "train_loss": None}
            row = manual.setdefault(measured.split_seed, {"split": measured.split_seed, **nothing})
            row[measured.split] = measured.metric
            row[f"{measured.split}_loss"] = measured.loss
    rows = sorted([*manual.values(), *rows], key=lambda row: (row["split"], row["method"] != "manual prompt"))
    return rows + _means(rows)


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    means = []
    splits = {row["split"] for row in rows}
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method and row["test"] is not None]
        if len(mine) == len(splits) > 1:
            mean = {name: _mean(mine, name) for name in ("train_loss", "dev_loss", "dev", "test")}
            whole = {name: round(statistics.mean(row[name] for row in mine)) for name in ("queries", "seconds")}
            means.append({"split": "mean", "method": method, **whole, **mean})
    return means


def _mean(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows]
    return None if None in values else statistics.mean(values)


def _run(directory: Any, settings: list[str]) -> None:
    from actors.run.experiment import run
    from distributed_tuner.preflight.prepare import prepare

    run(prepare(SPACE, settings), directory, address=None, resume=False, command="python -m benchmarks.few_shot")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    typer.run(main)
