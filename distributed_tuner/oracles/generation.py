"""Text generation: an instruction in, an answer in words out; the part common to all backends."""

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


def generated(model: Any, tokenizer: Any, ids: list[int], sampling: Sampling) -> list[int]:
    """Return the tokens that a model of transformers writes behind ``ids``.

    Raises:
        ProposerError: ids and answer do not fit into the context, or the model fails.
    """
    import torch

    from distributed_tuner.oracles.local.row_limits import context_of

    require_room(len(ids), sampling, context_of(model.config))
    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": TOP_P}
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids_1_T = torch.tensor([ids], device=model.device)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(sampling.seed)
        try:
            made_1_T = model.generate(
                ids_1_T,
                attention_mask=torch.ones_like(ids_1_T),
                max_new_tokens=sampling.max_tokens,
                pad_token_id=padding,
                **drawn,
            )
        except RuntimeError as error:  # out of memory, or probabilities that are not finite
            reason = str(error).partition("\n")[0]
            raise ProposerError(f"the model could not generate ({reason}); try another model") from None
    made: list[int] = made_1_T[0, len(ids) :].tolist()
    return made
