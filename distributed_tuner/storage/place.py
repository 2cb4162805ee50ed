"""A folder that is worked in, and where what is in it is to be: the folder itself, or a URI that it is sent to."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distributed_tuner.errors import FULL, RunDirectoryError, StorageError, TunerError
from distributed_tuner.storage.files import private_folder
from distributed_tuner.storage.mirror import Mirror
from distributed_tuner.storage.remote import Remote, brief
from distributed_tuner.storage.uri import Uri, is_uri

SHOWN = 120  # characters of a path in a message
_RIGHTS = "change its rights, or choose another place"
_ADVICE = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "choose a place on a disk that can be written to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is a file: choose another place",
    errno.EEXIST: "a file, or a link that leads nowhere, is in its place: choose another one",
    errno.EISDIR: "there is a folder instead of a file: move it away, or choose another place",
    errno.ELOOP: "its links lead in a circle: remove them, or choose another place",
    errno.ENOENT: "nothing can be made there, or it was removed meanwhile: choose another place",
}


@dataclass(frozen=True, slots=True)
class Place:
    """``path`` is the folder that is worked in; ``mirror`` its remote copy, where it has one."""

    path: Path
    mirror: Mirror | None = None

    @property
    def name(self) -> str:
        """Its shown name: the URI, or the path."""
        return str(self.path) if self.mirror is None else str(self.mirror.remote.uri)

    def shown(self, path: Path) -> str:
        """Return what a person calls a file in it."""
        if self.mirror is None:
            return str(path)
        return str(self.mirror.remote.uri.inside(path.relative_to(self.path).as_posix()))

    def inside(self, name: str) -> str:
        """Return the place of a name in it."""
        return self.shown(self.path / name)

    def send(self) -> None:
        """Send what has changed to the remote copy, if there is one.

        Raises:
            StorageError: the store does not take it.
        """
        if self.mirror is not None:
            with reaching(self.mirror.remote.uri):
                self.mirror.send()


def remote_of(place: str) -> Uri | None:
    """Return the URI of a place outside of the file system; None for paths and ``file`` URIs.

    Raises:
        RunDirectoryError: it is a URI that nothing can be kept at.
    """
    uri = Uri.parse(place) if is_uri(place) else None
    return None if uri is None or uri.local is not None else uri


def path_of(place: str) -> Path:
    """Return the path that a place in the file system means."""
    local = Uri.parse(place).local if is_uri(place) else None
    return Path(place) if local is None else local


@contextmanager
def delivered(place: str, mark: str | None = None) -> Iterator[Place]:
    """Give a folder to write to. That of a URI is a temporary one, and is sent there at the end.

    mark: the file that tells what may be written over.

    Raises:
        RunDirectoryError: something without the mark is there (checked for URIs alone), the URI is none, or a folder
            cannot be made or written to.
        StorageError: the store does not take it.
    """
    uri = remote_of(place)
    if uri is None:
        path = path_of(place)
        with using(path):
            yield Place(path)
        return
    remote = Remote(uri)
    with reaching(uri):
        there = [found.name for found in remote.found()] if mark is not None else []
    if there and mark not in there:
        raise RunDirectoryError(
            f"output needs a directory of its own, but {uri} holds something else ({there[0]}); give another one"
            " with --out"
        )
    with tempfile.TemporaryDirectory(prefix="prompt-tuner-") as folder:
        delivered = Place(Path(folder, "new"), Mirror(Path(folder, "new"), remote))
        yield delivered
        delivered.send()


@contextmanager
def reaching(uri: Uri) -> Iterator[None]:
    """Turn what a store says into one error.

    Raises:
        StorageError: it cannot be reached, or does not let us.
    """
    try:
        yield
    except TunerError:  # some are OSErrors as well
        raise
    except OSError as error:
        raise StorageError(
            f"{uri} must be within reach, but: {brief(error)}; check the network, and the keys in this process's"
            " environment"
        ) from None


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Turn what the file system says against a path, what is in it or above it, into one error.

    Raises:
        RunDirectoryError: it cannot be made, read or written to. A disk that is full is another matter.
    """
    try:
        yield
    except TunerError:  # some are OSErrors as well
        raise
    except OSError as error:
        if error.errno in FULL or not _is_about(error, path):
            raise
        where = str(error.filename)
        where = where if len(where) <= SHOWN else f"{where[:SHOWN]}..."
        raise RunDirectoryError(
            f"what a run reads and writes must be within reach, but {where!r} is not ({error.strerror});"
            f" {_ADVICE.get(error.errno or 0, 'check the path and its disk')}"
        ) from None


def _is_about(error: OSError, path: Path) -> bool:
    """Tell whether an error names the path, something in it, or something that it is in."""
    if not isinstance(error.filename, str | os.PathLike):
        return False
    named, whole = (Path(os.path.realpath(one)) for one in (error.filename, path))
    return named.is_relative_to(whole) or whole.is_relative_to(named)


def staging_folder(uri: Uri) -> Path:
    """Return the folder in which a run at ``uri`` is worked on, the same each time on one machine, for us alone.

    Raises:
        StorageError: somebody else has put something there.
    """
    try:
        ours = private_folder(Path(tempfile.gettempdir()))
    except OSError as error:
        raise StorageError(
            f"a run at a URI is worked on in a folder of this machine, but {error.filename} cannot be used"
            f" ({error.strerror}); set TMPDIR to another folder"
        ) from None
    name = uri.path.rpartition("/")[2] or uri.bucket
    return ours / f"{name}-{hashlib.sha256(str(uri).encode()).hexdigest()[:12]}"
