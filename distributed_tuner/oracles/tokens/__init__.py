"""Texts, prompts and words as tokens."""
