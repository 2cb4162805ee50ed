"""The space that the prompts of a trial live in: rows of embeddings, or words.

What stages do with a prompt beside asking for its loss is said here once for each sort: where a search can start from
it, what it is in words, what is kept of it. Stages then need not know which sort they tune.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distributed_tuner.config.prompt import PromptConfig, TextPromptConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.oracles.codec import codec_of
from distributed_tuner.prompts.spec import prompt_spec, start_text
from distributed_tuner.stages.coordinates import coordinates
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Candidate, Embedded, Point, PromptSpec, Start, Text, TokenSpace

WORDS_A_ROW = 0.75  # of a soft prompt; a word is a token or two
A_WORD = "prompt"  # of the text by which costs are planned
STAND_INS = ("a", "b")  # for the words of a tokenizer


class PromptSpace(Protocol):
    """One sort of prompt."""

    @property
    def spec(self) -> PromptSpec:
        """The soft prompt in requests."""
        ...

    @property
    def dim(self) -> int:
        """The size of a prompt for optimizers."""
        ...

    @property
    def start(self) -> Start:
        """Start point of the prompt."""
        ...

    @property
    def sample(self) -> Candidate:
        """A prompt that costs about what any other costs (soft ones: exactly), to plan with."""
        ...

    @property
    def most_words(self) -> int:
        """Maximum number of words of a proposal."""
        ...

    def of_text(self, text: str) -> Candidate:
        """Return a text as a prompt of this space."""
        ...

    def at(self, place: Start) -> Candidate:
        """Return the prompt at a place."""
        ...

    def place(self, model: LossOracle, candidate: Candidate) -> Start:
        """Return where a search starts from a prompt."""
        ...

    def texts(self, model: LossOracle, candidates: Sequence[Candidate], tokens: TokenSpace) -> list[str]:
        """Return prompts in words."""
        ...

    def is_too_long(self, model: LossOracle, text: str) -> bool:
        """Tell whether a text is more than this space's prompts hold, so that its end is lost."""
        ...

    def vocabulary(self, model: LossOracle) -> tuple[str, ...]:
        """Return the words that a search may take; none where the search is not in words."""
        ...

    def words_beforehand(self, has_tokenizer: bool) -> tuple[str, ...]:
        """Return words that a search may take, as far as they are known without the model, and stand-ins for its own.

        Raises:
            ModelError: they would be those of a tokenizer that is not known.
        """
        ...

    def kept(self, model: LossOracle, candidate: Candidate) -> Array | str:
        """Return what is kept of a selected prompt: its rows (L, D), or its words."""
        ...


@dataclass(frozen=True, slots=True)
class SoftSpace:
    """Rows of embeddings, L of width D: a place is the coordinates, shape (P,). A prompt in words, which a screen may
    have found, has none: a search that would start from it starts where all do."""

    spec: PromptSpec
    dim: int

    @property
    def start(self) -> Start:
        return np.zeros(self.dim, dtype=np.float32)

    @property
    def sample(self) -> Candidate:
        return self.at(self.start)

    @property
    def most_words(self) -> int:
        return max(1, int(WORDS_A_ROW * self.spec.length))

    def of_text(self, text: str) -> Candidate:
        return Embedded(text)

    def at(self, place: Start) -> Candidate:
        assert not isinstance(place, str)
        return Point(place)

    def place(self, model: LossOracle, candidate: Candidate) -> Start:
        return self.start if isinstance(candidate, Text) else coordinates(model, candidate, self.spec)

    def texts(self, model: LossOracle, candidates: Sequence[Candidate], tokens: TokenSpace) -> list[str]:
        codec = codec_of(model)
        rows = [codec.materialize(candidate, self.spec) for candidate in candidates]
        return codec.project(rows, self.spec.layout, tokens)

    def is_too_long(self, model: LossOracle, text: str) -> bool:
        return codec_of(model).token_count(text) > self.spec.length

    def vocabulary(self, model: LossOracle) -> tuple[str, ...]:
        return ()

    def words_beforehand(self, has_tokenizer: bool) -> tuple[str, ...]:
        return ()

    def kept(self, model: LossOracle, candidate: Candidate) -> Array | str:
        return candidate.text if isinstance(candidate, Text) else codec_of(model).materialize(candidate, self.spec)


@dataclass(frozen=True, slots=True)
class WordSpace:
    """Words in front of the text: a place is the text itself. ``dim``: most words that a search puts together."""

    spec: PromptSpec
    dim: int
    start: Start
    allowed: str
    """Of ``TextPromptConfig.vocabulary``."""
    task_words: tuple[str, ...]

    @property
    def sample(self) -> Candidate:
        return Text(" ".join([A_WORD] * max(self.dim, len(str(self.start).split()))))

    @property
    def most_words(self) -> int:
        return self.dim

    def of_text(self, text: str) -> Candidate:
        return Text(text)

    def at(self, place: Start) -> Candidate:
        assert isinstance(place, str)
        return Text(place)

    def place(self, model: LossOracle, candidate: Candidate) -> Start:
        return _text(candidate)

    def texts(self, model: LossOracle, candidates: Sequence[Candidate], tokens: TokenSpace) -> list[str]:
        return [_text(candidate) for candidate in candidates]

    def is_too_long(self, model: LossOracle, text: str) -> bool:
        return False

    def vocabulary(self, model: LossOracle) -> tuple[str, ...]:
        if self.allowed == "task":
            return self.task_words
        space = TokenSpace("printable" if self.allowed == "printable" else "words")
        return self._chosen(codec_of(model).vocabulary(space))

    def words_beforehand(self, has_tokenizer: bool) -> tuple[str, ...]:
        return self.task_words if self.allowed == "task" else self._chosen(STAND_INS if has_tokenizer else ())

    def _chosen(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tokenizer's words, or the task's where it has none and that is left open."""
        if not words and self.allowed != "auto":
            raise ModelError(
                f"prompt.vocabulary: {self.allowed} takes the words of the model's tokenizer, but it is not known; set"
                " oracle.tokenizer, or prompt.vocabulary: task"
            )
        return words or self.task_words

    def kept(self, model: LossOracle, candidate: Candidate) -> Array | str:
        return _text(candidate)


def prompt_space(config: PromptConfig, task: Task, width: int) -> PromptSpace:
    """Return the space of an experiment's prompts. ``width``: D of the model; not used where prompts are words.

    Raises:
        ConfigError: the layout is still "auto", or there is no text to start from where one is needed.
    """
    spec = prompt_spec(config, task)
    if isinstance(config, TextPromptConfig):
        return WordSpace(spec, config.length, start_text(config, task), config.vocabulary, _task_words(task))
    return SoftSpace(spec, spec.length * width)


def _task_words(task: Task) -> tuple[str, ...]:
    """Return the different words of the manual prompt, the description, the label words and the train examples."""
    sources = [task.manual_prompt, task.description, *task.label_words, *(example.text for example in task.train)]
    return tuple(dict.fromkeys(word for source in sources for word in re.findall(r"\w[\w'-]*", source)))


def words_of(candidate: Candidate) -> str | None:
    """Return a prompt's words; None of a soft one."""
    return candidate.text if isinstance(candidate, Text) else None


def _text(candidate: Candidate) -> str:
    assert isinstance(candidate, Text)
    return candidate.text
