"""The commands: ``python tune.py`` in a checkout and in jobs, ``distributed-tuner`` where the package is installed.

Parses, then imports: nothing heavy is loaded before it is known what to do, and nothing remote is defined here.
"""

import functools
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from distributed_tuner import shipped

if TYPE_CHECKING:
    from distributed_tuner.analysis.findings import Findings
    from distributed_tuner.storage import Place

QUICKSTART = Path("search_spaces/quickstart.yaml")
INTERRUPTED = 130


class Commands(TyperGroup):
    """The commands. Usage errors hide words of the command line that look like a key."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(error, typer.BadParameter.__bases__[0]):  # typer's usage errors have no public name
                from distributed_tuner.shown import masked, plain

                usage: Any = error
                usage.message = masked(plain(usage.message))
            raise


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tune prompts of frozen language models on a pool of Ray actors. Without a command: run the quickstart.",
)

analyze_app = typer.Typer(help="Reproduce experiments of the theory: figures, numbers and a conclusion.")
app.add_typer(analyze_app, name="analyze")

Space = Annotated[Path, typer.Argument(help="Search space, a YAML file.")]
Ensemble = Annotated[bool, typer.Option("--ensemble", help="Use the ensemble of prompts that the run has found.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a value of the space; may be repeated."),
]
Out = Annotated[str | None, typer.Option(help="Output directory, or an s3:// or gs:// URI; default: runs/NAME.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer seeds and steps: under two minutes.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster to join: auto or ray://HOST:PORT.")]
RunDir = Annotated[str, typer.Argument(help="Directory or URI of a run.")]


def register(to: typer.Typer) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """Return a decorator that makes commands: errors become one line and an exit status, never a traceback."""

    def command(function: Callable[..., int]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            from distributed_tuner.errors import FULL, TunerError

            try:
                status = function(*args, **kwargs)
            except TunerError as error:
                print("error:", error, file=sys.stderr)
                status = error.exit_code
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                status = INTERRUPTED
            except OSError as error:
                if error.errno not in FULL:
                    raise
                print(f"error: the disk is full: {error}; free some space, then try again", file=sys.stderr)
                status = 1
            raise typer.Exit(status)

        to.command()(guarded)
        return guarded

    return command


command, analysis = register(app), register(analyze_app)


@app.callback(invoke_without_command=True)
def quickstart(context: typer.Context) -> None:
    """Tune prompts of frozen language models on a pool of Ray actors. Without a command: run the quickstart."""
    if context.invoked_subcommand is None:
        run()


@command
def run(
    space: Annotated[Path | None, typer.Argument(help="Search space, a YAML file; default: the quickstart.")] = None,
    overrides: Overrides = None,
    out: Annotated[
        str | None,
        typer.Option(help="Run directory, or an s3:// or gs:// URI that every node reaches; default: runs/NAME."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the interrupted run in the run directory or at the URI.")
    ] = False,
    address: Address = None,
) -> int:
    """Run every trial of a search space; write ledger, best prompt and report."""
    from distributed_tuner.config.load import load_space
    from distributed_tuner.preflight.prepare import prepare, prepare_again
    from distributed_tuner.report.formatting import one_line
    from distributed_tuner.report.text import summary_lines
    from distributed_tuner.runs.directory import kept

    given, changes = shipped.found(space or QUICKSTART), overrides or []
    prepared = None if resume else prepare(given, changes)
    named = load_space(given, changes).get("name", given.stem) if prepared is None else prepared.experiment.name
    place = out or f"runs/{named}"
    with kept(place, resume, _say) as directory:
        if prepared is None:
            from distributed_tuner.runs.resuming import reached, require_unedited

            if space is not None or changes:
                _say(require_unedited(directory, space, changes))
            prepared = prepare_again(directory, given.resolve().parent)
            for line in reached(prepared.plans, prepared.root):
                _say(one_line(f"from the run's settings, {line}", 500))
        _say(f"to follow it on a page: {shlex.join([*_program(), 'watch', directory.name])}")
        from actors.run.experiment import run as run_experiment

        finished = run_experiment(prepared, directory, address=address, resume=resume, command=_command())
        for line in summary_lines(finished.summary):
            _print(line)
        if finished.report.exists():  # a disk may be full
            print(f"\nreport: {directory.shown(finished.report)}")
        if finished.status == "interrupted":
            again = [*_program(), "run", *([str(space)] if space else []), "--out", directory.name, "--resume"]
            print(f"interrupted; continue with: {shlex.join(again)}", file=sys.stderr)
    found = finished.summary["best"]["trial_id"] is not None
    return {"done": 0 if found else 1, "interrupted": INTERRUPTED}.get(finished.status, 1)


@command
def stop(
    run_dir: RunDir,
    trial: Annotated[str | None, typer.Option("--trial", metavar="ID", help="Stop this trial alone.")] = None,
) -> int:
    """Ask a run that is working to end as by Ctrl-C, or one of its trials."""
    from distributed_tuner.runs.stopping import request_stop

    request_stop(run_dir, trial)
    if trial is None:
        again = shlex.join([*_program(), "run", "--out", run_dir, "--resume"])
        _print(f"asked {run_dir} to stop, which takes some seconds; continue with: {again}")
    else:
        _print(f"asked {run_dir} to stop {trial}, which ends after the step that it is at; its best prompt is kept")
    return 0


@command
def check(space: Space, overrides: Overrides = None) -> int:
    """Validate a search space and project its cost, before anything is spent."""
    from distributed_tuner.oracles.local.device_memory import free_bytes
    from distributed_tuner.oracles.pool_size import usable_cores
    from distributed_tuner.preflight.prepare import prepare
    from distributed_tuner.report.text import projection_lines

    prepared = prepare(shipped.found(space), overrides or [])
    slots = 1 if prepared.experiment.oracle.gpus else usable_cores()  # as if on this machine, with one GPU
    for line in projection_lines(prepared.sized(slots, free_bytes("cpu"))):
        print(line)
    return 0


@command
def report(run_dir: RunDir) -> int:
    """Write report.html and summary.json again, from the ledger alone."""
    from distributed_tuner.report.html import write_report
    from distributed_tuner.runs.directory import opened

    with opened(run_dir) as directory:
        directory.require()
        page = write_report(directory.path)
        directory.send()
        print(f"report: {directory.shown(page)}")
    return 0


@command
def watch(
    place: Annotated[str, typer.Argument(help="Directory or URI of a run, or of a folder of runs.")],
    port: Annotated[int, typer.Option(help="Port of the page; 0: any free one.", min=0, max=65535)] = 8970,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback are open to the network.")] = (
        "127.0.0.1"
    ),
    read_only: Annotated[bool, typer.Option("--read-only", help="Show runs, and stop none.")] = False,
) -> int:
    """Follow runs on a page while they work; stop a run or a trial from there."""
    from distributed_tuner.watch.server import serve

    def say(address: str) -> None:
        print(f"watching {place}; Ctrl-C ends the page, and no run\n{address}", flush=True)

    serve(place, say, host=host, port=port, read_only=read_only)
    return 0


@command
def evaluate(
    run_dir: RunDir,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="Examples to score on.")] = "test",
    task: Annotated[
        Path | None, typer.Option(help="YAML with another task, as under `task:` in a search space.")
    ] = None,
    ensemble: Ensemble = False,
) -> int:
    """Load the best prompt again and score it."""
    from distributed_tuner.runs.directory import opened
    from distributed_tuner.runs.evaluation import evaluate as evaluate_prompt

    with opened(run_dir) as directory:
        scores = evaluate_prompt(directory.path, split, task, ensemble)
    _print("  ".join(f"{name} {value:.6f}" for name, value in scores.items()))
    return 0


@command
def predict(
    run_dir: RunDir,
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or Parquet with the columns of the task's template.")],
    out: Annotated[Path | None, typer.Option(help="A new .csv or .jsonl file; default: next to FILE.")] = None,
    ensemble: Ensemble = False,
) -> int:
    """Label new rows with the prompt and head that a run returned."""
    from distributed_tuner.runs.directory import opened
    from distributed_tuner.runs.prediction import default_out
    from distributed_tuner.runs.prediction import predict as label_rows

    place = out or default_out(file)
    with opened(run_dir) as directory:
        rows = label_rows(directory.path, file, place, lambda done, all_: _say(f"{done:,} of {all_:,} rows"), ensemble)
    print(f"{rows:,} row(s): {place}")
    return 0


@command
def export(
    run_dir: RunDir,
    format: Annotated[Literal["peft", "safetensors", "text"], typer.Option("--format", help="File format.")],
    out: Annotated[str | None, typer.Option(help="Output directory or URI; default: RUN_DIR/export.")] = None,
) -> int:
    """Write the best prompt in one format."""
    from distributed_tuner.prompts.export import read, write_peft, write_safetensors, write_text
    from distributed_tuner.runs.directory import opened
    from distributed_tuner.storage import delivered

    writers = {"peft": write_peft, "safetensors": write_safetensors, "text": write_text}
    with opened(run_dir) as directory:
        prompt = read(directory.best)
        with delivered(out or directory.inside("export")) as place:
            for path in writers[format](prompt, place.path):
                print(place.shown(path))
    return 0


@analyze_app.command(hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def trainable_optimizer() -> None:
    """Name the command that has it."""
    print(
        "error: the Trainable Optimizer's comparison is a benchmark of the repository; in a checkout, run python -m"
        " benchmarks.reproductions.trainable_optimizer",
        file=sys.stderr,
    )
    raise typer.Exit(2)


@analysis
def effective_dimension(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Search space, or run directory or URI with a trained prompt; default: the paper's figures."
        ),
    ] = None,
    out: Out = None,
    quick: Quick = False,
    seed: Seed = 0,
    forward_only: Annotated[bool, typer.Option("--forward-only", help="Use losses only, no gradients.")] = False,
    address: Address = None,
) -> int:
    """Estimate the effective dimension of the loss at a prompt, and what follows for n and the step size."""
    from distributed_tuner.analysis import page
    from distributed_tuner.storage import delivered

    with (
        delivered(out or "runs/effective-dimension", page.MARK) as place,
        _found(source) as found_at,
    ):
        page.require_new(place.path)
        from actors.run.analysis import analyze_effective_dimension

        findings = analyze_effective_dimension(
            found_at, place.path, quick=quick, seed=seed, forward_only=forward_only, address=address, note=print
        )
        return _show(findings, place)


@contextmanager
def _found(source: str | None) -> Iterator[Path | None]:
    """Yield the source of an analysis as a local path: a search space, or a run; a run at a URI is downloaded."""
    from distributed_tuner.runs.directory import opened
    from distributed_tuner.storage import is_uri

    if source is None or not (is_uri(source) or Path(source).is_dir()):
        yield None if source is None else shipped.found(Path(source))
        return
    with opened(source) as directory:
        directory.require()
        yield directory.path


def _show(findings: "Findings", place: "Place") -> int:
    from distributed_tuner.analysis import page

    written = page.write(findings, place.path)
    for line in page.lines(findings):
        print(line)
    print(f"\nanalysis: {place.shown(written)}")
    return 0


def _say(message: str) -> None:
    _print(f"[{time.strftime('%H:%M:%S')}] {message}")


def _print(line: str) -> None:
    """Print a line, parts of which come from files or servers."""
    from distributed_tuner.shown import plain

    print(plain(line), flush=True)


def _program() -> list[str]:
    """Return the command as the user called it."""
    return ["python", "tune.py"] if Path(sys.argv[0]).name == "tune.py" else ["distributed-tuner"]


def _command() -> str:
    return shlex.join([*_program(), *sys.argv[1:]])


def main() -> None:
    """Run the command that the arguments name."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app()
