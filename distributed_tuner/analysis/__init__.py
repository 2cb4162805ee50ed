"""Analyses: experiments of the theory's, made again here. Each ends in ``Findings``, which ``page`` writes."""
