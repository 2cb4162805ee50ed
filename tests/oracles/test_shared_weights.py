"""Weights as a file that processes share: made once, never half-written, bounded; none where there is no room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distributed_tuner.oracles.local import shared_weights
from distributed_tuner.oracles.local.shared_weights import fingerprint, shared


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_weights, "LEAST_BYTES", 0)


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("made again")


def weights(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3, 4), value), "b": torch.full((2,), -value, dtype=torch.bfloat16)}


def test_they_are_made_once(tmp_path: Path) -> None:
    first, second = shared(tmp_path, "k", weights), shared(tmp_path, "k", never)
    for found in (first, second):
        assert {name: part.tolist() for name, part in found.items()} == {n: p.tolist() for n, p in weights().items()}
        assert found["b"].dtype == torch.bfloat16
    assert [file.name for file in tmp_path.glob("k.*") if file.suffix != ".lock"] == ["k.safetensors"]


def test_two_processes_map_the_same_memory(tmp_path: Path) -> None:
    """Every page is the file's: none is a process's own."""
    script = """
import sys, torch
from pathlib import Path
from distributed_tuner.oracles.local import shared_weights
shared_weights.LEAST_BYTES = 0
found = shared_weights.shared(Path(sys.argv[1]), "k", lambda: {"a": torch.ones(2**22)})
total = float(found["a"].sum())
maps = Path("/proc/self/smaps").read_text().split("VmFlags")
mine = next(part for part in maps if "k.safetensors" in part)
print(total, [int(line.split()[1]) for line in mine.splitlines() if line.startswith("Anonymous")])
"""
    if not Path("/proc/self/smaps").exists():
        pytest.skip("no /proc/self/smaps")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=900,
            cwd=Path(__file__).parents[2],
        )
        assert done.stdout.split(maxsplit=1) == [str(float(2**22)), "[0]\n"]


def test_small_weights_are_not_worth_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_weights, "LEAST_BYTES", 10**6)
    shared(tmp_path, "k", weights)
    assert not list(tmp_path.iterdir())


def test_without_room_on_the_disk_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_weights, "MOST_BYTES", 2**80)
    assert shared(tmp_path, "k", weights)["a"].sum() == 12
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert shared(tmp_path / "file" / "folder", "k", weights)["a"].sum() == 12
    assert "not shared" in caplog.text


def test_a_torn_file_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "k.safetensors").write_bytes(b"\x10")
    assert shared(tmp_path, "k", weights)["a"].sum() == 12
    assert "not shared" in caplog.text


def test_what_was_not_used_for_longest_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age, key in enumerate(("old", "older")):
        shared(tmp_path, key, weights)
        os.utime(tmp_path / f"{key}.safetensors", (1000 - age, 1000 - age))
    size = (tmp_path / "old.safetensors").stat().st_size
    monkeypatch.setattr(shared_weights, "MOST_BYTES", int(2.2 * size))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**60})())
    shared(tmp_path, "new", weights)
    assert {file.stem for file in tmp_path.glob("*.safetensors")} == {"old", "new"}


def test_the_key_follows_the_files_and_what_is_made_of_them(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("one")
    first = fingerprint([file], "float32")
    assert first == fingerprint([file], "float32") != fingerprint([file], "bfloat16")
    file.write_text("other")
    assert fingerprint([file], "float32") != first
