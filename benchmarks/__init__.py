"""Benchmarks: commands that print the tables behind every claim about quality and speed, and write JSON."""
