"""Settings that were renamed: for messages about search spaces, and for reading runs of older versions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RENAMED: Mapping[str, str] = MappingProxyType(
    {"look_every": "eval_every", "faithful": "reproduce_paper", "units": "scale"}
)
"""Former names of settings, with their present ones."""
_PLACES: Mapping[str, str] = MappingProxyType({"look_every": "stages", "faithful": "stages", "units": "prompt"})


def with_present_names(tree: Any, section: str = "") -> Any:
    """Return a search space or an experiment of any age with the present names of its settings.

    section: the key under which the tree stands; names are changed in stages and prompts alone.
    """
    if isinstance(tree, Mapping):
        return {
            RENAMED[key] if _PLACES.get(key) == section else key: with_present_names(
                value, section if key.startswith("!") else key
            )
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [with_present_names(value, section) for value in tree]
    return tree
