"""Members of a trial's ensemble as they are asked: each prompt, and what reads its answers."""

from collections.abc import Callable, Sequence

from distributed_tuner.config.space import TrialPlan
from distributed_tuner.ledger.rows import ScreenRow
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.prompts.export import ExportedPrompt, exported
from distributed_tuner.prompts.spec import framed
from distributed_tuner.stages.ensemble import Member
from distributed_tuner.stages.reading import Reader
from distributed_tuner.stages.trial_state import Found
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array

Nearest = Callable[[TrialPlan, Task, Array | str], list[tuple[str, float]]]
"""Returns the nearest tokens of a prompt's rows, and their cosines."""


def no_tokens(plan: TrialPlan, task: Task, prompt: Array | str) -> list[tuple[str, float]]:
    """Return no nearest tokens: they are for people."""
    return []


def asked_members(
    prepared: Prepared,
    plan: TrialPlan,
    found: ScreenRow | Found | None,
    members: Sequence[Member],
    nearest: Nearest = no_tokens,
) -> list[tuple[Reader, ExportedPrompt]]:
    """Return the members of a trial's ensemble, each with its reader. ``found``: by the trial's screen."""
    asked, _ = prepared.going_on(plan, found)
    pairs = []
    for one in members:
        task = prepared.plain_task(plan).worded(one.template, one.label_words)
        seen = task if isinstance(one.prompt, str) else framed(task, asked.experiment.prompt)
        prompt = exported(asked, seen, one.prompt, nearest(asked, seen, one.prompt), one.scores, one.head)
        pairs.append((Reader(seen, plan.experiment.head), prompt))
    return pairs
