"""Files that are written whole, and never through a link."""

import errno
import os
import stat
from pathlib import Path

import pytest

from distributed_tuner.storage.files import write_bytes, write_text, written


def test_a_link_at_the_path_is_replaced_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "here.txt"
    victim.write_text("precious")
    path.symlink_to(victim)
    write_text(path, "grün")
    assert (victim.read_text(), path.read_bytes().decode(), path.is_symlink()) == ("precious", "grün", False)


def test_what_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "here"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), written(path) as file:
        file.write(b"ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["no folder", "a folder", "full"])
def test_an_error_names_the_path_that_was_to_be_written(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x" / "here" if kind == "no folder" else tmp_path / "here"
    if kind == "a folder":
        path.mkdir()
        (path / "in it").touch()
    with pytest.raises(OSError) as told, written(path):
        if kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert told.value.filename == str(path)
    assert [one for one in tmp_path.iterdir() if one != path] == []


def test_the_rights_are_those_that_the_user_gives_to_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "here", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "here").stat().st_mode) == 0o640


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("n" * 255), b"x")
    assert (tmp_path / ("n" * 255)).read_bytes() == b"x"
