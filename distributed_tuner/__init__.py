"""The core of the tuner: tasks, optimizers, oracles, prompts, stages, ledger and report. Nothing in here knows Ray."""

__version__ = "0.1.0"
