"""Choice of a trial's checkpoint, when some are torn or stray."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow.fs import LocalFileSystem
from ray.tune import Checkpoint

from actors.trials.checkpoints import STATE_FILE, Saved, newest, number_of, numbered, remove
from distributed_tuner.storage.serialization import encode

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


def odd_states(place: Path) -> None:
    """Write, each as a newer checkpoint: a bomb, a header of 4 PB, and states that are no trial's."""
    small, big, file = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez_compressed(small, tree=np.zeros(10**6))
    np.lib.format.write_array_header_1_0(big, {"shape": (5 * 10**14,), "fortran_order": False, "descr": "<f8"})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tree.npy", big.getvalue())
    other = Saved([], [], {}, None)  # type: ignore[arg-type]
    states = (small.getvalue(), file.getvalue(), encode([1, 2]), encode(other, (Saved,)))
    for number, data in enumerate(states, start=1):
        (Path(checkpoint(place, number).path) / STATE_FILE).write_bytes(data)


def test_what_unpacks_to_much_or_is_no_trials_is_passed_over(tmp_path: Path) -> None:
    checkpoint(tmp_path, 0, 7)
    odd_states(tmp_path)
    found = newest(FILES, str(tmp_path))
    assert found is not None and (found.number, found.saved.state) == (0, {"step": 7})


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
