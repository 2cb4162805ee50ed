"""The two sides of a comparison: this tree and another revision's, each with processes of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import psutil  # type: ignore[import-untyped]

from distributed_tuner.values import Batch, PromptSpec

Name: TypeAlias = Literal["here", "there"]

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(__file__).resolve().parent / "side_script.py"
UNSHARED = ("PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH", "RAY_ADDRESS")  # variables that no side gets
END_SECONDS = 60.0  # in which a process that was asked to end may do so


class RevisionError(Exception):
    """There is no tree of a revision: it is no commit, or git cannot be asked."""


@dataclass(frozen=True, slots=True)
class Side:
    """A tree, and what it is called."""

    name: Name
    tree: Path

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the variables of this side's processes: those given (None: this process's), and its own path."""
        kept = {name: value for name, value in (variables or os.environ).items() if name not in UNSHARED}
        others = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path and Path(path) != ROOT]
        path = os.pathsep.join([str(self.tree), *others])
        return {"TOKENIZERS_PARALLELISM": "false", **kept, "PYTHONPATH": path}


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides."""

    here: Side
    there: Side

    def __iter__(self) -> Iterator[Side]:
        return iter((self.here, self.there))

    def named(self, name: Name) -> Side:
        """Return the side of a name."""
        return self.here if name == "here" else self.there


@dataclass(frozen=True, slots=True)
class Taken:
    """Wall-clock seconds of requests, and CPU seconds of the process that asked: with its oracle, if that is in it."""

    seconds: float
    cpu: float


@contextmanager
def worktree(revision: str, repository: Path = ROOT) -> Iterator[Path]:
    """Have a detached working tree of a revision in a temporary folder.

    Raises:
        RevisionError: it is no commit, or git or the repository is not there.
    """
    commit = commit_of(revision, repository)
    with tempfile.TemporaryDirectory(prefix="against-") as folder:
        tree = Path(folder).resolve() / "tree"
        try:
            added = _git(repository, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(tree), commit)
            if added.returncode:
                raise RevisionError(f"git could not make a working tree of {revision}: {_last_line(added.stderr)}")
            yield tree
        finally:
            _git(repository, "worktree", "remove", "--force", str(tree))


def commit_of(revision: str, repository: Path = ROOT) -> str:
    """Return the full name of a revision's commit.

    Raises:
        RevisionError: it is no commit, or git or the repository is not there.
    """
    if _git(repository, "rev-parse", "--git-dir").returncode:
        raise RevisionError(f"the tree must be one of a git repository, but {repository} is not; clone it with git")
    found = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode:
        raise RevisionError(
            f"the revision must be a commit of this repository, but {revision!r} is none; `git log --oneline` lists"
            " commits"
        )
    return found.stdout.strip()


def _git(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Ask git, in a process group of its own: what a terminal interrupts is this process, which then cleans up."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=repository, capture_output=True, text=True, check=False, process_group=0
        )
    except FileNotFoundError:
        raise RevisionError("git must be installed to get at another revision, but there is no such command") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it did not say why"])[-1]


class Asker:
    """A process that asks one side's oracle: ``facts`` must be awaited before the first command."""

    def __init__(self, side: Side, config: Mapping[str, object], pool: bool) -> None:
        self.side = side
        self.facts: dict[str, Any] = {}
        self._owes = 0  # answers
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=side.tree,
            env=side.environment(),
            text=True,
            process_group=0,
        )
        self._send({"config": dict(config), "pool": pool})

    def wait(self) -> None:
        """Wait until the oracle answers.

        Raises:
            RuntimeError: it cannot be had, or is not this side's.
        """
        self.facts = self._receive()
        package = Path(self.facts["package"]).resolve()
        if not package.is_relative_to(self.side.tree.resolve()):
            raise RuntimeError(f"{self.side.name} must use the package in {self.side.tree}, but uses {package}")

    def set_task(self, batch: Batch, prompt: PromptSpec) -> None:
        """Say which texts and which prompt the commands from here on are about."""
        told = {"examples": [asdict(one) for one in batch.examples], "label_words": batch.label_words}
        self._ask({"do": "task", "batch": {**told, "split": batch.split}, "prompt": asdict(prompt)})

    def ask(self, candidates: int, requests: int) -> Taken:
        """Return what so many requests took."""
        return Taken(**self._ask({"do": "rate", "candidates": candidates, "requests": requests}))

    def losses(self, points: list[list[float]]) -> list[list[float]]:
        """Return the example losses of explicit coordinates."""
        losses: list[list[float]] = self._ask({"do": "losses", "points": points})["losses"]
        return losses

    def matmul_rate(self) -> float:
        """Return the operations a second of a large matrix product in the oracle's dtype, now."""
        return float(self._ask({"do": "matmul", "dtype": self.facts["dtype"]})["rate"])

    def stop(self) -> None:
        """End the process, its Ray with it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        there = below(self._process.pid)
        if self._owes:  # this process was interrupted, and it would work on for as long as it takes
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._process.stdout.close()
            kill(there)

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        self._send(command)
        return self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._owes += 1
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._dead() from None

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._dead()
        self._owes -= 1
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _dead(self) -> RuntimeError:
        return RuntimeError(f"the process of {self.side.name} ({self.side.tree}) died; its error stands above")


def below(pid: int) -> list[psutil.Process]:
    """Return a process and all below it, as far as they are still there."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def kill(processes: list[psutil.Process]) -> None:
    """Kill those that are still there; an id that another process has got meanwhile is left alone."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
