"""The search of a run that names none: a screen of prompts in words, of which the best are read together as well.

It is the default because it adds more for fewer queries than any other search of this project (docs/results.md).
"""

from collections.abc import Mapping
from typing import Any

SCREEN: dict[str, Any] = {
    "kind": "screen",
    "demonstrations": [4, 8],
    "orders": 4,
    "instructions_kept": 3,
    "finalists": 5,
}
SMALL_SCREEN: dict[str, Any] = {"kind": "screen", "demonstrations": [4], "finalists": 2}
LEAST, LEAST_SMALL = 60, 32  # queries that pay for a screen, its finalists, and the step behind it
ENSEMBLE = {"size": 5}


def with_default_search(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a search space with stages, and with an ensemble where it does not say otherwise.

    Spaces with stages, those whose budget does not pay for a screen, and those of tasks with targets, for which nobody
    has measured it, are returned as they are. Behind the screen one step is taken around its best instruction, since a
    trial ends with a search.
    """
    screen, task, prompt = _screen_for(tree.get("budget")), tree.get("task"), tree.get("prompt")
    if "stages" in tree or screen is None or _has_targets(task):
        return dict(tree)
    in_words = isinstance(prompt, Mapping) and prompt.get("kind") == "text"
    step = {"kind": "token_edit" if in_words else "random_search", "name": "screen", "popsize": 1}
    stages = [screen, {"kind": "search", "steps": 1, "optimizer": step}]
    return {"ensemble": ENSEMBLE, **tree, "stages": stages}


def _has_targets(task: Any) -> bool:
    """Tell whether a task's answers are texts to be generated; one that was handed in as an object names its labels."""
    if not isinstance(task, Mapping):
        return False
    kind = task.get("kind")
    return "target" in task or kind == "extract" or (kind == "given" and "label_words" not in task)


def _screen_for(budget: Any) -> dict[str, Any] | None:
    """Return the screen that a budget pays for; None: none."""
    queries = budget.get("queries") if isinstance(budget, Mapping) else None
    if not isinstance(queries, int) or queries >= LEAST:
        return SCREEN
    return SMALL_SCREEN if queries >= LEAST_SMALL else None
