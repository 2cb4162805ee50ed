"""Entry point: ``python tune.py``, ``ray job submit --working-dir . -- python tune.py``.

Parses, then imports: nothing heavy is loaded before it is known what to do, and nothing remote is defined here.
"""

import functools
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

QUICKSTART = Path(__file__).resolve().parent / "search_spaces" / "quickstart.yaml"
INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tune prompts of frozen language models on a pool of Ray actors. Without a command: run the quickstart.",
)

Space = Annotated[Path, typer.Argument(help="Search space, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a value of the space; may be repeated."),
]
RunDir = Annotated[Path, typer.Argument(help="Directory of a run.")]


def command(function: Callable[..., int]) -> Callable[..., None]:
    """Register a command: its errors become one line and an exit status, never a traceback."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        from distributed_tuner.errors import TunerError

        try:
            status = function(*args, **kwargs)
        except TunerError as error:
            print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
            status = error.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            status = INTERRUPTED
        raise typer.Exit(status)

    app.command()(guarded)
    return guarded


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Tune prompts of frozen language models on a pool of Ray actors. Without a command: run the quickstart."""
    if context.invoked_subcommand is None:
        run()


@command
def run(
    space: Space = QUICKSTART,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME when left out.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in the run directory.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join: auto or ray://HOST:PORT.")] = None,
) -> int:
    """Run every trial of a search space; write ledger, best prompt and report."""
    from distributed_tuner.preflight import prepare, prepare_again
    from distributed_tuner.report.text import summary_lines
    from distributed_tuner.run_directory import RunDirectory

    if resume:
        directory = RunDirectory(out or Path("runs") / space.stem)
        prepared = prepare_again(directory, space.resolve().parent)
    else:
        prepared = prepare(space, overrides or [])
        directory = RunDirectory(out or Path("runs") / prepared.experiment.name)
        directory.require_new()
    from actors.experiment import run as run_experiment

    finished = run_experiment(prepared, directory, address=address, resume=resume, command=_command())
    for line in summary_lines(finished.summary):
        print(line)
    print(f"\nreport: {finished.report}")
    if finished.status == "interrupted":
        print(f"interrupted; go on with: python tune.py run {space} --out {directory.path} --resume", file=sys.stderr)
    return {"done": 0, "interrupted": INTERRUPTED}.get(finished.status, 1)


@command
def check(space: Space, overrides: Overrides = None) -> int:
    """Validate a search space and project what it will cost, before anything is spent."""
    from distributed_tuner.preflight import prepare
    from distributed_tuner.report.text import projection_lines

    for line in projection_lines(prepare(space, overrides or [])):
        print(line)
    return 0


@command
def report(run_dir: RunDir) -> int:
    """Write report.html and summary.json again, from the ledger alone."""
    from distributed_tuner.report.html import write_report
    from distributed_tuner.run_directory import RunDirectory

    RunDirectory(run_dir).require()
    print(f"report: {write_report(run_dir)}")
    return 0


@command
def evaluate(
    run_dir: RunDir,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="Examples to score on.")] = "test",
    task: Annotated[
        Path | None, typer.Option(help="YAML with another task, as under `task:` in a search space.")
    ] = None,
) -> int:
    """Load the best prompt again and score it."""
    from distributed_tuner.evaluation import evaluate as evaluate_prompt

    scores = evaluate_prompt(run_dir, split, task)
    print("  ".join(f"{name} {value:.6f}" for name, value in scores.items()))
    return 0


@command
def export(
    run_dir: RunDir,
    format: Annotated[Literal["peft", "safetensors", "text"], typer.Option("--format", help="What to write.")],
    out: Annotated[Path | None, typer.Option(help="Where to; RUN_DIR/export when left out.")] = None,
) -> int:
    """Write the best prompt in one format."""
    from distributed_tuner.prompts.export import read, write_peft, write_safetensors, write_text
    from distributed_tuner.run_directory import RunDirectory

    writers = {"peft": write_peft, "safetensors": write_safetensors, "text": write_text}
    prompt = read(RunDirectory(run_dir).best)
    for path in writers[format](prompt, out or run_dir / "export"):
        print(path)
    return 0


def _command() -> str:
    return shlex.join(["python", "tune.py", *sys.argv[1:]])


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    app()
