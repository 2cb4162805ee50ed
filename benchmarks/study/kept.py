"""Files of a study's jobs: rows that are done, and the state of trials that are not.

A job's files name what they follow from. Where that has changed, what is there is of another job and is not taken up.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.rows import Row
from distributed_tuner.errors import StateError
from distributed_tuner.stages.state_classes import STATE_CLASSES
from distributed_tuner.storage.files import write_text
from distributed_tuner.storage.json_files import Told, read_told
from distributed_tuner.storage.serialization import decode, encode, read_state, write_state


class _Rows(Told):
    """The JSON of a job: what it follows from, and its rows."""

    follows_from: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Standing:
    """How a trial stands between two parts of its work, as bytes that ``of`` has made.

    losses: those of train and dev, in that order, by which its selected prompt is weighed.
    """

    data: bytes
    losses: tuple[float | None, ...] = ()

    @classmethod
    def of(cls, state: dict[str, Any], losses: Sequence[float | None]) -> "Standing":
        """Return a standing that what the trial does next cannot change."""
        return cls(encode(state, STATE_CLASSES), tuple(losses))

    @property
    def state(self) -> dict[str, Any]:
        """The trial's state."""
        state: dict[str, Any] = decode(self.data, "the state", STATE_CLASSES)
        return state


class Kept:
    """The files of one job. ``follows_from``: a digest of all that its rows follow from."""

    def __init__(self, folder: Path, name: str, follows_from: str) -> None:
        stem = re.sub(r"[^\w.,+-]", "_", name)
        self._rows = folder / f"{stem}.json"
        self._state = folder / f"{stem}.state"
        self._follows_from = follows_from

    def rows(self) -> list[Row]:
        """Return the rows that are done.

        Raises:
            RunDirectoryError: the file is not as a study writes it.
        """
        if not self._rows.exists():
            return []
        told = read_told(self._rows, _Rows)
        return list(told.rows) if told.follows_from == self._follows_from else []

    def write_rows(self, rows: Sequence[Row]) -> None:
        """Write the rows that are done."""
        told = {"follows_from": self._follows_from, "rows": [asdict(row) for row in rows]}
        write_text(self._rows, json.dumps(told, indent=1, allow_nan=False) + "\n")

    def standing(self) -> tuple[int, Standing] | None:
        """Return to which budget a trial was going and how it stood; None where there is none, or it cannot be read."""
        try:
            told = read_state(self._state)
            if told["follows_from"] == self._follows_from:
                return int(told["budget"]), Standing(told["data"], tuple(told["losses"]))
        except (OSError, StateError, LookupError, TypeError):
            return None
        return None

    def write_standing(self, budget: int, standing: Standing) -> None:
        """Write how a trial stands on its way to a budget."""
        told = {"follows_from": self._follows_from, "budget": budget, "data": standing.data, "losses": standing.losses}
        write_state(self._state, told)

    def forget_standing(self) -> None:
        """Take a trial's state away: nothing goes on from it."""
        self._state.unlink(missing_ok=True)
