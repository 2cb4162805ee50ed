"""A run goes on only where nobody else can have left something to be run."""

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.config.stage import RestartStageConfig
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.run_directory import RunDirectory, kept
from distributed_tuner.storage import guard, require_guarded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run directory as an umask of 022 makes it."""
    folder = tmp_path / "run"
    (folder / "tune" / "trials").mkdir(parents=True)
    for name in ("config.json", "ledger.jsonl", "tune/trials/tuner.pkl"):
        (folder / name).write_text("{}")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def test_a_directory_of_ones_own_is_fine(folder: Path) -> None:
    require_guarded(folder)
    (folder / "link").symlink_to(folder / "config.json")
    (folder / "dangling").symlink_to(folder / "nowhere")
    require_guarded(folder)


@pytest.mark.parametrize("name", ["", "tune", "tune/trials/tuner.pkl", "config.json"])
def test_what_everybody_can_write_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(RunDirectoryError, match="can be written by everybody") as refused:
        require_guarded(folder)
    assert f"{path} can" in str(refused.value)
    assert f"chmod -R go-w {folder}" in str(refused.value)
    path.chmod(path.stat().st_mode | 0o1000)  # the sticky bit keeps others from removing, not from adding
    with pytest.raises(RunDirectoryError):
        require_guarded(folder)


def test_the_next_move_helps(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    with pytest.raises(RunDirectoryError):
        require_guarded(folder)
    assert os.system(f"chmod -R go-w {folder}") == 0
    require_guarded(folder)


def test_a_link_is_as_good_as_where_it_leads(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "tuner.pkl"
    target.write_text("")
    target.chmod(0o666)
    (folder / "tune" / "tuner.pkl").symlink_to(target)
    with pytest.raises(RunDirectoryError, match="everybody"):
        require_guarded(folder)


def as_user(monkeypatch: pytest.MonkeyPatch, name: str, primary: int, groups: dict[int, tuple[str, list[str]]]) -> None:
    def group(gid: int) -> Any:
        return SimpleNamespace(gr_name=groups[gid][0], gr_mem=groups[gid][1])

    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name=name, pw_gid=primary))
    monkeypatch.setattr(grp, "getgrgid", group)


@pytest.mark.parametrize(
    ("primary", "groups", "fine"),
    [
        (os.getgid(), ("ada", []), True),
        (os.getgid(), ("ada", ["ada"]), True),
        (os.getgid(), ("ada", ["ada", "bob"]), False),
        (os.getgid(), ("users", []), False),
        (os.getgid() + 1, ("ada", []), False),
    ],
    ids=["private", "with oneself", "with another", "of all users", "not the first"],
)
def test_a_group_of_ones_own_may_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch, primary: int, groups: tuple[str, list[str]], fine: bool
) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o020)  # as an umask of 002 leaves it
    as_user(monkeypatch, "ada", primary, {os.getgid(): groups})
    if fine:
        require_guarded(folder)
        return
    with pytest.raises(RunDirectoryError, match=f"can be written by the group {groups[0]}"):
        require_guarded(folder)


def test_what_belongs_to_another_is_refused_and_what_is_roots_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = folder.stat().st_uid
    monkeypatch.setattr(guard.os, "geteuid", lambda: owner + 1000)
    if owner == 0:
        require_guarded(folder)
        try:
            os.chown(folder / "tune" / "trials" / "tuner.pkl", 4242, -1)
        except PermissionError:
            pytest.skip("only root gives files away")
        with pytest.raises(RunDirectoryError, match=r"tuner.pkl belongs to the user 4242"):
            require_guarded(folder)
    else:
        with pytest.raises(RunDirectoryError, match="belongs to the user"):
            require_guarded(folder)


def test_who_shares_on_purpose_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o777)
    monkeypatch.setenv(guard.SHARED, "1")
    require_guarded(folder)


def test_only_a_run_that_goes_on_is_looked_at(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new").chmod(0o777)
    with kept(str(tmp_path / "new"), False, print):
        pass
    with kept(str(folder), True, print):
        pass
    folder.chmod(0o777)
    for place in (str(folder), folder.as_uri()):
        with pytest.raises(RunDirectoryError, match="everybody"), kept(place, True, print):
            raise AssertionError("nothing is loaded")


def test_resume_says_it_in_one_line(folder: Path) -> None:
    import tune

    folder.chmod(0o777)
    result = CliRunner().invoke(tune.app, ["run", "search_spaces/debug.yaml", "--out", str(folder), "--resume"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: a run that goes on must be this user's alone to write")


# ----------------------------------------------------------------------------------------------- names and places
@pytest.mark.parametrize("name", ["../../evil", "a/b", "..\\evil", "a\nb", ""])
@pytest.mark.parametrize("stage", ["search", "restart"])
def test_a_methods_name_leads_out_of_no_directory(name: str, stage: str) -> None:
    if stage == "search":
        with pytest.raises(ValueError, match="name"):
            ZotConfig(name=name)
    else:
        with pytest.raises(ValueError, match="name"):
            RestartStageConfig.model_validate({"kind": "restart", "proposer": {"kind": "random"}, "name": name})
    assert ZotConfig(name="ZOT, n = 5 (rho = 1)").label == "ZOT, n = 5 (rho = 1)"


@pytest.mark.parametrize("trial_id", ["../../evil", "/etc", "a/../../b", "..", ""])
def test_a_trials_name_leads_out_of_no_directory(tmp_path: Path, trial_id: str) -> None:
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="one folder's"):
        directory.keep_prompt(trial_id, "be kind")
    with pytest.raises(RunDirectoryError, match="one folder's"):
        directory.prompt_of(trial_id)
    assert list(tmp_path.iterdir()) == []
