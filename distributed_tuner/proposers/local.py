"""A chat model of transformers on this machine: proposals without network and without a bill."""

import time
from typing import Any

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.config.proposer import LocalProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.proposers.base import Answer, Ask
from distributed_tuner.seeds import seed_of


class LocalProposer:
    """Generates with one model. The same ask gives the same answer on machines that compute alike.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    def __init__(self, config: LocalProposerConfig) -> None:
        import torch

        from distributed_tuner.oracles.models import load_chat_model, load_tokenizer

        torch.set_num_threads(config.threads)
        self._config = config
        where = TransformersOracleConfig(kind="transformers", model=config.model, device=config.device)
        self._tokenizer = load_tokenizer(where)
        self._model = load_chat_model(where)
        self.label = f"local {config.model}"

    def answer(self, ask: Ask) -> Answer:
        """Generate an answer, sampled with the seed of the ask's key; greedy at temperature 0.

        Raises:
            ProposerError: the instruction leaves no room for an answer in the model's context, or the model fails.
        """
        import torch

        began = time.perf_counter()
        ids = self._encoded(ask.instruction)
        self._require_room(len(ids[0]))
        sampling: dict[str, Any] = {"do_sample": False}
        if self._config.temperature > 0:
            sampling = {"do_sample": True, "temperature": self._config.temperature, "top_k": 0, "top_p": 0.95}
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed_of(ask.key))
            try:
                made = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self._config.max_tokens,
                    pad_token_id=self._padding(),
                    **sampling,
                )[0, len(ids[0]) :]
            except RuntimeError as error:  # out of memory, or probabilities that are not finite
                reason = str(error).partition("\n")[0]
                raise ProposerError(f"{self._config.model} could not generate ({reason}); try another model") from None
        text = self._tokenizer.decode(made, skip_special_tokens=True)
        return Answer(text, len(ids[0]), len(made), time.perf_counter() - began)

    def _encoded(self, instruction: str) -> Any:
        """Return the ids (1, T), by the model's chat template if it has one."""
        tokenizer = self._tokenizer
        if not getattr(tokenizer, "chat_template", None):
            return tokenizer(instruction + "\n", return_tensors="pt")["input_ids"].to(self._model.device)
        messages = [{"role": "user", "content": instruction}]
        encoded = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        return encoded["input_ids"].to(self._model.device)

    def _require_room(self, tokens: int) -> None:
        from distributed_tuner.oracles.transformers import context_of

        context = context_of(self._model.config)
        if tokens + self._config.max_tokens > context:
            raise ProposerError(
                f"instruction and answer must fit into the model's {context} tokens, but they may have"
                f" {tokens} + {self._config.max_tokens}; lower proposer.max_tokens or the stage's shown"
            )

    def _padding(self) -> Any:
        tokenizer = self._tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
