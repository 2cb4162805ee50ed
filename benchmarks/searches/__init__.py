"""Searches compared at equal queries, and variants that were tried and are not shipped."""
