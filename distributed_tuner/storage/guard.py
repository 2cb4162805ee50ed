"""Who can write to a run directory. Ray Tune keeps pickles there, and to load a pickle is to run what is in it."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from distributed_tuner.errors import RunDirectoryError

SHARED = "PROMPT_TUNER_SHARED"
"""Environment variable: 1 says that whoever can write to the run directory may run code as this user."""


def require_guarded(folder: Path) -> None:
    """Check that nobody but this user, and root, can have put anything into ``folder`` or can do so.

    A group that is this user's alone, and named after it, may write as well: so files are made where the umask is 002.

    Raises:
        RunDirectoryError: somebody else can; the message names the first file and the next move.
    """
    if os.environ.get(SHARED) == "1":
        return
    for path in _within(folder):
        who = _other(path)
        if who:
            raise RunDirectoryError(
                "a run that goes on must be this user's alone to write, since Ray Tune's snapshots in it can run code,"
                f" but {path} {who}; `chmod -R go-w {folder}` if it holds what you put there, a copy of your own if"
                f" not, or {SHARED}=1 where all who can write there may run code as you"
            )


def _within(folder: Path) -> Iterator[Path]:
    yield folder
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def _other(path: Path) -> str:
    """Say who else can write a file, or a link's target; nothing where nobody can."""
    for found in {path.lstat(), path.stat() if path.exists() else path.lstat()}:
        if found.st_uid not in (os.geteuid(), 0):
            return f"belongs to the user {_user(found.st_uid)}"
        if stat.S_ISLNK(found.st_mode):
            continue
        if found.st_mode & stat.S_IWOTH:
            return "can be written by everybody"
        if found.st_mode & stat.S_IWGRP and not _is_private(found.st_gid):
            return f"can be written by the group {_group(found.st_gid)}"
    return ""


def _is_private(gid: int) -> bool:
    """Tell whether a group is this user's alone: its own first group, of its own name, and without others in it."""
    try:
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return me.pw_gid == gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
