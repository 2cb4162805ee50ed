"""Models that write: an instruction in, an answer in words out. What is alike for whoever makes the tokens."""

from typing import Any, Protocol, runtime_checkable

from distributed_tuner.errors import ModelError, ProposerError
from distributed_tuner.values import Answer, Sampling

TOP_P = 0.95  # the least likely twentieth is never written


@runtime_checkable
class Writer(Protocol):
    """An oracle whose model writes as well."""

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        """Answer an instruction; the same one, with the same seed, in the same words.

        Raises:
            ProposerError: the instruction leaves no room for an answer in the model's context, or the model fails.
            ModelError: the oracle does not write.
        """
        ...


def writer(oracle: object) -> Writer:
    """Return an oracle as one that writes.

    Raises:
        ModelError: it does not.
    """
    if isinstance(oracle, Writer):
        return oracle
    raise ModelError(
        f"a proposer of kind vllm needs an oracle that writes, which {type(oracle).__name__} does not; set oracle.kind:"
        " vllm, or proposer.kind: local"
    )


def instruction_ids(tokenizer: Any, instruction: str) -> list[int]:
    """Return the tokens of an instruction, by the model's chat template if it has one."""
    if not getattr(tokenizer, "chat_template", None):
        plain: list[int] = tokenizer(instruction + "\n")["input_ids"]
        return plain
    messages = [{"role": "user", "content": instruction}]
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    ids: list[int] = encoded["input_ids"]
    return ids


def require_room(tokens: int, sampling: Sampling, context: int) -> None:
    """Check that an instruction of so many tokens leaves room for its answer.

    Raises:
        ProposerError: it does not.
    """
    if tokens + sampling.max_tokens > context:
        raise ProposerError(
            f"instruction and answer must fit into the model's {context} tokens, but they may have"
            f" {tokens} + {sampling.max_tokens}; lower proposer.max_tokens or the stage's shown"
        )
