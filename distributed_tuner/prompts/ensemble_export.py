"""The prompts of an ensemble, each with its head in a folder of its own, in the formats of a single one."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.prompts.export import ExportedPrompt, read, write
from distributed_tuner.runs.directory import write_json
from distributed_tuner.storage.json_files import Told, read_told

FACTS = "ensemble.json"
ENSEMBLE = Path("best", "ensemble")
"""Folder of a run's ensemble."""


class _Facts(Told):
    """Content of ensemble.json: the folders of the members, best first."""

    members: tuple[str, ...] = Field(default=())


def write_ensemble(prompts: Sequence[ExportedPrompt], directory: Path) -> None:
    """Write the members, best first, and ensemble.json, which names their folders; others there are older ones."""
    names = [f"{place}" for place in range(len(prompts))]
    for name, prompt in zip(names, prompts, strict=True):
        write(prompt, directory / name)
    if names or directory.exists():
        write_json(directory / FACTS, {"members": names})


def read_ensemble(directory: Path) -> list[ExportedPrompt]:
    """Read the members back.

    Raises:
        RunDirectoryError: there is no ensemble, or a file of it is not whole.
    """
    facts = directory / FACTS
    names = read_told(facts, _Facts).members if facts.is_file() else ()
    if not names:
        raise RunDirectoryError(
            f"prompts that are read together need a run with an ensemble, but {directory} has none: its space sets no"
            " ensemble, or its best prompt alone was better; leave --ensemble out"
        )
    if any(not name.isdigit() for name in names):
        raise RunDirectoryError(
            f"the members of an ensemble lie in numbered folders, but {facts} names {list(names)}; copy back the files"
            " of one run"
        )
    return [read(directory / name) for name in names]
