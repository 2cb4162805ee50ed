"""Timeouts of tests that wait for another process: long, since machines may be slow."""

PATIENCE = 900.0  # seconds
