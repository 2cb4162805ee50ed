"""What a run directory keeps of a trial, and what takes its place."""

from pathlib import Path

import numpy as np

from distributed_tuner.run_directory import RunDirectory


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
