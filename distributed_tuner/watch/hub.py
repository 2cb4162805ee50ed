"""All runs of a place as they are watched, and the views of them as plain data."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.watch.cards import card, cards
from distributed_tuner.watch.comparison import MOST_RUNS, comparison
from distributed_tuner.watch.places import WatchedPlace
from distributed_tuner.watch.run_page import run_page
from distributed_tuner.watch.watched_run import WatchedRun

LIST_SECONDS = 5.0  # between two looks for new runs
READ_SECONDS = 3.0  # of reading a long ledger, before the page says how far it is
READ_SECONDS_OF_LIST = 2.0  # ... of all ledgers of a list


class Hub:
    """Views of the runs of a place; threads may ask at the same time."""

    def __init__(self, place: WatchedPlace) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._runs: dict[str, WatchedRun] = {}
        self._next_list = 0.0

    def names(self) -> list[str]:
        """Return the names of the runs that there are."""
        return list(self._listed())

    def address(self, run: str) -> str:
        """Return the path or URI of a run.

        Raises:
            RunDirectoryError: there is no such run.
        """
        return self._place.address(self._run(run).run)

    def cards(self) -> dict[str, Any]:
        """Return the list of runs. Of many long ledgers some are read at a time, the others say so."""
        until = time.monotonic() + READ_SECONDS_OF_LIST
        return cards([run.look(max(0.0, until - time.monotonic()), whole=False) for run in self._listed().values()])

    def page(self, run: str) -> dict[str, Any]:
        """Return the page of one run, or its head alone while nothing else can be read.

        Raises:
            RunDirectoryError: there is no such run.
        """
        seen = self._run(run).look(READ_SECONDS, whole=True)
        return run_page(seen) if seen.story is not None else {"head": card(seen)}

    def comparison(self, runs: Sequence[str]) -> dict[str, Any]:
        """Return several runs side by side.

        Raises:
            RunDirectoryError: there is no such run.
        """
        compared = [self._run(run).look(READ_SECONDS, whole=True) for run in list(runs)[:MOST_RUNS]]
        return comparison(compared, left_out=len(runs) - len(compared))

    def _run(self, name: str) -> WatchedRun:
        found = self._listed().get(name)
        if found is None:
            raise RunDirectoryError(f"a run must be one of the list, got {name[:100]!r}; go back to the list")
        return found

    def _listed(self) -> dict[str, WatchedRun]:
        """Return the runs that there are by name, listed anew every few seconds."""
        with self._lock:
            if time.monotonic() >= self._next_list:
                names = self._place.runs()
                self._runs = {name: self._runs.get(name) or WatchedRun(self._place, name) for name in names}
                self._next_list = time.monotonic() + LIST_SECONDS
            return self._runs
