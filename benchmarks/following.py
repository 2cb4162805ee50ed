"""Seconds and memory in which the watch page opens a long ledger, and how it keeps up with one that grows.

    python -m benchmarks.following [--rows 1000000] [--trials 8,1000] [--rate 10000] [--seconds 10] [--json FILE]

A process of its own reads the ledger as the page does and makes the page's data, as JSON. Then rows are appended at a
steady rate, while it looks every second. The ledger is that of ``benchmarks.ledger``."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.ledger import write

ROOT = Path(__file__).parents[1]
MOST_SECONDS, MOST_MEGABYTES = 3.0, 300.0  # to open a million rows
MOST_BEHIND = 2.0  # seconds after the last row until it is on the page
BATCHES = 10  # a second


@dataclass(frozen=True, slots=True)
class Line:
    """opened, cpu: seconds until the page's data is there, and the processor's; from the start of the process.

    behind: seconds from the last row until it is in the page's data. busy: share of a processor while rows came.
    megabytes: the most of the process. page: of all the page's data, in megabytes."""

    rows: int
    trials: int
    opened: float
    cpu: float
    megabytes: float
    page: float
    rate: float
    behind: float
    busy: float


def main(
    rows: Annotated[int, typer.Option(help="Rows of the ledger.")] = 1_000_000,
    trials: Annotated[str, typer.Option(help="Among how many trials they are, one line each.")] = "8,1000",
    rate: Annotated[int, typer.Option(help="Rows a second that are appended.")] = 10_000,
    seconds: Annotated[int, typer.Option(help="For how long.")] = 10,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the lines here as well.")] = None,
    follow: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, print the table and the verdict."""
    if follow is not None:
        _follow(Path(follow))
        return
    lines = [measure(rows, int(number), rate, seconds) for number in trials.split(",")]
    print("| rows | trials | opens in s | CPU s | page MB | appended rows/s | behind s | CPU share | peak MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in lines:
        print(
            f"| {line.rows:,} | {line.trials:,} | {line.opened:.1f} | {line.cpu:.1f} | {line.page:.2f} |"
            f" {line.rate:,.0f} | {line.behind:.1f} | {100 * line.busy:.0f} % | {line.megabytes:.0f} |"
        )
    opens = all(line.opened <= MOST_SECONDS and line.megabytes <= MOST_MEGABYTES for line in lines)
    keeps_up = all(line.behind <= MOST_BEHIND for line in lines)
    print(f"\n{'met' if opens else 'MISSED':<8}opens in at most {MOST_SECONDS:g} s and {MOST_MEGABYTES:g} MB")
    print(f"{'met' if keeps_up else 'MISSED':<8}at most {MOST_BEHIND:g} s behind {rate:,} rows a second")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")


def measure(rows: int, trials: int, rate: int, seconds: int) -> Line:
    """Return what following a ledger takes."""
    with tempfile.TemporaryDirectory() as name:
        folder, more = Path(name, "run"), Path(name, "more.jsonl")
        folder.mkdir()
        plans = [{"trial_id": f"zot-{number:04d}", "method": "zot"} for number in range(trials)]
        (folder / "config.json").write_text(json.dumps({"trials": plans}), encoding="utf-8")
        written = write(folder / "ledger.jsonl", rows, trials)
        write(more, rate * seconds, trials)
        new = more.read_bytes().splitlines(keepends=True)[1 + trials :]
        command = [sys.executable, "-m", "benchmarks.following", "--follow", str(folder)]
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            first = json.loads(process.stdout.readline())
            opened = time.perf_counter() - began
            took = _append(folder / "ledger.jsonl", new, rate)
            last = time.perf_counter()
            size = (folder / "ledger.jsonl").stat().st_size
            while (seen := json.loads(process.stdout.readline()))["position"] < size:
                pass
            behind = time.perf_counter() - last
            process.stdin.close()
        return Line(
            rows=written,
            trials=trials,
            opened=opened,
            cpu=first["cpu"],
            megabytes=seen["megabytes"],
            page=first["page"],
            rate=len(new) / took,
            behind=behind,
            busy=(seen["cpu"] - first["cpu"]) / (took + behind),
        )


def _append(path: Path, lines: list[bytes], rate: int) -> float:
    """Append lines at a steady rate; return the seconds that it took."""
    began = time.perf_counter()
    batch = max(1, rate // BATCHES)
    with path.open("ab", buffering=0) as file:
        for number, start in enumerate(range(0, len(lines), batch), 1):
            file.write(b"".join(lines[start : start + batch]))
            time.sleep(max(0.0, began + number / BATCHES - time.perf_counter()))
    return time.perf_counter() - began


def _follow(folder: Path) -> None:
    """Look at a run as the page does, a line of figures for each look, until the parent is gone."""
    from distributed_tuner.watch.places import LocalPlace
    from distributed_tuner.watch.run_page import run_page
    from distributed_tuner.watch.watched_run import WatchedRun

    run = WatchedRun(LocalPlace(folder), "")
    parent = os.getppid()
    while os.getppid() == parent:
        began = time.perf_counter()
        seen = run.look(60.0, whole=True)
        page = len(json.dumps(run_page(seen)))
        _tell(position=run.position, page=page / 1e6)
        time.sleep(max(0.0, began + 1.0 - time.perf_counter()))


def _tell(**figures: Any) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        print(
            json.dumps(figures | {"cpu": used.ru_utime + used.ru_stime, "megabytes": used.ru_maxrss / 1e3}), flush=True
        )
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    typer.run(main)
