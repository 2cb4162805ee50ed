"""Oracles around oracles: budgets, caches, tiles."""
