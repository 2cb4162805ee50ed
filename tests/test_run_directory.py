"""Run directories: places that cannot be used, leftovers of runs that never began, and other people's folders."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distributed_tuner.errors import LedgerError, RunDirectoryError
from distributed_tuner.ledger import EventRow, LedgerWriter, RunRow
from distributed_tuner.runs.directory import RunDirectory, kept, opened, write_json
from distributed_tuner.storage import delivered

ROW = RunRow(name="r", version="0", seed=0, methods=["zot"])
VICTIM = '{"type":"event","kind":"x","message":"precious"}'  # no line break: a ledger's torn tail looks so


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of somebody's, beside the run directory."""
    path = tmp_path / "victim"
    path.write_text(VICTIM)
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run with a file of each kind."""
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    write_json(directory.config, {"trials": [{"trial_id": "zot-0003"}]})
    with LedgerWriter(directory.ledger) as writer:
        writer.write(ROW)
    directory.keep_prompt("zot-0003", np.zeros((2, 3), dtype=np.float32))
    directory.best.mkdir()
    return directory


def test_only_its_owner_may_enter_a_new_one(tmp_path: Path) -> None:
    with kept(str(tmp_path / "runs" / "mine"), False, print) as directory:
        assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_the_prompt_that_was_selected_last_is_kept_whatever_its_sort(tmp_path: Path) -> None:
    directory, rows = RunDirectory(tmp_path), np.ones((2, 3), dtype=np.float32)
    assert directory.prompt_of("a") is None
    directory.keep_prompt("a", "what a screen has found")
    assert directory.prompt_of("a") == "what a screen has found"
    directory.keep_prompt("a", rows)
    kept = directory.prompt_of("a")
    assert isinstance(kept, np.ndarray) and np.array_equal(kept, rows)
    directory.keep_prompt("a", "")
    assert directory.prompt_of("a") == ""


# --------------------------------------------------------------------------------------------- places
@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("file/x", "a part of the path is a file"),
        ("file/x/y", "a part of the path is a file"),
        ("n" * 300, "choose a shorter name"),
        ("circle/x", "links lead in a circle"),
        ("/proc/x", "nothing can be made there"),
    ],
)
@pytest.mark.parametrize("user", [lambda at: kept(at, False, print), delivered], ids=["run", "export"])
def test_a_place_that_cannot_be_made_is_one_line(
    tmp_path: Path, place: str, says: str, user: Callable[[str], object]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunDirectoryError, match=says) as told, user(str(tmp_path / place)) as given:  # type: ignore[attr-defined]
        given.path.mkdir(parents=True, exist_ok=True)
    assert told.value.exit_code == 2
    assert len(str(told.value)) < 400
    assert sorted(tmp_path.iterdir()) == before


def test_an_error_about_something_else_stays_what_it_is(tmp_path: Path) -> None:
    for error in (OSError(5, "a device is broken"), FileNotFoundError(2, "no such file", "/nowhere/at/all")):
        with pytest.raises(OSError) as told, kept(str(tmp_path / "run"), False, print):
            raise error
        assert told.value is error


def test_a_run_that_never_began_leaves_nothing_and_one_that_did_leaves_all(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "deep" / "mine"
    with pytest.raises(KeyboardInterrupt), kept(str(place), False, print) as directory:
        LedgerWriter(directory.ledger, new=True).close()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    place.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt), kept(str(place), False, print):
        raise KeyboardInterrupt
    assert place.is_dir(), "it was there before"
    with pytest.raises(KeyboardInterrupt), kept(str(place), False, print) as directory:
        with LedgerWriter(directory.ledger, new=True) as writer:
            writer.write(ROW)
        raise KeyboardInterrupt
    assert directory.ledger.stat().st_size > 0


def test_of_two_that_begin_at_once_one_is_refused(tmp_path: Path) -> None:
    with kept(str(tmp_path), False, print) as first, kept(str(tmp_path), False, print) as second:
        with LedgerWriter(first.ledger, new=True) as writer:
            with pytest.raises(LedgerError, match="another run has begun"):
                LedgerWriter(second.ledger, new=True)
            with pytest.raises(RunDirectoryError, match="not empty"), kept(str(tmp_path), False, print):
                pass
            assert first.ledger.exists(), "it has no row yet, and is the first's"
            writer.write(ROW)
        assert first.ledger.stat().st_size > 0


# --------------------------------------------------------------------------------------------- links and the like
LINKED = [
    "ledger.jsonl",
    "config.json",
    "population.json",
    "best/prompt.json",
    "trials/zot-0003/prompt.npy",
    "trials/zot-0003/prompt.txt",
    "tune/trials/zot-0003/checkpoint_000000/trial.state",
    "wandb",
    "anything",
]


@pytest.mark.parametrize("user", [opened, lambda at: kept(at, True, print)], ids=["read", "resumed"])
@pytest.mark.parametrize("name", LINKED)
def test_a_link_is_refused_before_anything_is_read_or_written(
    run: RunDirectory, victim: Path, name: str, user: Callable[[str], object]
) -> None:
    link = run.path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    with pytest.raises(RunDirectoryError, match=f"{name} is a link"), user(str(run.path)):  # type: ignore[attr-defined]
        pass
    assert victim.read_text() == VICTIM


@pytest.mark.parametrize("folder", ["best", "trials", "trials/zot-0003", "export", "tune", "baseline", "tensorboard"])
def test_so_is_a_folder_that_is_a_link(run: RunDirectory, tmp_path: Path, folder: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    place = run.path / folder
    if place.exists():
        place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match=f"{folder} is a link"), opened(str(run.path)):
        pass


def test_so_is_a_pipe_which_would_be_read_for_ever(run: RunDirectory) -> None:
    run.population.unlink(missing_ok=True)
    os.mkfifo(run.population)
    with pytest.raises(RunDirectoryError, match="json is neither file nor folder"), opened(str(run.path)):
        pass


def test_links_of_a_logger_among_its_own_files_are_in_order(run: RunDirectory, victim: Path) -> None:
    (run.path / "wandb" / "zot-0003").mkdir(parents=True)
    (run.path / "wandb" / "zot-0003" / "latest-run").symlink_to(victim)
    with opened(str(run.path)):
        pass


def test_a_link_to_a_run_directory_may_be_given(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    with kept(str(tmp_path / "link"), True, print) as directory, LedgerWriter(directory.ledger) as writer:
        writer.write(ROW)
    assert run.ledger.read_text().count("\n") == 2


@pytest.mark.parametrize("what", ["link", "hard link", "pipe", "folder"])
def test_a_ledger_that_is_no_file_of_its_own_is_never_appended_to(tmp_path: Path, victim: Path, what: str) -> None:
    path = tmp_path / "ledger.jsonl"
    match what:
        case "link":
            path.symlink_to(victim)
        case "hard link":
            path.hardlink_to(victim)
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()
    with pytest.raises((LedgerError, IsADirectoryError)):
        LedgerWriter(path)
    assert victim.read_text() == VICTIM


def test_opening_a_ledger_changes_nothing_until_its_first_row(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for torn in (b'{"type": "ev', EventRow(time=1.0, kind="x", message="y").model_dump_json().encode()):
        path.write_bytes(torn)
        LedgerWriter(path).close()
        assert path.read_bytes() == torn
    with LedgerWriter(path) as writer:
        writer.write(ROW)
    assert path.read_bytes().startswith(torn + b"\n")
