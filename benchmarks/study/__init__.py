"""A study: tasks x methods x budgets x shots x splits, each cell a row.

``settings`` is what a study's YAML may say, ``plan`` makes runs of it, ``cell`` carries one out on an oracle and
``workers`` many at a time. ``rows`` is what comes out, ``standing`` what that comes to, ``page`` and ``figures`` how it
is shown.
"""
