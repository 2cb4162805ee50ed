"""The contract of every proposer: one instruction in, one answer in words out. What answers mean is parsing.py's."""

from dataclasses import dataclass
from typing import Protocol

from distributed_tuner.seeds import Key


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``key`` (trial_id, stage, number) names it within a run: what is random in the answer follows from
    it, and a recorded answer is found again by it."""

    instruction: str
    count: int
    """How many prompts are wanted."""
    key: Key


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, as it came, and what it took. ``usd`` at the prices of the proposer's settings."""

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    usd: float = 0.0


class Proposer(Protocol):
    """Writes prompts."""

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
