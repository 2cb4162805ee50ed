"""A ledger that grows, on a disk or elsewhere: what it has come to, reading on from where the last look stopped."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from distributed_tuner.ledger.digest import CHUNK, Digest
from distributed_tuner.ledger.reader import RowFeed

_BEGINNING = 256  # bytes by which a ledger that was replaced is known


class GrowingFile(Protocol):
    """A file that others append to, or replace. Methods raise OSError where it is out of reach."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    def size(self) -> int | None:
        """Return its bytes; None where there is no such file."""
        ...

    def read(self, start: int, most: int) -> bytes:
        """Return at most so many bytes from ``start`` on."""
        ...


class LocalFile:
    """A growing file of this machine's file systems."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)

    def size(self) -> int | None:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return None

    def read(self, start: int, most: int) -> bytes:
        with self._path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(most)


class Follower:
    """A ledger that grows. Only whole lines are rows: a torn last one is looked at again.

    made: makes an empty digest.
    """

    def __init__(self, file: Path | str | GrowingFile, made: Callable[[], Digest] = Digest) -> None:
        self._file = LocalFile(Path(file)) if isinstance(file, Path | str) else file
        self._made = made
        self._read = self._size = 0
        self._beginning = b""
        self._feed = RowFeed(self._file.name)
        self._digest: Digest = made()

    def catch_up(self, seconds: float | None = None) -> Digest:
        """Read what is new, for about so many seconds at most, and return what the ledger has come to.

        It is the same object every time, unless the file has become shorter or begins differently: then it is another
        ledger, and read from its beginning.

        Raises:
            LedgerError: a line is not a row.
            OSError: the file is out of reach.
        """
        size = self._file.size()
        if size is None:
            return self._digest
        if size < self._read or (size != self._size and not self._is_the_same()):
            self._begin()
        self._size = size
        until = None if seconds is None else time.monotonic() + seconds
        most = CHUNK
        while self._read < size and (until is None or time.monotonic() < until):
            data = self._file.read(self._read, most)
            whole = data.rfind(b"\n") + 1
            if whole:
                self._take(data[:whole])
            elif len(data) < most:
                break
            else:  # a line that is longer than what is read at once
                most *= 2
        return self._digest

    @property
    def position(self) -> int:
        """Bytes that are read."""
        return self._read

    @property
    def share(self) -> float:
        """Share of the file that is read, as far as the last look saw it."""
        return 1.0 if self._read >= self._size else self._read / self._size

    def _take(self, lines: bytes) -> None:
        if not self._read:
            self._beginning = lines[:_BEGINNING]
        self._read += len(lines)
        self._digest.extend(self._feed.quick_rows(lines))

    def _is_the_same(self) -> bool:
        return self._file.read(0, len(self._beginning)) == self._beginning

    def _begin(self) -> None:
        self._read = self._size = 0
        self._beginning = b""
        self._feed = RowFeed(self._file.name)
        self._digest = self._made()
