"""Which checkpoint a trial goes on from, when Tune knows of an older one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.tune import Checkpoint

from actors.checkpoints import number_of, younger
from actors.trial import Saved


def checkpoint(folder: Path, number: int, step: int | None = 0) -> Any:
    """Make a trial's checkpoint; ``step`` None: it was cut off."""
    place = folder / f"checkpoint_{number:06d}"
    place.mkdir()
    if step is not None:
        Saved({"step": step}, [], None).write(place)
    return Checkpoint(str(place), LocalFileSystem())


def test_a_younger_one_is_taken(tmp_path: Path) -> None:
    known, *_ = [checkpoint(tmp_path, number, number) for number in (3, 4, 12)]
    (tmp_path / "result.json").write_text("{}")
    chosen = Saved.newest(known)
    assert number_of(chosen) == 12
    saved = Saved.within(chosen)
    assert saved is not None and saved.state == {"step": 12}


def test_one_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    known, _, torn = checkpoint(tmp_path, 0), checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    file = next(Path(torn.path).iterdir())
    file.write_bytes(file.read_bytes()[:50])
    checkpoint(tmp_path, 3, None)
    assert number_of(Saved.newest(known)) == 1


def test_none_that_is_older_is_even_looked_at(tmp_path: Path) -> None:
    for number in (5, 6, 7):
        checkpoint(tmp_path, number)
    (tmp_path / "result.json").write_text("{}")
    assert [number_of(one) for one in younger(LocalFileSystem(), str(tmp_path), 5)] == [7, 6]
    assert younger(LocalFileSystem(), str(tmp_path), 7) == []
    assert younger(LocalFileSystem(), str(tmp_path / "nowhere")) == []


def test_a_trial_of_which_tune_knows_none_finds_its_own(tmp_path: Path) -> None:
    storage: Any = SimpleNamespace(storage_filesystem=LocalFileSystem(), trial_fs_path=str(tmp_path))
    assert Saved.newest_in(storage) is None
    checkpoint(tmp_path, 0)
    checkpoint(tmp_path, 1, None)
    assert number_of(Saved.newest_in(storage)) == 0


def test_a_folder_of_another_name_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    known = Checkpoint(str(tmp_path / "own"), LocalFileSystem())
    assert number_of(known) == -1
    assert Saved.newest(known) is known
