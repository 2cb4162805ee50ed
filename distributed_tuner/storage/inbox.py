"""Inbox of a run: small files that other processes leave for it, in its directory or at its URI."""

import contextlib
from pathlib import Path

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.storage.files import write_bytes
from distributed_tuner.storage.remote import Remote

FOLDER = ".requests"
"""Hidden: no part of a run, and neither sent nor fetched with it."""


class Inbox:
    """Files in a hidden folder of a run directory (``folder``), or below its URI (``remote``). Each appears whole.

    Every method raises OSError where the directory or the store cannot be reached, or refuses.
    """

    def __init__(self, folder: Path, remote: Remote | None = None) -> None:
        self._folder = folder / FOLDER
        self._remote = remote

    def put(self, name: str, data: bytes) -> None:
        """Leave a file, in place of one with the same name.

        Raises:
            RunDirectoryError: the folder is a link.
        """
        if self._remote is not None:
            self._remote.write(f"{FOLDER}/{name}", data)
            return
        if self._folder.is_symlink():
            raise RunDirectoryError(
                f"requests to a run are left in a folder of its own, but {self._folder} is a link; remove it"
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_bytes(self._folder / name, data)

    def names(self) -> list[str]:
        """Return the names of the files, sorted."""
        if self._remote is not None:
            return [found.name.removeprefix(f"{FOLDER}/") for found in self._remote.found(within=FOLDER)]
        try:
            return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def written(self, name: str) -> float:
        """Return when a file at a URI was left, by the store's clock in unix seconds; 0 if it is gone."""
        assert self._remote is not None
        return max(
            (one.written for one in self._remote.found(within=FOLDER) if one.name == f"{FOLDER}/{name}"), default=0
        )

    def take(self, name: str) -> bytes | None:
        """Return a file and delete it; None if another process has deleted it."""
        with contextlib.suppress(FileNotFoundError):
            data = self._remote.read(f"{FOLDER}/{name}") if self._remote else (self._folder / name).read_bytes()
            self.drop(name)
            return data
        return None

    def drop(self, name: str) -> None:
        """Delete a file if it is there."""
        if self._remote is not None:
            self._remote.delete(f"{FOLDER}/{name}")
        else:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / name).unlink()
