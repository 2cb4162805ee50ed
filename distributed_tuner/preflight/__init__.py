"""Preflight: checks and cost projections before anything is spent."""
