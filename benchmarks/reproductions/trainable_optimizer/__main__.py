"""The Trainable Optimizer beside SGD, momentum and Adam: losses, their spread, the estimators' errors.

    python -m benchmarks.reproductions.trainable_optimizer [--quick] [--seed N] [--out DIR]

Prints tables and a conclusion, and writes a page with figures and a CSV file a table. What is claimed of it:
docs/theory.md.
"""

import sys
from typing import Annotated

import typer

from benchmarks.reproductions.trainable_optimizer.comparison import NAME, compare
from distributed_tuner.analysis import page
from distributed_tuner.errors import TunerError
from distributed_tuner.storage import delivered


def main(
    out: Annotated[str, typer.Option(help="Where to, a directory or an s3:// or gs:// URI.")] = f"runs/{NAME}",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and steps: under two minutes.")] = False,
    seed: Annotated[int, typer.Option(help="Names all random numbers.")] = 0,
) -> None:
    """Compare the optimizers, print what was found and write its page."""
    try:
        with delivered(out, page.MARK) as place:
            page.begin(place.path)
            findings = compare(quick=quick, seed=seed, note=print)
            written = page.write(findings, place.path)
            print(*page.lines(findings), f"\nanalysis: {place.shown(written)}", sep="\n")
    except TunerError as error:
        print("error:", error, file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    typer.run(main)
