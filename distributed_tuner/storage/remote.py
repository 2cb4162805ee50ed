"""Objects below one URI: listed, read, written whole, deleted. What they mean is left to the others."""

import contextlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.storage.files import written
from distributed_tuner.storage.uri import Uri

CHUNK = 1 << 20
HIDDEN = "."  # names that begin so are no part of a run
GS_PATIENCE = "retry_limit_seconds=60"  # pyarrow's own is a quarter of an hour, in which nothing is heard of it


@dataclass(frozen=True, slots=True)
class Found:
    """An object. name: below the URI. written: by the store's clock, in unix seconds."""

    name: str
    written: float


class Remote:
    """The objects of one run. Every method raises OSError where the store cannot be reached, or says no.

    An object appears, or is replaced, as a whole when it has been sent: a reader sees the old one or the new one.
    """

    def __init__(self, uri: Uri) -> None:
        """Connect.

        Raises:
            RunDirectoryError: the store cannot be reached, knows no such bucket, or refuses us.
        """
        from pyarrow.fs import FileSystem

        self.uri = uri
        try:
            self._store, self._base = FileSystem.from_uri(_patient(uri))
            there = self._bucket_is_there()
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise RunDirectoryError(
                f"a run at {uri} needs a store that can be reached and lets us in, but: {brief(error)}; check the"
                " address, the region and the keys in this process's environment"
            ) from None

        if not there:
            raise RunDirectoryError(
                f"the URI of a run must name a bucket that is there, but {uri.scheme}://{uri.bucket} is not; create it,"
                " or check the name"
            )

    def _bucket_is_there(self) -> bool:
        from pyarrow.fs import FileType

        if "allow_bucket_creation=true" in self.uri.query.lower():
            self._store.create_dir(self.uri.bucket)
        return bool(self._store.get_file_info(self.uri.bucket).type != FileType.NotFound)

    def found(self, without: Collection[str] = (), within: str = "") -> list[Found]:
        """Return the objects below ``within``, sorted by name; folders named in ``without`` and hidden ones are not
        looked into unless they are ``within`` itself."""
        from pyarrow.fs import FileSelector, FileType

        here = self._at(within)
        found: list[Found] = []
        for info in self._store.get_file_info(FileSelector(here, allow_not_found=True)):
            name = f"{within}/{info.base_name}".lstrip("/")
            if info.base_name.startswith(HIDDEN) or name in without or not info.base_name:
                continue
            if info.type == FileType.Directory:
                found.extend(self.found(without, name))
            else:
                found.append(Found(name, info.mtime.timestamp() if info.mtime is not None else 0.0))
        return sorted(found, key=lambda one: one.name)

    def exists(self, name: str) -> bool:
        """Tell whether there is an object."""
        from pyarrow.fs import FileType

        return bool(self._store.get_file_info(self._at(name)).type != FileType.NotFound)

    def read(self, name: str) -> bytes:
        """Return an object; FileNotFoundError where there is none."""
        with self._store.open_input_stream(self._at(name)) as stream:
            data: bytes = stream.read()
        return data

    def size(self, name: str) -> int | None:
        """Return the bytes of an object; None where there is none."""
        from pyarrow.fs import FileType

        found = self._store.get_file_info(self._at(name))
        return int(found.size) if found.type == FileType.File else None

    def part(self, name: str, start: int, most: int) -> bytes:
        """Return at most so many bytes of an object from ``start`` on; FileNotFoundError where there is none."""
        with self._store.open_input_file(self._at(name)) as file:
            if start >= file.size():
                return b""
            file.seek(start)
            data: bytes = file.read(most)
        return data

    def folders(self) -> list[str]:
        """Return the names of the folders right below the URI, without hidden ones, sorted."""
        from pyarrow.fs import FileSelector, FileType

        infos = self._store.get_file_info(FileSelector(self._at(""), allow_not_found=True))
        names = (info.base_name for info in infos if info.type == FileType.Directory)
        return sorted(name for name in names if name and not name.startswith(HIDDEN))

    def fetch(self, name: str, path: Path) -> None:
        """Write an object to a local path, which is replaced whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._store.open_input_stream(self._at(name)) as stream, written(path) as file:
            shutil.copyfileobj(stream, file, CHUNK)

    def write(self, name: str, data: bytes) -> None:
        """Write an object."""
        with self._store.open_output_stream(self._at(name)) as stream:
            stream.write(data)

    def send(self, name: str, file: IO[bytes], size: int) -> None:
        """Write an object from the next ``size`` bytes of a file."""
        with self._store.open_output_stream(self._at(name)) as stream:
            while size > 0 and (chunk := file.read(min(size, CHUNK))):
                stream.write(chunk)
                size -= len(chunk)

    def delete(self, name: str) -> None:
        """Delete an object, if it is there; another may delete it at the same time."""
        if self.exists(name):
            with contextlib.suppress(FileNotFoundError):
                self._store.delete_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._base}/{name}".rstrip("/")


def brief(error: BaseException) -> str:
    """Return an error of the store as one line without what pyarrow has to say of itself."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _patient(uri: Uri) -> str:
    if uri.scheme != "gs" or "retry_limit_seconds" in uri.query:
        return str(uri)
    return str(Uri(uri.scheme, uri.bucket, uri.path, "&".join(filter(None, (uri.query, GS_PATIENCE)))))
