"""Tune's snapshots after a crash."""

import json
import os
from pathlib import Path

import pytest

from actors.tuning import _can_restore


@pytest.mark.parametrize("torn", ["", '{"trial_data": [', "\x00" * 100])
def test_a_snapshot_that_a_crash_cut_off_is_set_aside(torn: str, tmp_path: Path) -> None:
    older, newer = tmp_path / "experiment_state-1.json", tmp_path / "experiment_state-2.json"
    older.write_text(json.dumps({"trial_data": []}))
    newer.write_text(torn)
    os.utime(older, (1, 1))
    assert not _can_restore(tmp_path)
    assert not newer.exists()
    assert newer.with_suffix(".torn").exists()
    assert older.exists()


def test_without_a_snapshot_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert not _can_restore(tmp_path)
