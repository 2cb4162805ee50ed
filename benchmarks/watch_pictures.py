"""The pictures of docs/watching.md: three views of runs that are made here, on the oracle without a model, in this
process.

    python -m benchmarks.watch_pictures [--out docs/figures]

Needs playwright, and chromium as the system has it (apt install chromium). Takes about two minutes."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from distributed_tuner.ledger import LedgerWriter
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.local import LocalBackend
from distributed_tuner.runs.progress import Progress
from distributed_tuner.runs.run import Run
from distributed_tuner.watch.app import build_app
from distributed_tuner.watch.hub import Hub
from distributed_tuner.watch.places import LocalPlace
from distributed_tuner.watch.server import bound, server_of

RESTARTS = """
  - {kind: restart, proposer: {kind: random}}
rounds: 4
"""
SPACE = """
name: NAME
seed: !grid [0, 1]
task: {kind: demo, shots: 8, feedback: 2}
oracle: {kind: analytic, function: logistic, width: 8, seconds: SECONDS}
prompt: {length: 8, init: zeros}
budget: {queries: 600}
stages:
  - {kind: search, eval_every: 40, optimizer: OPTIMIZER}"""
ZOT = "!grid [{kind: zot, points: 2, learning_rate: 0.3}, {kind: zot, points: 2, learning_rate: 0.1, name: slow}]"
RUNS = {
    "zot": (ZOT, 0.0, ""),
    "bbt": ("{kind: cma, name: bbt, intrinsic_dim: 20, popsize: 10}", 0.0, ""),
    "random": ("{kind: random_search}", 0.0, ""),
}
LIVE = "zot-with-restarts"
PATIENCE = 120.0  # seconds
WIDTH = 1200


def main(out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("docs/figures")) -> None:
    """Make the runs, open the page, take the pictures."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as started:
        folder = Path(name, "runs")
        for run, (optimizer, seconds, more) in RUNS.items():
            work(folder / run, optimizer, seconds, more)
        threading.Thread(target=work, args=(folder / LIVE, ZOT, 0.08, RESTARTS), daemon=True).start()
        with served(folder) as address:
            browser = started.chromium.launch(executable_path=chromium)
            page = browser.new_context(viewport={"width": WIDTH, "height": 360}).new_page()
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(f"{address}#run/{LIVE}")
            page.locator("#section-restarts tbody tr").nth(1).wait_for()  # it has come far enough to be shown
            page.wait_for_selector("#plot-candidates .main-svg")
            shot(page, out / "watch_run.png", 1560)
            page.goto(f"{address}#list")
            for run in ("zot", "bbt", "random"):
                page.get_by_label(f"compare {run}", exact=True).check()
            shot(page, out / "watch_list.png", 360)
            page.get_by_role("button", name="Compare").click()
            page.wait_for_selector("#plot-costs .main-svg")
            shot(page, out / "watch_comparison.png", 1320)
            browser.close()
    for picture in sorted(out.glob("watch_*.png")):
        print(picture, f"{picture.stat().st_size / 1e3:.0f} kB")


def work(folder: Path, optimizer: str, seconds: float, more: str) -> None:
    """Do a whole run in this process."""
    folder.parent.mkdir(exist_ok=True)
    space = folder.parent / f"{folder.name}.yaml"
    text = SPACE.replace("NAME", folder.name).replace("SECONDS", str(seconds)).replace("OPTIMIZER", optimizer)
    space.write_text(text + more, encoding="utf-8")
    prepared = prepare(space, [])
    directory = RunDirectory(folder)
    directory.create()
    quiet = Progress(prepared.plans, "accuracy", Console(quiet=True))
    with LedgerWriter(directory.ledger, new=True) as writer:
        Run(
            prepared.sized(1, None), directory, LocalBackend(quiet), writer, quiet, command=f"tune.py run {space.name}"
        ).go()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the page; give the address that opens it."""
    with bound("127.0.0.1", 0) as opened:
        over = threading.Event()
        hub = Hub(LocalPlace(folder))
        app = build_app(hub, lambda place, trial: None, token="t", cookie="watch", names=[], over=over)
        server = server_of(app, over)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}/?token=t"
        finally:
            server.should_exit = True
            thread.join(30)


def shot(page: Any, path: Path, height: int) -> None:
    """Take a picture of the upper part of the page."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    time.sleep(2.0)  # figures take their size
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))


if __name__ == "__main__":
    typer.run(main)
