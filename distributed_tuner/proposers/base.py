"""The contract of every proposer: one instruction in, one answer in words out. What answers mean is parsing.py's."""

from dataclasses import dataclass
from typing import Protocol

from distributed_tuner.seeds import Key
from distributed_tuner.values import Answer, Sampling


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``key`` (trial_id, stage or "screen", number) names it within a run: what is random in the answer
    follows from it, and a recorded answer is found again by it."""

    instruction: str
    count: int
    """Number of prompts wanted."""
    key: Key


class Proposer(Protocol):
    """Writes prompts.

    **A proposer of your own** (docs/extending.md) is a class with these two members, made with the keyword argument
    ``tuned`` (a ``TunedModel``), then its own settings: in an actor of its own and, to see that it can be, by
    ``check``. It may answer with a plain text. What it raises costs the stage its proposals.
    """

    @property
    def label(self) -> str:
        """Kind and model, for ledger and report: "openai gpt-4.1", "local smollm2-135m"."""
        ...

    def answer(self, ask: Ask) -> Answer:
        """Answer a request.

        Raises:
            ProposerError: no answer is to be had, after all attempts; the message says why, and holds no key.
        """
        ...


class TunedModel(Protocol):
    """Interface of the tuned model for proposers."""

    @property
    def name(self) -> str:
        """The model, as the oracle's settings name it."""
        ...

    def words(self) -> tuple[str, ...]:
        """Return the tokens that prompts may be made of, each with its leading space if it has one."""
        ...

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        """Answer an instruction.

        Raises:
            ProposerError: there is no answer.
        """
        ...
