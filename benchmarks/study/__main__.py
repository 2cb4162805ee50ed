"""A study of methods: tasks x methods x budgets x shots x splits. How to read it: docs/study.md.

    python -m benchmarks.study benchmarks/studies/slice.yaml --data DATA --out runs/slice

The same command goes on where it stopped, and reads what is there.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.study.page import rankings, standing_of, tables_of, write_page
from benchmarks.study.plan import Job, jobs_of, said_of
from benchmarks.study.rows import Row, frame_of, write_csv
from benchmarks.study.settings import Study, read_study
from benchmarks.study.workers import work
from benchmarks.tables import table
from distributed_tuner.errors import TunerError


def main(
    path: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What is studied.")],
    out: Annotated[Path, typer.Option(help="Folder of the study: what is done, rows.csv and study.html.")],
    data: Annotated[Path | None, typer.Option(help="Folder with a folder for each task.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows here as well.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only check the study, and say what it asks.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; one a core when left out.")] = None,
) -> None:
    """Run a study, or what is left of it; print its tables and write its rows and its page."""
    try:
        if plan:
            print(said_of(planned(path, data)[1]))
            return
        failed = run(path, out, data, csv, workers or len(os.sched_getaffinity(0)))
    except TunerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where it stopped", file=sys.stderr)
        raise typer.Exit(130) from None
    raise typer.Exit(1 if failed else 0)


def planned(path: Path, data: Path | None) -> tuple[Study, list[Job]]:
    """Return a study and its jobs, all of them known to be sound.

    Raises:
        TunerError: it cannot be begun.
    """
    study = read_study(path)
    folder = data or (path.parent / study.data if study.data else None)
    return study, jobs_of(study, folder, path.resolve().parent)


def run(path: Path, out: Path, data: Path | None, csv: Path | None, workers: int) -> int:
    """Do a study and show it; return how many of its jobs failed.

    Raises:
        TunerError: the study cannot be begun.
    """
    study, jobs = planned(path, data)
    print(said_of(jobs), flush=True)
    rows: list[Row] = []
    failed: list[str] = []
    ended = 0

    def told(job: Job, found: list[Row] | TunerError) -> None:
        nonlocal ended
        ended += 1
        if isinstance(found, TunerError):
            failed.append(job.name)
            print(f"{job.name} failed: {found}", file=sys.stderr, flush=True)
            return
        rows.extend(found)
        scores = ", ".join(f"{row.budget or row.method}: {row.test_metric or float('nan'):.3f}" for row in found)
        print(f"{ended} of {len(jobs)}: {job.name}: {scores}", flush=True)

    work(jobs, out, workers, told)
    frame = frame_of(rows)
    for place in {out / "rows.csv", *([csv] if csv else [])}:
        write_csv(frame, place)
    for shots, tables in tables_of(frame, study).items():
        for one in tables:
            print(f"\n{shots} examples a class, {one.title}\n")
            print("\n".join(table(one.headings, one.rows)))
        print()
        for budget, ranked in rankings(frame[frame["shots"] == shots], study).items():
            standing = ", ".join(f"{name} {rank:.2f}" for name, rank in zip(ranked.methods, ranked.ranks, strict=True))
            print(f"at {budget:,} queries: {standing}. {standing_of(ranked)}")
    write_page(frame, study, out / "study.html")
    print(f"\n{len(frame)} rows: {out / 'rows.csv'}; page: {out / 'study.html'}")
    if failed:
        print(f"{len(failed)} of {len(jobs)} failed; the same command tries them again", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    typer.run(main)
