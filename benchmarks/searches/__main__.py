"""``python -m benchmarks.searches``: see ``marks``."""

import typer

from benchmarks.searches.marks import main

if __name__ == "__main__":
    typer.run(main)
