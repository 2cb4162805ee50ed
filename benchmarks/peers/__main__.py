"""Comparison with other packages' prompt optimizers, on the same model, rows and budget.

    python3 -m venv .venv-peers && .venv-peers/bin/pip install -r benchmarks/peers/requirements.txt
    python -m benchmarks.peers DATA --tasks demo,sst2 --peers untuned,peft,capo,gepa,mipro --queries 500

DATA is that of benchmarks.heads; tasks, splits and rows are worded as there. A text optimizer runs in a process of its
own, in .venv-peers, against a server on the loopback that counts what it asks. A cell that is there is only read.
"""

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.heads import TILE, task_of
from benchmarks.peers.cells import (
    PEERS,
    ROOT,
    TEXT_PEERS,
    UNTUNED,
    Bench,
    Budget,
    Cell,
    read_cell,
    write_cell,
)
from benchmarks.peers.model import Relayed, ServedModel, Speaker
from benchmarks.tables import table
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.maths.intervals import wilson
from distributed_tuner.oracles import build
from distributed_tuner.oracles.local.loading import SMOLLM2, locate
from distributed_tuner.oracles.wrappers.tiled import TiledOracle

HEADINGS = (
    "task",
    "split",
    "peer",
    "forwards",
    "proposals",
    "prompt tokens",
    "output tokens",
    "seconds",
    "ended by",
    "own accuracy",
    "with our head",
)


def main(
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each task, of train.jsonl and test.jsonl.")],
    names: Annotated[str, typer.Option("--tasks", help="Of demo, sst2, agnews.")] = "demo,sst2",
    splits: Annotated[str, typer.Option(help="Split seeds.")] = "0",
    peers: Annotated[str, typer.Option(help=f"Of {', '.join(PEERS)}.")] = "untuned,peft,capo,gepa,mipro",
    queries: Annotated[int, typer.Option(help="Queries of all train rows: the cap of example forwards.")] = 500,
    proposals: Annotated[int, typer.Option(help="Most proposals of one search.")] = 100,
    seconds: Annotated[float, typer.Option(help="Most seconds of one search.")] = 3600.0,
    write_tokens: Annotated[int, typer.Option(help="Most tokens of one proposal.")] = 128,
    test_limit: Annotated[int | None, typer.Option(help="Test rows; all when left out.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the model.")] = 1,
    python: Annotated[Path, typer.Option(help="Python of the peers' environment.")] = ROOT / ".venv-peers/bin/python",
    proposer: Annotated[str, typer.Option(help="Another proposer: an OpenAI-compatible address up to /v1.")] = "",
    proposer_model: Annotated[str, typer.Option(help="Its model. The key is that of OPENAI_API_KEY.")] = "",
    out: Annotated[Path, typer.Option(help="Where cells and logs go.")] = Path("runs/peers"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the cells here as well.")] = None,
) -> None:
    """Print what each peer ships, by its own reading and by our head, and what it spent."""
    wanted = peers.split(",")
    problem = problem_of(wanted, python, proposer, proposer_model)
    if problem:
        raise typer.BadParameter(problem)
    config = TransformersOracleConfig(kind="transformers", model=SMOLLM2, threads=threads)
    oracle = TiledOracle(build(config), TILE)
    budget = Budget(queries, proposals, seconds, write_tokens)
    speaker: Speaker = ServedModel(oracle, config)
    if proposer:
        speaker = Relayed(speaker, proposer, proposer_model)
    bench = Bench(oracle, speaker, locate(SMOLLM2), budget, str(python), threads)
    out.mkdir(parents=True, exist_ok=True)
    cells = []
    for name, split, peer in itertools.product(names.split(","), map(int, splits.split(",")), wanted):
        path = out / f"{name}-{split}-{peer}-{0 if peer == UNTUNED else queries}.json"
        if not path.exists():
            task = replace(task_of(name, data, split, test_limit), name=name)
            cell = bench.cell(peer, task, split, path.with_suffix("").resolve())
            write_cell(cell, path)
            print(f"{path.name}: own {shown(cell.own, cell.test_rows)}, with head {shown(cell.head, cell.test_rows)}")
        cells.append(read_cell(path))
    cap = f"{queries:,} queries of train, {proposals} proposals of {write_tokens} tokens, {seconds:g} seconds"
    print(f"\ncap of a search: {cap}; {oracle.info.dtype}; accuracies with 95 % intervals")
    for line in table(HEADINGS, [line_of(cell) for cell in cells]):
        print(line)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8")


def problem_of(wanted: list[str], python: Path, proposer: str, proposer_model: str) -> str:
    """Return what is wrong with the options; empty where nothing is."""
    unknown = [peer for peer in wanted if peer not in PEERS]
    if unknown:
        return f"peers are of {', '.join(PEERS)}, but {unknown[0]!r} was asked for"
    if bool(proposer) != bool(proposer_model):
        return "--proposer and --proposer-model go together: give both, or neither"
    if any(peer in TEXT_PEERS for peer in wanted) and not python.exists():
        return (
            f"the peers' Python must be at {python}, but is not; make it by `python3 -m venv .venv-peers &&"
            " .venv-peers/bin/pip install -r benchmarks/peers/requirements.txt`, or name another by --python"
        )
    return ""


def line_of(cell: Cell) -> list[str]:
    """Return a cell as a row of the table."""
    spent = cell.spent
    counts = (spent.forwards, spent.written, spent.prompt_tokens, spent.output_tokens)
    return [
        cell.task,
        str(cell.split),
        cell.peer,
        *(f"{count:,}" for count in counts),
        f"{cell.seconds:.0f}",
        cell.ended,
        shown(cell.own, cell.test_rows),
        shown(cell.head, cell.test_rows),
    ]


def shown(accuracy: float | None, rows: int) -> str:
    """Return an accuracy with its 95 % interval."""
    if accuracy is None:
        return "-"
    low, high = wilson(accuracy, rows)
    return f"{accuracy:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    typer.run(main)
