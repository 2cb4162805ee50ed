"""Searches that were tried and are not shipped, with the commands that try them again."""
