"""Entry point: ``python tune.py``, ``ray job submit --working-dir . -- python tune.py``.

The commands are those of ``distributed-tuner``, which an installed package has: distributed_tuner/cli.py.
"""

from distributed_tuner.cli import app, main

__all__ = ["app", "main"]

if __name__ == "__main__":
    main()
