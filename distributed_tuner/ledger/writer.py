"""Appending rows to a ledger so that a crash costs at most the line being written. Reading is left to `reader`."""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import ValidationError

from distributed_tuner.errors import LedgerError
from distributed_tuner.ledger.rows import ROW, Row

_CHUNK = 1 << 16


class LedgerWriter:
    """The one writer of a ledger: a line a row, flushed at once, on disk every ``sync_every`` rows and on close.

    Opening an existing file continues it. A last line without its newline was torn by a crash: it gets its newline if
    it is a whole row, and is cut off otherwise. May be shared by threads, not by processes.

    Raises:
        LedgerError: the folder does not exist, ``sync_every`` is below 1, or a row is written after `close`.
    """

    def __init__(self, path: Path | str, *, sync_every: int = 64) -> None:
        self.path = Path(path)
        if sync_every < 1:
            raise LedgerError(f"sync_every must be at least 1, got {sync_every}. Use 1 to sync every row.")
        if not self.path.parent.is_dir():
            raise LedgerError(f"A ledger needs an existing folder, got {self.path}. Create {self.path.parent} first.")
        self._sync_every = sync_every
        self._unsynced = 0
        self._lock = threading.Lock()
        _mend_tail(self.path)
        self._file = self.path.open("ab")

    def write(self, row: Row) -> None:
        """Append ``row`` and flush it."""
        line = row.model_dump_json().encode() + b"\n"
        with self._lock:
            if self._file.closed:
                raise LedgerError(f"A closed ledger takes no rows, got a {row.type!r} row. Open {self.path} again.")
            self._file.write(line)
            self._file.flush()
            self._unsynced += 1
            if self._unsynced >= self._sync_every:
                self._sync()

    def close(self) -> None:
        """Put everything on disk and close the file; closing twice is harmless."""
        with self._lock:
            if not self._file.closed:
                self._sync()
                self._file.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _mend_tail(path: Path) -> None:
    """Make the file end in a whole line: complete the last one if it is a row, cut it off if it is not."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        start = _start_of_last_line(file)
        file.seek(start)
        tail = file.read()
        if not tail:
            return
        if is_row(tail):
            file.write(b"\n")
        else:
            file.truncate(start)


def _start_of_last_line(file: IO[bytes]) -> int:
    """Return the offset just behind the last newline, reading backwards so that long ledgers stay cheap."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _CHUNK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def is_row(line: bytes) -> bool:
    """Tell whether ``line`` is one whole, valid row."""
    try:
        ROW.validate_json(line)
    except ValidationError:
        return False
    return True
