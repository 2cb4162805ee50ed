"""Job of a peer and its result, as two JSON files. Standard library only: peers run in other environments."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LAST = "{{ messages[-1]['content'] }}"
"""A chat template by which the model reads the last message as it is."""
ALL = "{{ messages | map(attribute='content') | join('\n') }}"
"""A chat template by which the model reads all messages, a line each."""
TEMPERATURE = 0.7  # of a proposer, where the package asks for none


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled row: ``text``, the ``cue`` before the label word, and the ``answer``, that word without its space."""

    text: str
    cue: str
    answer: str


@dataclass(frozen=True, slots=True)
class Job:
    """One task for one peer.

    url: of the loopback server, up to /v1. model: its name there. weights: where the model lies. instructions: the
    manual prompt first. forwards, proposals, seconds: what may be spent, in example forwards. write_tokens: of each
    proposal at most. folder: for what the package writes.
    """

    url: str
    model: str
    weights: str
    instructions: tuple[str, ...]
    description: str
    label_words: tuple[str, ...]
    train: tuple[Row, ...]
    dev: tuple[Row, ...]
    forwards: int
    proposals: int
    seconds: float
    write_tokens: int
    seed: int
    threads: int
    folder: str

    @property
    def instruction(self) -> str:
        """The manual prompt."""
        return self.instructions[0]

    def asked_for_label(self, chat_template: str) -> dict[str, Any]:
        """Return what a request for a label holds beside the messages, in vLLM's words."""
        return {"chat_template": chat_template, "structured_outputs": {"choice": list(self.label_words)}}


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a peer would ship: ``words`` in front of the text, or the rows of a PEFT ``adapter``.

    cue, label_words: its own, where it has other ones than the task's. ended: what ended its search, unless the server
    refused. told: what the package says of its own spending, and whatever else there is to tell.
    """

    words: str | None = None
    adapter: str | None = None
    cue: str | None = None
    label_words: tuple[str, ...] | None = None
    ended: str = ""
    told: dict[str, Any] = field(default_factory=dict)


def demonstrated(instruction: str, demos: Sequence[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    """Return what stands in front of a text: an instruction, and rows with their label words, by label."""
    shown = [f"{demo['text']}{words[str(demo['label']).strip()]}" for demo in demos]
    return "\n\n".join([instruction, *shown]) + ("\n" if shown else "")


def cued_template(cue: str, own: str) -> str:
    """Return a chat template: the last message, then ``own`` where that holds it as well, else ``cue``."""
    return f"{LAST}{{{{ {json.dumps(own)} if {json.dumps(own)} in messages[-1]['content'] else {json.dumps(cue)} }}}}"


def trials_of(job: Job, candidates: int, tries: int = 16) -> int:
    """Return the evaluations on dev that the forwards pay for, beside the first and ``tries`` rows a candidate."""
    bootstrapping = candidates * min(tries, len(job.train))
    return max(1, (job.forwards - bootstrapping) // len(job.dev) - 1)


def write_job(job: Job, path: Path) -> None:
    """Write a job for a peer to read."""
    path.write_text(json.dumps(asdict(job), indent=1), encoding="utf-8")


def read_job(path: Path) -> Job:
    """Read a job."""
    told = json.loads(path.read_text(encoding="utf-8"))
    rows = {split: tuple(Row(**row) for row in told[split]) for split in ("train", "dev")}
    lists = {name: tuple(told[name]) for name in ("instructions", "label_words")}
    return Job(**{**told, **rows, **lists})


def write_shipped(shipped: Shipped, path: Path) -> None:
    """Write what a peer ships."""
    path.write_text(json.dumps(asdict(shipped), indent=1), encoding="utf-8")


def read_shipped(path: Path) -> Shipped:
    """Read what a peer ships."""
    told = json.loads(path.read_text(encoding="utf-8"))
    words = told.pop("label_words")
    return Shipped(**told, label_words=None if words is None else tuple(words))


def main(search: Callable[[Job], Shipped]) -> None:
    """Run a peer's search on the job that the command line names; its answer goes to the second path."""
    job, shipped = map(Path, sys.argv[1:3])
    write_shipped(search(read_job(job)), shipped)
