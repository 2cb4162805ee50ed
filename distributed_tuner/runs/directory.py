"""The run directory: what lies where, and that nothing in it is ever written over by another run."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distributed_tuner.errors import RunDirectoryError, StateError, StorageError
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.schedule.decisions import Decisions
from distributed_tuner.stages.ensemble import Member
from distributed_tuner.storage import (
    Inbox,
    Lease,
    Mirror,
    Place,
    Remote,
    path_of,
    reaching,
    remote_of,
    staging_folder,
    using,
)
from distributed_tuner.storage.array_files import read_array, read_arrays
from distributed_tuner.storage.files import write_text, written
from distributed_tuner.storage.json_files import read_json
from distributed_tuner.storage.serialization import read_state, write_state
from distributed_tuner.values import Array, Array64

DECISION_SECONDS = 10.0  # for which a decision waits until it is at the run's URI
STOP = "stop.json"
"""Request to stop the run, in its inbox."""
LINKED = ("wandb",)  # folders of loggers that lay links within


@dataclass(frozen=True, slots=True)
class RunDirectory(Place):
    """Paths inside a run directory, or inside the local copy of one that is kept at a URI."""

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
        """The report's numbers, as JSON."""
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
        """Ray Tune's own files, checkpoints of the trials among them, where they are kept in a directory."""
        return self.path / "tune"

    @property
    def population(self) -> Path:
        """Decisions of a population's schedule, as JSON."""
        return self.path / "population.json"

    @property
    def inbox(self) -> Inbox:
        """What other processes ask of the run."""
        return Inbox(self.path, None if self.mirror is None else self.mirror.remote)

    def keep_decisions(self, decisions: Decisions) -> None:
        """Write down what a population's schedule has decided, and upload it to the run's URI before it is acted on:
        trials write their checkpoints there by themselves."""
        write_json(self.population, decisions.to_json())
        if self.mirror is not None:
            self.mirror.catch_up(DECISION_SECONDS)

    def tune_storage(self, name: str = "") -> str:
        """Return where Ray Tune keeps its files, or one of its experiments, as Tune is told: an absolute path, or a URI
        that trials reach by themselves. The local copy of a run that is kept at a URI has none of them."""
        place = self.tune / name
        return str(place.resolve()) if self.mirror is None else self.shown(place)

    def keep_prompt(self, trial_id: str, prompt: Array | str) -> None:
        """Keep the selected prompt of one trial, its rows (L, D) or its words, in place of the one before.

        Nothing is deleted, which a run at a URI would keep: rows that words have taken the place of are none.
        """
        rows, words = self._prompt_of(trial_id, "npy"), self._prompt_of(trial_id, "txt")
        rows.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(prompt, str):
            write_text(words, prompt)
            prompt = np.zeros((0, 0), dtype=np.float32)
            if not rows.exists():
                return
        with written(rows) as file:
            np.save(file, prompt, allow_pickle=False)

    def prompt_of(self, trial_id: str) -> Array | str | None:
        """Return the selected prompt of one trial; None where it has none yet."""
        rows, words = self._prompt_of(trial_id, "npy"), self._prompt_of(trial_id, "txt")
        kept = np.asarray(read_array(rows), dtype=np.float32) if rows.exists() else None
        if kept is not None and kept.size:
            return kept
        return words.read_text(encoding="utf-8") if words.exists() else None

    def keep_head(self, trial_id: str, state: Mapping[str, Array64]) -> None:
        """Keep what was fitted to read the selected prompt of one trial by."""
        self._write_arrays(self._prompt_of(trial_id, "npz").with_name("head.npz"), state)

    def head_of(self, trial_id: str) -> dict[str, Array64]:
        """Return what was fitted to read the selected prompt of one trial by; nothing where nothing was."""
        return self._read_arrays(self._prompt_of(trial_id, "npz").with_name("head.npz"))

    def keep_ensemble(self, trial_id: str, members: Sequence[Member]) -> None:
        """Keep the prompts of one trial that are read together, in place of those before; none of them: it is alone."""
        place = self._prompt_of(trial_id, "txt").with_name("ensemble.state")
        place.parent.mkdir(parents=True, exist_ok=True)
        write_state(place, tuple(members), (Member,))

    def ensemble_of(self, trial_id: str) -> tuple[Member, ...]:
        """Return the prompts of one trial that are read together; none where its best is alone.

        Raises:
            StateError: the file is not whole.
        """
        place = self._prompt_of(trial_id, "txt").with_name("ensemble.state")
        if not place.exists():
            return ()
        found = read_state(place, (Member,))
        if not isinstance(found, tuple) or not all(isinstance(one, Member) and one.is_whole for one in found):
            raise StateError(
                f"{self.shown(place)} must hold the prompts of a trial's ensemble, but it does not; copy it back from"
                " where the run was made, or start a new run"
            )
        return found

    def keep_baseline_head(self, split_seed: int, state: Mapping[str, Array64]) -> None:
        """Keep what was fitted to read the manual prompt by on one split."""
        self._write_arrays(self.path / "baseline" / f"split-{split_seed}.npz", state)

    def baseline_head(self, split_seed: int) -> dict[str, Array64]:
        """Return what was fitted to read the manual prompt by on one split; nothing where nothing was."""
        return self._read_arrays(self.path / "baseline" / f"split-{split_seed}.npz")

    def _write_arrays(self, place: Path, arrays: Mapping[str, Array64]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        named: dict[str, Any] = dict(arrays)
        with written(place) as file:
            np.savez(file, allow_pickle=False, **named)

    def _read_arrays(self, place: Path) -> dict[str, Array64]:
        arrays = read_arrays(place) if place.exists() else {}
        return {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}

    def _prompt_of(self, trial_id: str, ending: str) -> Path:
        self.require_trial_name(trial_id)
        return self.path / "trials" / trial_id / f"prompt.{ending}"

    def require_trial_name(self, trial_id: str) -> None:
        """Check that a trial's name, of which folders are named, leads nowhere else.

        Raises:
            RunDirectoryError: it does.
        """
        if Path(trial_id).name != trial_id or trial_id in ("", ".."):  # a config.json that somebody has changed
            raise RunDirectoryError(
                f"a trial's name is one folder's, but {self.shown(self.config)} has {trial_id!r}; start a new run"
            )

    def require_new(self) -> None:
        """Check that nothing is here yet.

        Raises:
            RunDirectoryError: the directory is there already and not empty.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            what = "is a file" if not self.path.is_dir() else "holds a run" if self.config.exists() else "is not empty"
            raise RunDirectoryError(_taken(self.name, what))

    def create(self) -> None:
        """Make the directory, which must be new. Ledger and report hold prompts and data, so it is private."""
        self.require_new()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def require_plain(self) -> None:
        """Check that what is here are files and folders. Archives and repositories carry links as well, and what is
        written or read through one is somebody else's.

        Raises:
            RunDirectoryError: there is a link, a pipe, a device.
        """
        odd = next(_odd_ones(self.path, LINKED), None) if self.path.is_dir() else None
        if odd is not None:
            what = "a link" if odd.is_symlink() else "neither file nor folder"
            raise RunDirectoryError(
                f"a run directory holds files and folders of its own, but {odd} is {what}; nothing was read or written:"
                " remove it, or copy the run if you know what is there (cp -rL)"
            )

    def require(self) -> None:
        """Check that a run is here.

        Raises:
            RunDirectoryError: there is none.
        """
        if not self.config.is_file():
            raise RunDirectoryError(
                f"a run directory must hold config.json, but {self.name} does not; check the path, or start a run"
            )

    def read_config(self) -> dict[str, Any]:
        """Return what config.json holds.

        Raises:
            RunDirectoryError: there is none, or no run has written it.
        """
        self.require()
        name = self.shown(self.config)
        config = read_json(self.config, name=name)
        if not isinstance(config, dict) or "trials" not in config:
            raise RunDirectoryError(
                f"{name} must list the run's trials, but it does not; check the path, or start a new run"
            )
        return config

    def recorded(self) -> Recorded:
        """Return what config.json tells.

        Raises:
            RunDirectoryError: there is none, or no run has written it.
        """
        return Recorded.of(self.read_config(), self.shown(self.config))

    def record_oracle(self, oracle: dict[str, Any]) -> None:
        """Write the oracle's settings, as the run has come to decide them, into config.json for all trials."""
        config = self.read_config()
        for tree in (config.get("experiment"), *(trial.get("config") for trial in config["trials"])):
            if tree is not None:
                tree["oracle"] = oracle
        write_json(self.config, config)


@contextmanager
def opened(place: str) -> Iterator[RunDirectory]:
    """Give the run at a path or URI, to be read. That of a URI is fetched into a temporary folder.

    Raises:
        RunDirectoryError: there is none, or it cannot be used; there are links in it.
        StorageError: the store cannot be reached.
    """
    uri = remote_of(place)
    if uri is None:
        directory = RunDirectory(path_of(place))
        with using(directory.path):
            directory.require_plain()
            yield directory
        return
    with tempfile.TemporaryDirectory(prefix="prompt-tuner-") as folder:
        mirror = Mirror(Path(folder), Remote(uri))
        with reaching(uri):
            mirror.fill()
        yield RunDirectory(Path(folder), mirror)


@contextmanager
def kept(place: str, resume: bool, say: Callable[[str], None]) -> Iterator[RunDirectory]:
    """Give the directory of a run that is about to begin, or to go on (``resume``), at a path or URI.

    A run at a URI is worked on in a folder of this machine, and sent there while it goes on and at the end. ``say`` is
    told what a person should know of that.

    Raises:
        RunDirectoryError: a new run would write over another; another process writes there; a directory cannot be made
            or used, or there are links in it.
        StorageError: the store cannot be reached, or did not take the end of the run.
    """
    uri = remote_of(place)
    if uri is None:
        directory = RunDirectory(path_of(place))
        with using(directory.path), nullcontext() if resume else _made(directory):
            directory.require_plain()
            directory.inbox.drop(STOP)  # of an earlier session
            yield directory
        return
    remote = Remote(uri)
    folder = staging_folder(uri)
    lease, mirror = Lease(remote, say), Mirror(folder, remote, say)
    with reaching(uri):
        lease.take(patient=resume)
        try:
            _begin(mirror, resume)
        except BaseException:
            lease.give_back()
            raise
    mirror.start(lease)
    try:
        yield RunDirectory(folder, mirror)
    except BaseException:
        try:
            mirror.close()
            shutil.rmtree(folder, ignore_errors=True)
        except StorageError as error:
            say(str(error))
        raise
    mirror.close()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _made(directory: RunDirectory) -> Iterator[None]:
    """Make the directory of a new run; it is taken away again where the run ends and nothing is in it."""
    directory.require_new()
    new = [place for place in (directory.path, *directory.path.parents) if not os.path.lexists(place)]
    try:
        directory.create()
        yield
    except BaseException:
        for place in new:
            with suppress(OSError):  # one that is not empty stays, and those above it
                place.rmdir()
        raise


def _odd_ones(folder: Path, linked: Collection[str] = ()) -> Iterator[Path]:
    """Yield what is neither file nor folder below ``folder``; within those named in ``linked`` links are in order."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:  # a run that goes on removes its old checkpoints
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in linked:
                    yield from _odd_ones(folder / entry.name)
            elif not entry.is_file(follow_symlinks=False):
                yield folder / entry.name


def _begin(mirror: Mirror, resume: bool) -> None:
    """Lay out the local copy: as it is at the remote, or empty for a new run, which needs a place of its own."""
    if resume:
        Inbox(mirror.folder, mirror.remote).drop(STOP)  # of an earlier session
        mirror.fill()
        return
    there = [found.name for found in mirror.remote.found()]
    if there:
        what = "holds a run" if "config.json" in there else "is not empty"
        raise RunDirectoryError(_taken(str(mirror.remote.uri), what))
    shutil.rmtree(mirror.folder, ignore_errors=True)
    mirror.folder.mkdir(mode=0o700, parents=True)


def _taken(name: str, what: str) -> str:
    go_on = "continue it with --resume, or " if what == "holds a run" else ""
    return f"a run needs a directory of its own, but {name} {what}; {go_on}choose another with --out DIR"


def data_root(config: Recorded, otherwise: Path) -> Path:
    """Return the folder in which relative data paths of a run are looked up: where its search space lay, or
    ``otherwise`` where that is gone, as the upload of a job is."""
    root = otherwise if config.root is None else Path(config.root)
    return root if root.is_dir() else otherwise


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
