"""Stages: where an optimizer and an oracle meet, through their protocols alone."""
