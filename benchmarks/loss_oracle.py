"""The loss oracle against the plain way, on SmolLM2-135M: speed, memory, equality, and whether the targets are met.

    python -m benchmarks.loss_oracle --json runs/loss_oracle.json       # every row: some minutes on 2 quiet cores
    python -m benchmarks.loss_oracle --quick                            # the claimed rows: about a minute

Every way of computing is a process of its own; those that are compared take turns, and medians are quoted. The oracle's
texts are known to it before the clock starts: the keys and values of the suffix layout's texts are made once a run.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.rows import Block, Case, Measured, Row, table
from benchmarks.targets import HEADLINE, LONG_TEXTS, QUICKSTART, Verdict, verdicts
from benchmarks.turns import Turns, measure
from benchmarks.worker import Dtype, Method
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.values import Layout

CANDIDATES = (2, 20)
LAYOUTS: tuple[Layout, ...] = ("prefix", "suffix", "add")
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
CLAIMED = (
    *(HEADLINE, HEADLINE.plain, HEADLINE.plain.in_float32),
    *(LONG_TEXTS, LONG_TEXTS.plain, QUICKSTART, QUICKSTART.plain),
)
HEADINGS = (
    *("texts", "L", "P", "dtype", "method", "s/query", "tokens/query", "useful GFLOP/s", "of matmul", "peak GiB"),
    *("x plain", "x plain fp32", "difference", "noise", "samples"),
)


def main(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write rows and verdicts here as well.")] = None,
    quick: Annotated[bool, typer.Option(help="Only the rows that something is claimed of, in two rounds.")] = False,
    rounds: Annotated[int, typer.Option(help="Most measurements of a row; the first of three or more warms up.")] = 4,
    every: Annotated[bool, typer.Option(help="All P candidates in every row, however long that takes.")] = False,
    model: Annotated[str, typer.Option(help="A hub id, a local directory, or smollm2-135m.")] = SMOLLM2,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Measure, print the table and the verdict on every target."""
    began = time.perf_counter()
    turns = Turns(model, threads, min(rounds, 2) if quick else rounds, frozenset(CLAIMED), every)
    measured = measure(quick_cases() if quick else all_cases(), turns, _say)
    rows = table(measured, CANDIDATES)
    judged = verdicts(rows)
    seconds = time.perf_counter() - began
    for line in report(measured, rows, judged):
        print(line)
    print(f"\n{seconds:.0f} s on {os.cpu_count()} cores, torch {version('torch')}, {threads} threads")
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(as_json(measured, rows, judged, seconds), indent=1) + "\n", encoding="utf-8")


def all_cases() -> list[Case]:
    """Return every case, blocks one after another."""
    blocks = [Block("SST-2", 10), Block("SST-2", 50), Block("150 tokens", 10), Block("150 tokens", 50)]
    quickstart = [case for case in _cases_of(QUICKSTART.block) if case.layout == QUICKSTART.layout]
    return [*(case for block in blocks for case in _cases_of(block)), *quickstart]


def quick_cases() -> list[Case]:
    """Return the claimed rows, what they are compared with, and float32 of two candidates for the equality."""
    heads = (HEADLINE, LONG_TEXTS, QUICKSTART)
    return [*CLAIMED, *(Case(head.block, head.method, head.layout, "float32", 2) for head in heads)]


def report(measured: Measured, rows: Sequence[Row], judged: Sequence[Verdict]) -> list[str]:
    """Return the lines to print: texts, matrix product, table, targets."""
    lines = []
    for block, facts in measured.facts.items():
        tokens = facts.lengths["prefix"]
        mean = sum(tokens) / len(tokens)
        lines.append(
            f"{block.texts}, L = {block.length}: {len(tokens)} texts, {mean:.1f} tokens, {max(tokens)} at most"
        )
        for dtype in DTYPES:
            if rates := measured.rates.get((block, dtype)):
                span = f"{min(rates) / 1e9:.0f} to {max(rates) / 1e9:.0f} GFLOP/s"
                lines.append(f"  matrix product in {dtype}: {span} in {len(rates)} measurements between the others")
    lines += ["", _markdown(HEADINGS), _markdown(["---"] * len(HEADINGS))]
    lines += [_markdown(cells(row)) for row in rows]
    lines += ["", "P in brackets: candidates asked for at once where all of them would take too long", "", "targets"]
    return lines + [str(verdict) for verdict in judged]


def cells(row: Row) -> list[str]:
    """Return a row as text."""
    behind = row.method == "plain" and row.layout == "suffix"
    many = (
        str(row.candidates)
        if row.method == "plain" or row.asked >= row.candidates
        else f"{row.candidates} ({row.asked})"
    )
    return [
        row.texts,
        str(row.length),
        many,
        row.dtype,
        f"{row.method}, prompt behind" if behind else row.method,
        f"{row.seconds_per_query:.3f}",
        str(row.tokens_per_query),
        f"{row.useful_gflops:.0f}",
        _show(row.share_of_matmul, ".0%"),
        f"{row.peak_gib:.2f}",
        _show(row.times_plain, ".2f"),
        _show(row.times_plain_float32, ".2f"),
        _show(row.difference, ".1e"),
        _show(row.noise, ".1e") + {True: "", False: " EXCEEDED", None: ""}[row.within_noise],
        str(row.samples),
    ]


def as_json(measured: Measured, rows: Sequence[Row], judged: Sequence[Verdict], seconds: float) -> dict[str, object]:
    """Return the run for machines."""
    rates = [
        {"texts": block.texts, "length": block.length, "dtype": dtype, "gflops": [rate / 1e9 for rate in found]}
        for (block, dtype), found in measured.rates.items()
    ]
    return {
        "seconds": seconds,
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "rows": [asdict(row) | {"within_noise": row.within_noise} for row in rows],
        "matmul": rates,
        "targets": [asdict(verdict) for verdict in judged],
    }


def _cases_of(block: Block) -> list[Case]:
    places: tuple[Layout, ...] = ("prefix", "suffix")
    cases = [Case(block, "plain", place, dtype, 1) for dtype in DTYPES for place in places]
    for dtype in DTYPES:
        for layout in LAYOUTS:
            method: Method = layout
            cases += [Case(block, method, layout, dtype, candidates) for candidates in CANDIDATES]
    return cases


def _markdown(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _show(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
