"""Where the runs lie that are watched: a run directory, a folder of them, or the same at a URI."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.ledger.follower import GrowingFile, LocalFile
from distributed_tuner.storage import Remote, Uri, path_of, reaching, remote_of, using

LEDGER = "ledger.jsonl"
MOST_RUNS = 500
"""Runs of one folder that are listed."""
DEPTH = 3
"""Levels of folders in which runs are looked for on a disk; at a URI it is one."""
_LARGEST = 64 << 20  # bytes of a JSON file that is read


class WatchedPlace(Protocol):
    """Runs by their names: paths below the place, "" for the place itself. Methods raise OSError where it is out of
    reach."""

    look_seconds: float
    """The least time between two looks at one run."""

    def runs(self) -> list[str]:
        """Return the names of the runs, at most ``MOST_RUNS``."""
        ...

    def address(self, run: str) -> str:
        """Return the path or URI of a run, as commands take it."""
        ...

    def ledger(self, run: str) -> GrowingFile:
        """Return a run's ledger."""
        ...

    def read(self, run: str, name: str) -> bytes | None:
        """Return a small file of a run; None where there is none."""
        ...


def watched_place(place: str) -> WatchedPlace:
    """Return the place that a path or URI names, which must hold a run.

    Raises:
        RunDirectoryError: there is no run, or the place cannot be read.
        StorageError: the store cannot be reached, or does not let us.
    """
    uri = remote_of(place)
    if uri is None:
        local = LocalPlace(path_of(place))
        with using(local.path):
            found = local.runs()
        return _with_runs(local, place, found)
    remote = RemotePlace(Remote(uri))
    with reaching(uri):
        return _with_runs(remote, str(uri), remote.runs())


def _with_runs(there: WatchedPlace, name: str, runs: list[str]) -> WatchedPlace:
    if not runs:
        raise RunDirectoryError(
            f"what is watched must hold a run, or a folder with runs, but there is no {LEDGER} in {name}; check the"
            " path, or start a run first"
        )
    return there


class LocalPlace:
    """Runs in a folder of this machine's file systems. Links are not followed."""

    look_seconds = 0.5

    def __init__(self, path: Path) -> None:
        self.path = path

    def runs(self) -> list[str]:
        found = []
        for path in self._found(self.path, DEPTH):
            found.append("" if path == self.path else path.relative_to(self.path).as_posix())
            if len(found) == MOST_RUNS:
                break
        return found

    def address(self, run: str) -> str:
        return str(self.path / run)

    def ledger(self, run: str) -> GrowingFile:
        return LocalFile(self.path / run / LEDGER)

    def read(self, run: str, name: str) -> bytes | None:
        try:
            file = os.open(self.path / run / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(file, "rb") as opened:
            return opened.read(_LARGEST)

    def _found(self, folder: Path, depth: int) -> Iterator[Path]:
        """Yield run directories, sorted; what is inside one is no other run."""
        with os.scandir(folder) as entries:
            inside = {entry.name: entry for entry in entries}
        if LEDGER in inside:
            if inside[LEDGER].is_file(follow_symlinks=False):
                yield folder
            return
        for name in sorted(inside):
            if depth and not name.startswith(".") and inside[name].is_dir(follow_symlinks=False):
                try:
                    yield from self._found(folder / name, depth - 1)
                except (PermissionError, FileNotFoundError):  # a folder that is gone since it was listed
                    continue


class RemotePlace:
    """Runs at a URI."""

    look_seconds = 5.0  # the driver sends what is new as often

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._known: set[str] = (
            set()
        )  # folders with a ledger: each is asked about until it has one, for a store bills it

    def runs(self) -> list[str]:
        if self._remote.exists(LEDGER):
            return [""]
        names = self._remote.folders()
        self._known.intersection_update(names)
        found: list[str] = []
        for name in names:
            if len(found) < MOST_RUNS and (name in self._known or self._remote.exists(f"{name}/{LEDGER}")):
                self._known.add(name)
                found.append(name)
        return found

    def address(self, run: str) -> str:
        return str(self._at(run))

    def ledger(self, run: str) -> GrowingFile:
        return RemoteFile(self._remote, f"{run}/{LEDGER}".lstrip("/"))

    def read(self, run: str, name: str) -> bytes | None:
        try:
            return self._remote.part(f"{run}/{name}".lstrip("/"), 0, _LARGEST)
        except FileNotFoundError:
            return None

    def _at(self, run: str) -> Uri:
        return self._remote.uri.inside(run) if run else self._remote.uri


class RemoteFile:
    """A growing file in an object store, which is replaced whole as it grows; only what is new of it is fetched."""

    def __init__(self, remote: Remote, name: str) -> None:
        self._remote = remote
        self._at = name
        self.name = str(remote.uri.inside(name))

    def size(self) -> int | None:
        return self._remote.size(self._at)

    def read(self, start: int, most: int) -> bytes:
        return self._remote.part(self._at, start, most)
