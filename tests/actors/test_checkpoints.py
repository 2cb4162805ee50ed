"""Which checkpoint a trial goes on from, when some are torn or stray."""

from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.tune import Checkpoint

from actors.checkpoints import Saved, newest, number_of, numbered, remove

FILES = LocalFileSystem()


def checkpoint(folder: Path, number: int, step: int | None = 0) -> Any:
    """Make a trial's checkpoint; ``step`` None: it was cut off."""
    place = folder / f"checkpoint_{number:06d}"
    place.mkdir()
    if step is not None:
        Saved({"step": step}, [], {"done": False}, None).write(place)
    return Checkpoint(str(place), FILES)


def test_the_newest_is_taken(tmp_path: Path) -> None:
    for number in (3, 12, 4):
        checkpoint(tmp_path, number, number)
    (tmp_path / "result.json").write_text("{}")
    found = newest(FILES, str(tmp_path))
    assert found is not None and found.number == 12
    assert found.saved.state == {"step": 12}
    assert found.saved.report == {"done": False}


def test_one_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    _, _, torn = checkpoint(tmp_path, 0), checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    file = next(Path(torn.path).iterdir())
    file.write_bytes(file.read_bytes()[:50])
    checkpoint(tmp_path, 3, None)
    found = newest(FILES, str(tmp_path))
    assert found is not None and found.number == 1


def test_only_what_has_a_number_is_a_checkpoint(tmp_path: Path) -> None:
    for number in (5, 7, 6):
        checkpoint(tmp_path, number)
    (tmp_path / "checkpoint_of_mine").mkdir()
    assert [number_of(one) for one in numbered(FILES, str(tmp_path))] == [7, 6, 5]
    assert number_of(Checkpoint(str(tmp_path / "checkpoint_of_mine"), FILES)) == -1


def test_where_there_is_none_none_is_found(tmp_path: Path) -> None:
    assert newest(FILES, str(tmp_path / "nowhere")) is None
    checkpoint(tmp_path, 0, None)
    assert newest(FILES, str(tmp_path)) is None


def test_old_ones_are_removed_and_one_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    old, kept = checkpoint(tmp_path, 0), checkpoint(tmp_path, 1)
    remove([old, old])
    assert [one.path for one in numbered(FILES, str(tmp_path))] == [kept.path]
