"""Lineages of prompts over restarts: numbers for a picture, which `lineage_figure` draws.

A lineage begins where a trial does, or where a proposal is adopted; a trial that takes a source trial's prompt joins
its lineage.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from distributed_tuner.ledger.digest import Digest
from distributed_tuner.ledger.rows import RestartRow
from distributed_tuner.report import formatting
from distributed_tuner.report.restarts import best_proposal, loss_of
from distributed_tuner.report.shown_trials import IN_LINEAGE, shown_trials


class Stretch(NamedTuple):
    """A trial between two changes of its prompt, in queries. ``lineage`` numbers those worth a colour, else None.

    None is the lineage of a trial's own start that no other trial has joined.
    """

    trial_id: str
    start: int
    stop: int
    lineage: int | None


class Mark(NamedTuple):
    """A restart stage: after how many queries it ended, and how. ``lineage`` is the one that the trial goes on with."""

    trial_id: str
    queries: int
    outcome: Literal["none", "proposal", "source_trial"]
    lineage: int | None
    lines: tuple[str, ...]
    """Description, as plain text."""


class Arrow(NamedTuple):
    """From a source trial to the trial that took over its settings, and its ``prompt`` where no proposal was better."""

    source_trial: str
    source_trial_queries: int
    trial_id: str
    queries: int
    prompt: bool


class Lineages(NamedTuple):
    """The picture: one lane a trial. ``left_out``: trials that have none."""

    lanes: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    marks: tuple[Mark, ...]
    arrows: tuple[Arrow, ...]
    left_out: int = 0


def lineage_data(digest: Digest, summary: Mapping[str, Any]) -> Lineages:
    """Gather the lineages of the trials that restarted or were taken after, in the order of the summary; of very
    many those with the best dev metric."""
    known = {trial["trial_id"] for trial in summary["trials"]}
    rows = [row for row in digest.restarts if row.trial_id in known]
    rows.sort(key=lambda row: (row.time, row.trial_id, row.stage))
    named = {row.trial_id for row in rows} | {row.source_trial for row in rows}
    spent = {trial["trial_id"]: int(trial["queries"]) for trial in summary["trials"] if trial["trial_id"] in named}
    current = {name: name for name in spent}
    since = dict.fromkeys(spent, 0)
    stretches: list[tuple[str, int, int, str]] = []
    marks: list[tuple[RestartRow, str]] = []
    arrows = []
    for row in rows:
        name, at = row.trial_id, row.spent.queries
        if row.adopted != "none":
            stretches.append((name, since[name], at, current[name]))
            since[name] = at
            joins = row.adopted == "source_trial" and row.source_trial in current
            current[name] = current[str(row.source_trial)] if joins else f"{name} stage {row.stage}"
        marks.append((row, current[name]))
        if row.source_trial in spent:
            source_trial = str(row.source_trial)
            arrows.append(
                Arrow(source_trial, digest.queries_at(source_trial, row.time), name, at, row.adopted == "source_trial")
            )
    stretches += [(name, since[name], max(end, since[name]), current[name]) for name, end in spent.items()]
    numbers = _numbers([(name, lineage) for name, _, _, lineage in stretches])
    involved = [trial for trial in summary["trials"] if trial["trial_id"] in spent]
    shown = {trial["trial_id"]: None for trial in shown_trials(involved, summary["best"]["trial_id"], IN_LINEAGE)}
    return Lineages(
        lanes=tuple(shown),
        stretches=tuple(
            Stretch(name, start, stop, numbers.get(one)) for name, start, stop, one in stretches if name in shown
        ),
        marks=tuple(
            Mark(row.trial_id, row.spent.queries, row.adopted, numbers.get(one), _lines(row))
            for row, one in marks
            if row.trial_id in shown
        ),
        arrows=tuple(arrow for arrow in arrows if arrow.trial_id in shown and arrow.source_trial in shown),
        left_out=len(spent) - len(shown),
    )


def _numbers(lived: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Number the lineages, except those of a trial's own start that stayed in their lane."""
    where: dict[str, set[str]] = {}
    for name, lineage in lived:
        where.setdefault(lineage, set()).add(name)
    coloured = [lineage for lineage, names in where.items() if names != {lineage}]
    return {lineage: number for number, lineage in enumerate(coloured)}


def _lines(row: RestartRow) -> tuple[str, ...]:
    best = best_proposal(row)
    losses = {
        "incumbent": row.incumbent_loss,
        "source trial": loss_of(row, "source_trial"),
        "best proposal": best.loss if best else None,
    }
    lines = [f"{row.trial_id}, stage {row.stage}, after {formatting.count(row.spent.queries)} queries"]
    if row.adopted == "proposal":
        lines.append(f'adopted "{formatting.one_line(row.text, 240)}"')
    elif row.adopted == "source_trial":
        lines.append(f"took the prompt of {row.source_trial}")
    else:
        lines.append("kept its own prompt")
    known = [f"{name} {formatting.loss(loss)}" for name, loss in losses.items() if loss is not None]
    if known:
        lines.append(f"feedback loss: {', '.join(known)}")
    if row.source_trial and row.settings:
        lines.append(f"settings after {row.source_trial}: {', '.join(formatting.settings(row.settings))}")
    if row.reason:
        lines.append(formatting.one_line(row.reason, 240))
    return tuple(lines)
