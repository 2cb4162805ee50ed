"""Appending rows to a ledger so that a crash costs at most the line being written. Reading is left to `reader`."""

import contextlib
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from pydantic import ValidationError

from distributed_tuner.errors import LedgerError, StorageError
from distributed_tuner.ledger.rows import ROW, Row

_CHUNK = 1 << 16
_NO_FILE = (
    "a ledger is a file of its own, with one name, but {} is a link, has a second name, or is no file at all; copy the"
    " run to another folder if it is yours (cp -rL)"
)


class LedgerWriter:
    """The one writer of a ledger: a line a row, written at once, on disk every ``sync_every`` rows and on close.

    Opening an existing file continues it, and changes nothing, so that it may be read first. With the first row a
    last line without its newline, which a crash has torn, gets its newline if it is a whole row, and is cut off
    otherwise. ``new``: there must be none yet, and one without a row is taken away by `close`. May be shared by
    threads, not by processes.

    A disk that takes no more: what does not fit is cut off, so that the file ends with a whole line, and its rows are
    kept in memory, to be written before the next one once there is space. ``on_trouble`` is called with the first
    error; without it the error is raised.

    Raises:
        LedgerError: the folder does not exist, ``sync_every`` is below 1, another process writes there, what is there
            is no file of its own, or a row is written after `close`.
        StorageError: rows could not be written: at once, or with ``on_trouble`` by `close`.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        new: bool = False,
        sync_every: int = 64,
        on_trouble: Callable[[StorageError], None] | None = None,
    ) -> None:
        self.path = Path(path)
        if sync_every < 1:
            raise LedgerError(f"sync_every must be at least 1, got {sync_every}. Use 1 to sync every row.")
        if not self.path.parent.is_dir():
            raise LedgerError(f"A ledger needs an existing folder, got {self.path}. Create {self.path.parent} first.")
        self._sync_every = sync_every
        self._on_trouble = on_trouble
        self._lock = threading.RLock()  # a signal may have the same thread write again
        self._waiting: list[bytes] = []  # lines that are not in the file
        self._unsynced: list[bytes] = []  # lines that are in the file, but perhaps not on the disk
        self._told = False
        self.trouble: StorageError | None = None
        """Why rows are missing from the file; None while none are."""
        self._file = _opened(self.path, new)
        _lock(self._file, self.path)
        self._end = self._synced = os.fstat(self._file).st_size
        self._mended = False
        self._new = new
        self._closed = False

    def write(self, row: Row) -> None:
        """Append ``row``."""
        line = row.model_dump_json().encode() + b"\n"
        with self._lock:
            if self._closed:
                raise LedgerError(f"A closed ledger takes no rows, got a {row.type!r} row. Open {self.path} again.")
            self._waiting.append(line)
            self._put(sync=len(self._unsynced) + len(self._waiting) >= self._sync_every)
            self._tell()

    def close(self) -> None:
        """Put everything on disk and close the file; closing twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._put(sync=True)
            self._closed = True
            if self._new and not self._end and not self._waiting:
                self.path.unlink(missing_ok=True)
            os.close(self._file)
            if self.trouble is not None:
                raise self.trouble

    def _put(self, sync: bool) -> None:
        """Write what waits, and sync if asked."""
        try:
            if self._waiting and not self._mended:
                self._end = self._synced = _mend_tail(self._file)
                self._mended = True
            if os.fstat(self._file).st_size > self._end:  # a line was cut short, by an error or by a signal
                os.ftruncate(self._file, self._end)
            while self._waiting:
                self._append(self._waiting[0])
                self._unsynced.append(self._waiting.pop(0))
        except OSError as error:
            self._keep_aside(error, self._end)
            return
        try:
            if sync:
                os.fsync(self._file)
                self._unsynced.clear()
                self._synced = self._end
        except OSError as error:
            self._keep_aside(error, self._synced)
            return
        self.trouble = None

    def _append(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self._end += len(line)

    def _keep_aside(self, error: OSError, whole: int) -> None:
        """Cut the file where it was whole, and let the lines behind that wait."""
        if whole < self._end:
            self._waiting = self._unsynced + self._waiting
            self._unsynced = []
            self._end = whole
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, whole)
        self.trouble = StorageError(
            f"the ledger must keep every row, but {len(self._waiting)} could not be written to {self.path}"
            f" ({error.strerror or error}); what is there is whole: make room, then continue with --resume"
        )

    def _tell(self) -> None:
        if self.trouble is None:
            self._told = False
        elif self._on_trouble is None:
            raise self.trouble
        elif not self._told:
            self._told = True
            self._on_trouble(self.trouble)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _opened(path: Path, new: bool) -> int:
    """Open a ledger, which must be a file with no other name: what is appended to it would change that one as well."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_EXCL if new else 0)
    try:
        file = os.open(path, flags | os.O_NONBLOCK, 0o666)  # a pipe would be waited for
    except FileExistsError:
        raise LedgerError(
            f"a new run writes a ledger of its own, but another run has begun {path}; wait for its end, or choose"
            " another place with --out"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise LedgerError(_NO_FILE.format(path)) from None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(file)
        raise LedgerError(_NO_FILE.format(path))
    return file


def _lock(file: int, path: Path) -> None:
    """Lock an open ledger for as long as it is open, where its file system has locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if not isinstance(error, BlockingIOError):  # the file system has none
            return
        os.close(file)
        raise LedgerError(
            f"one process at a time writes a ledger, but another one writes {path}; wait for the end of that run, or"
            " stop it"
        ) from None


def is_being_written(path: Path) -> bool:
    """Tell whether a process has a ledger open for writing; True where its file system has no locks to tell by.

    Raises:
        OSError: there is no ledger, or it cannot be read.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(file)


def _mend_tail(opened: int) -> int:
    """Make the file end in a whole line: complete the last one if it is a row, cut it off if it is not. Return its
    size."""
    with os.fdopen(os.dup(opened), "r+b") as file:
        start = whole_lines(file)
        file.seek(start)
        tail = file.read()
        if tail and is_row(tail):
            file.write(b"\n")
        elif tail:
            file.truncate(start)
        return file.seek(0, os.SEEK_END)


def whole_lines(file: IO[bytes]) -> int:
    """Return the bytes of the file's whole lines: up to the last newline, looked for backwards, as ledgers are long."""
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
