"""Writing files whole, and never through a link that somebody else has laid.

What is written goes to a new file beside the path first, with a name that cannot be guessed, and takes the path's
place when it is whole. A reader finds the old file or the new one; a link at the path is replaced and never followed.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SHOWN = 100  # characters of a file's name in that of its draft: names have a limit


def private_folder(parent: Path) -> Path:
    """Return a folder for us alone, the same each time, below one that others write to as well.

    Raises:
        OSError: it cannot be made, or somebody else has put something there.
    """
    folder = parent / f"prompt-tuner-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "it must be your own folder, closed to other users", str(folder))
    return folder


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Give a new file that takes the place of ``path`` once the block has ended, and is gone where the block fails.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    draft = path.with_name(f".{path.name[:SHOWN]}-{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            yield file
        draft.replace(path)
    except OSError as error:
        if error.filename not in (None, draft, str(draft)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data``; raise OSError as ``written`` does."""
    with written(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8; raise OSError as ``written`` does."""
    write_bytes(path, text.encode("utf-8"))
