"""The engine that answers the run's loss queries writes its prompts as well: no second model is loaded."""

from distributed_tuner.config.proposer import VllmProposerConfig
from distributed_tuner.proposers.base import Ask, TunedModel
from distributed_tuner.seeds import seed_of
from distributed_tuner.values import Answer, Sampling


class VllmProposer:
    """Asks the pool's engines, which answer between two tiles of losses."""

    def __init__(self, config: VllmProposerConfig, tuned: TunedModel) -> None:
        self._config = config
        self._tuned = tuned
        self.label = f"{config.kind} {tuned.name}"

    def answer(self, ask: Ask) -> Answer:
        """Have an engine write, sampled with the seed of the ask's key; greedy at temperature 0.

        Raises:
            ProposerError: the instruction leaves no room for an answer in the engine's context.
        """
        config = self._config
        return self._tuned.write(ask.instruction, Sampling(config.max_tokens, config.temperature, seed_of(ask.key)))
