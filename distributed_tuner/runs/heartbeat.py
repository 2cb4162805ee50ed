"""Heartbeat of a run: a small file that says every few seconds that its driver lives, and how its oracles stand.

The ledger tells what has been computed; of a run whose steps take minutes it tells nothing for as long.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from distributed_tuner.ledger.rows import Count
from distributed_tuner.ledger.rows.fields import Moment
from distributed_tuner.runs.pool import Occupancy
from distributed_tuner.storage.files import write_text
from distributed_tuner.storage.json_files import Told

NAME = "heartbeat.json"
BEAT_SECONDS = 5.0


class Beat(Told):
    """Content of the file. ``time``: by the driver's clock, in unix seconds. The rest is None where it is unknown."""

    time: Moment = 0.0
    every: float = Field(default=BEAT_SECONDS, gt=0, le=3600)
    """Seconds between two of them."""
    workers: Count | None = None
    """Oracle workers that answer."""
    busy: Count | None = None
    """Workers that compute."""
    waiting: Count | None = None
    """Tiles that wait for a worker."""


class Heartbeat:
    """Writes the file from `start` to `stop`, in a thread. A disk that is full costs beats, nothing else."""

    def __init__(self, folder: Path, occupancy: Callable[[], Occupancy | None]) -> None:
        self._path = folder / NAME
        self._occupancy = occupancy
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write no more; a pool that does not answer is not waited for."""
        self._over.set()
        self._thread.join(1.0)

    def _beat_on(self) -> None:
        while not self._over.is_set():
            found = self._occupancy()
            if self._over.is_set():
                return
            beat = {"time": time.time(), "every": BEAT_SECONDS}
            if found is not None:
                beat |= {"workers": found.workers, "busy": found.busy, "waiting": found.waiting}
            with contextlib.suppress(OSError):
                write_text(self._path, json.dumps(beat) + "\n")
            self._over.wait(BEAT_SECONDS)
