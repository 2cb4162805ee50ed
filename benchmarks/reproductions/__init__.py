"""Reproductions: comparisons of papers whose methods the package has, made again."""
