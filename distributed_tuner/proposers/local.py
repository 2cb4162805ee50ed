"""A chat model of transformers on this machine: proposals without network and without a bill."""

import time
from typing import Any

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.config.proposer import LocalProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.oracles.generation import TOP_P, instruction_ids, require_room
from distributed_tuner.proposers.base import Ask
from distributed_tuner.seeds import seed_of
from distributed_tuner.values import Answer, Sampling


class LocalProposer:
    """Generates with one model. The same ask gives the same answer on machines that compute alike.

    Raises:
        ModelError: the model cannot be found or loaded.
    """

    def __init__(self, config: LocalProposerConfig) -> None:
        import torch

        from distributed_tuner.oracles.local.loading import load_chat_model, load_tokenizer

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

        from distributed_tuner.oracles.local.row_limits import context_of

        began = time.perf_counter()
        ids = instruction_ids(self._tokenizer, ask.instruction)
        sampling = Sampling(self._config.max_tokens, self._config.temperature, seed_of(ask.key))
        require_room(len(ids), sampling, context_of(self._model.config))
        drawn: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": TOP_P}
        ids_1_T = torch.tensor([ids], device=self._model.device)
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(sampling.seed)
            try:
                made = self._model.generate(
                    ids_1_T,
                    attention_mask=torch.ones_like(ids_1_T),
                    max_new_tokens=sampling.max_tokens,
                    pad_token_id=self._padding(),
                    **drawn,
                )[0, len(ids) :]
            except RuntimeError as error:  # out of memory, or probabilities that are not finite
                reason = str(error).partition("\n")[0]
                raise ProposerError(f"{self._config.model} could not generate ({reason}); try another model") from None
        text = self._tokenizer.decode(made, skip_special_tokens=True)
        return Answer(text, len(ids), len(made), time.perf_counter() - began)

    def _padding(self) -> Any:
        tokenizer = self._tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
