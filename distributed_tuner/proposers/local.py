"""A chat model of transformers on this machine: proposals without network and without a bill."""

import time

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.config.proposer import LocalProposerConfig
from distributed_tuner.oracles.generation import generated, instruction_ids
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
        began = time.perf_counter()
        ids = instruction_ids(self._tokenizer, ask.instruction)
        sampling = Sampling(self._config.max_tokens, self._config.temperature, seed_of(ask.key))
        made = generated(self._model, self._tokenizer, ids, sampling)
        text = self._tokenizer.decode(made, skip_special_tokens=True)
        return Answer(text, len(ids), len(made), time.perf_counter() - began)
