"""The run directory: what lies where, and that nothing in it is ever written over by another run."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.values import Array


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths inside a run directory."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved experiment, as JSON."""
        return self.path / "config.json"

    @property
    def ledger(self) -> Path:
        """The ledger, as JSON lines."""
        return self.path / "ledger.jsonl"

    @property
    def summary(self) -> Path:
        """What the report's numbers are, as JSON."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def best(self) -> Path:
        """The best prompt, in the formats that it can be taken away in."""
        return self.path / "best"

    @property
    def tune(self) -> Path:
        """Ray Tune's own files: checkpoints of the trials."""
        return self.path / "tune"

    def keep_prompt(self, trial_id: str, prompt: Array | str) -> None:
        """Keep the selected prompt of one trial: its rows (L, D), or its words."""
        place = self._prompt_of(trial_id, "txt" if isinstance(prompt, str) else "npy")
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(prompt, str):
            place.write_text(prompt, encoding="utf-8")
        else:
            np.save(place, prompt)

    def prompt_of(self, trial_id: str) -> Array | str | None:
        """Return the selected prompt of one trial; None where it has none yet."""
        rows, words = self._prompt_of(trial_id, "npy"), self._prompt_of(trial_id, "txt")
        if words.exists():
            return words.read_text(encoding="utf-8")
        return np.asarray(np.load(rows), dtype=np.float32) if rows.exists() else None

    def _prompt_of(self, trial_id: str, ending: str) -> Path:
        return self.path / "trials" / trial_id / f"prompt.{ending}"

    def require_new(self) -> None:
        """Check that nothing is here yet.

        Raises:
            RunDirectoryError: the directory is there already and not empty.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            what = "holds a run" if self.config.exists() else "is not empty"
            raise RunDirectoryError(
                f"a run needs a directory of its own, but {self.path} {what}; continue it with --resume, or choose"
                " another with --out DIR"
            )

    def create(self) -> None:
        """Make the directory, which must be new."""
        self.require_new()
        self.path.mkdir(parents=True, exist_ok=True)

    def require(self) -> None:
        """Check that a run is here.

        Raises:
            RunDirectoryError: there is none.
        """
        if not self.config.is_file():
            raise RunDirectoryError(
                f"a run directory must hold config.json, but {self.path} does not; check the path, or start a run"
            )

    def read_config(self) -> dict[str, Any]:
        """Return what config.json holds.

        Raises:
            RunDirectoryError: there is none, or no run has written it.
        """
        self.require()
        try:
            config: dict[str, Any] = json.loads(self.config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunDirectoryError(f"{self.config} must be JSON, but it is not ({error}); start a new run") from None
        if not isinstance(config, dict) or "trials" not in config:
            raise RunDirectoryError(
                f"{self.config} must list the run's trials, but it does not; check the path, or start a new run"
            )
        return config

    def record_oracle(self, oracle: dict[str, Any]) -> None:
        """Write the oracle's settings, as the run has come to decide them, into config.json for all trials."""
        config = self.read_config()
        for tree in (config["experiment"], *(trial["config"] for trial in config["trials"])):
            tree["oracle"] = oracle
        write_json(self.config, config)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
    Path(scratch).chmod(0o644)
    Path(scratch).replace(path)
