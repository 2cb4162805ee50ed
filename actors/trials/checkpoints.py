"""The checkpoints of a trial on its storage: what is in one, and which of them a trial goes on from.

A trial finds them by its own name, whatever Tune knows of them. They hold data and run nothing.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs

from actors.ray_internals.tune_import import Checkpoint
from distributed_tuner.errors import StateError
from distributed_tuner.stages.state_classes import STATE_CLASSES
from distributed_tuner.storage.serialization import read_state, write_state
from distributed_tuner.values import Array

log = logging.getLogger(__name__)

FOLDER = re.compile(r"checkpoint_(\d{6})")
STATE_FILE = "trial.state"


@dataclass(frozen=True, slots=True)
class Saved:
    """Content of a checkpoint.

    state: the trial. reports: the rows of its last reports, for a ledger that was lost before they reached it. report:
    the rest of the last one. prompt: the selected prompt as it was reported last.
    """

    state: dict[str, Any]
    reports: list[list[dict[str, Any]]]
    report: dict[str, Any]
    prompt: Array | str | None

    def write(self, folder: Path) -> None:
        """Write it as one file: object stores count requests."""
        write_state(folder / STATE_FILE, self, (Saved, *STATE_CLASSES))

    @classmethod
    def read(cls, folder: Path) -> "Saved":
        """Read it back; OSError or StateError where it is not there, or not whole. Runs nothing that is in it."""
        saved = read_state(folder / STATE_FILE, (Saved, *STATE_CLASSES))
        match saved:
            case Saved(dict(), list(), dict(), np.ndarray() | str() | None):
                return replace(saved, report=_present(saved.report))
        raise StateError(f"{folder / STATE_FILE} must be a trial's, but holds something else; remove it")

    @classmethod
    def within(cls, checkpoint: Any) -> "Saved | None":
        """Read a checkpoint; None where it is not there, or not whole."""
        try:
            with checkpoint.as_directory() as folder:
                return cls.read(Path(folder))
        except (OSError, StateError) as error:
            log.warning("a checkpoint cannot be read: %s", error)
            return None


def _present(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report of any age by its present names: ``sync_point`` was ``boundary``."""
    return {"sync_point" if name == "boundary" else name: value for name, value in report.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint on its storage, and what is in it."""

    checkpoint: Any
    saved: Saved

    @property
    def number(self) -> int:
        """Its number among the trial's checkpoints, from 0."""
        return number_of(self.checkpoint)


def number_of(checkpoint: Any) -> int:
    """Return which of its trial's checkpoints one is, from 0; -1 where its folder's name does not tell."""
    match = FOLDER.fullmatch(Path(checkpoint.path).name)
    return int(match[1]) if match else -1


def numbered(files: Any, folder: str) -> list[Any]:
    """Return the checkpoints in a trial's folder, the newest first, whole or not.

    files: the file system (pyarrow's) of the folder, which need not be there.
    """
    selector = pyarrow.fs.FileSelector(folder, allow_not_found=True)
    found = [Checkpoint(info.path, files) for info in files.get_file_info(selector)]
    return sorted((one for one in found if number_of(one) >= 0), key=number_of, reverse=True)


def newest(files: Any, folder: str) -> Found | None:
    """Return the newest whole checkpoint in a trial's folder; None where there is none."""
    for checkpoint in numbered(files, folder):
        if (saved := Saved.within(checkpoint)) is not None:
            return Found(checkpoint, saved)
    return None


def remove(checkpoints: Iterable[Any]) -> None:
    """Remove checkpoints that are no longer needed; one that cannot be removed stays."""
    for checkpoint in checkpoints:
        try:
            checkpoint.filesystem.delete_dir(checkpoint.path)
        except OSError as error:
            log.warning("an old checkpoint stays: %s", error)
