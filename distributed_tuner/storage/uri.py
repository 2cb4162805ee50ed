"""URIs of runs: parsed and checked before anything is sent."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from distributed_tuner.errors import RunDirectoryError

FILE = "file"
OPTIONS = {
    FILE: frozenset[str](),
    "gs": frozenset({"scheme", "endpoint_override", "location", "retry_limit_seconds"}),
    "s3": frozenset({"scheme", "endpoint_override", "region", "allow_bucket_creation", "tls_ca_file_path"}),
}
"""Allowed options of a URI, by scheme: those of pyarrow that are not secret."""
_KEYS = {
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default login`",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials or the machine's role",
}


def is_uri(place: str) -> bool:
    """Tell a URI from a path."""
    return "://" in place


@dataclass(frozen=True, slots=True)
class Uri:
    """A place in an object store, or on a disk (``file``). path: within the bucket, without slashes at its ends.

    query: options as they are written, such as "region=eu-west-1"; empty without any.
    """

    scheme: str
    bucket: str
    path: str
    query: str = ""

    @classmethod
    def parse(cls, text: str) -> "Uri":
        """Read a URI.

        Raises:
            RunDirectoryError: it is none that a run can be kept at, or it holds a key.
        """
        split = urlsplit(text)
        scheme = split.scheme.lower()
        if "@" in split.netloc:
            raise RunDirectoryError(
                f"the URI of a run must hold no keys, since it is shown and written down, but {_bare(text)} has some"
                f" before the @; leave them out and give them by {_KEYS.get(scheme, 'environment variables')}"
            )
        if scheme not in OPTIONS:
            known = ", ".join(f"{one}://" for one in sorted(OPTIONS))
            raise RunDirectoryError(
                f"a run is kept in a directory, or at a URI that begins with one of {known}; got {_bare(text)!r}; other"
                " stores can be mounted as directories"
            )
        if split.fragment or text.endswith("#"):
            raise RunDirectoryError(
                f"the URI of a run has no part behind a '#', got {_bare(text)!r}; write %23 for one"
            )
        _check_options(scheme, split.query, text)
        path = split.path.strip("/")
        if scheme == FILE:
            if split.netloc not in ("", "localhost") or not path:
                raise RunDirectoryError(
                    f"a file URI is file:// and an absolute path, such as file:///nfs/runs/mine; got {text!r}"
                )
            return cls(scheme, "", path)
        if not split.netloc:
            raise RunDirectoryError(
                f"the URI of a run must name a bucket, as {scheme}://BUCKET/runs/mine does, but {text!r} names none"
            )
        if ".." in path.split("/") or "//" in path:
            raise RunDirectoryError(
                f"the path in a bucket has no '..' and no empty names, got {path!r}; write it plainly"
            )
        return cls(scheme, split.netloc, path, split.query)

    @property
    def local(self) -> Path | None:
        """The directory that a ``file`` URI means; None for all others."""
        return Path("/", unquote(self.path)) if self.scheme == FILE else None

    def inside(self, name: str) -> "Uri":
        """Return the URI of something below this one."""
        return Uri(self.scheme, self.bucket, f"{self.path}/{name}".strip("/"), self.query)

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.bucket}/{self.path}".rstrip("/") + query


def _check_options(scheme: str, query: str, text: str) -> None:
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS[scheme]:
            allowed = ", ".join(sorted(OPTIONS[scheme])) or "none"
            keys = f"; keys are given by {_KEYS[scheme]}" if scheme in _KEYS else ""
            raise RunDirectoryError(
                f"{scheme}:// takes the options {allowed}, but {_bare(text)} has {name!r}; leave it out{keys}"
            )


def _bare(text: str) -> str:
    """Return a URI without what may be secret in it."""
    head, _, rest = text.partition("://")
    place = rest.split("?")[0].split("#")[0]
    host, slash, path = place.partition("/")
    return f"{head}://{host.rpartition('@')[2]}{slash}{path}"
