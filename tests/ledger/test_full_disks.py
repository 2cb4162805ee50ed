"""A ledger on a disk that takes no more: what is there stays readable, and no row goes without a word."""

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from distributed_tuner.errors import LedgerError, StorageError
from distributed_tuner.ledger import EventRow, LedgerWriter, read


def event(message: str) -> EventRow:
    return EventRow(time=1.0, kind="warning", message=message)


class Disk:
    """A disk with so many bytes left: a write takes what fits, and fails when nothing does, as ``write(2)`` has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1 << 30
        self.syncs = True
        write, sync = os.write, os.fsync

        def limited(file: int, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = write(file, data[: self.left])
            self.left -= taken
            return taken

        def synced(file: int) -> None:
            if not self.syncs:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(file)

        monkeypatch.setattr("distributed_tuner.ledger.writer.os.write", limited)
        monkeypatch.setattr("distributed_tuner.ledger.writer.os.fsync", synced)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def messages(path: Path) -> list[str]:
    return [row.message for row in read(path).events]


def test_a_row_that_does_not_fit_is_an_error_and_leaves_whole_lines(disk: Disk, path: Path) -> None:
    writer = LedgerWriter(path)
    writer.write(event("one"))
    disk.left = 10
    with pytest.raises(StorageError, match=r"1 could not be written to .*No space left on device.*--resume") as told:
        writer.write(event("two"))
    assert told.value.exit_code == 1
    assert messages(path) == ["one"]
    assert path.read_bytes().endswith(b"\n")
    with pytest.raises(StorageError):
        writer.close()
    writer.close()


def test_rows_wait_for_space_and_keep_their_order(disk: Disk, path: Path) -> None:
    heard: list[StorageError] = []
    with LedgerWriter(path, on_trouble=heard.append) as writer:
        writer.write(event("one"))
        disk.left = 5
        writer.write(event("two"))
        writer.write(event("three"))
        assert len(heard) == 1 and writer.trouble is not None
        assert "2 could not be written" in str(writer.trouble)
        disk.left = 1 << 20
        writer.write(event("four"))
        assert writer.trouble is None
    assert messages(path) == ["one", "two", "three", "four"]


def test_rows_that_are_still_missing_at_the_end_are_an_error(disk: Disk, path: Path) -> None:
    with (
        pytest.raises(StorageError, match="1 could not be written"),
        LedgerWriter(path, on_trouble=lambda _: None) as w,
    ):
        w.write(event("one"))
        disk.left = 0
        w.write(event("two"))
    assert messages(path) == ["one"]
    disk.left = 1 << 20
    with LedgerWriter(path) as writer:
        writer.write(event("two"))
    assert messages(path) == ["one", "two"]


def test_rows_that_cannot_be_synced_are_written_again(disk: Disk, path: Path) -> None:
    heard: list[StorageError] = []
    with LedgerWriter(path, sync_every=2, on_trouble=heard.append) as writer:
        writer.write(event("one"))
        writer.write(event("two"))
        disk.syncs = False
        writer.write(event("three"))
        writer.write(event("four"))
        assert heard and messages(path) == ["one", "two"], "back to what is known to be on the disk"
        disk.syncs = True
    assert messages(path) == ["one", "two", "three", "four"]


def test_a_line_that_a_signal_cut_short_is_made_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with LedgerWriter(path) as writer:
        writer.write(event("one"))

        def interrupted(file: int, data: memoryview) -> int:
            write(file, data[:7])
            raise KeyboardInterrupt

        monkeypatch.setattr("distributed_tuner.ledger.writer.os.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.write(event("two"))
        monkeypatch.undo()
        writer.write(event("three"))
    assert messages(path) == ["one", "two", "three"]


def test_a_limit_of_the_system_is_met_in_the_same_way(path: Path) -> None:
    """As the system itself does it, where the limit is one on the size of files."""
    code = f"""
        import resource, sys
        from distributed_tuner.errors import StorageError
        from distributed_tuner.ledger import EventRow, LedgerWriter
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        written = 0
        try:
            with LedgerWriter({str(path)!r}) as writer:
                for number in range(100):
                    writer.write(EventRow(time=1.0, kind="warning", message=str(number)))
                    written += 1
        except StorageError as error:
            print(written, error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=True
    )
    written, _, said = done.stdout.partition(" ")
    assert "File too large" in said
    assert messages(path) == [str(number) for number in range(int(written))] != []
    assert path.stat().st_size <= 1000


def test_two_writers_of_one_ledger_are_refused(path: Path) -> None:
    with LedgerWriter(path) as writer:
        writer.write(event("one"))
        with pytest.raises(LedgerError, match="one process at a time"):
            LedgerWriter(path)
        writer.write(event("two"))
    with LedgerWriter(path) as writer:
        writer.write(event("three"))
    assert messages(path) == ["one", "two", "three"]
