"""Ledger, progress lines and metric loggers of a run."""
