"""Random words: the control that tells whether it is the LLM that helps, or starting somewhere else."""

from distributed_tuner.config.proposer import RandomProposerConfig
from distributed_tuner.errors import ProposerError
from distributed_tuner.proposers.base import Ask, TunedModel
from distributed_tuner.seeds import generator
from distributed_tuner.values import Answer

FEWEST, MOST = 3, 9  # words of a prompt


class RandomProposer:
    """Answers with as many lines of random words as are asked for; the same words for the same key."""

    def __init__(self, config: RandomProposerConfig, tuned: TunedModel) -> None:
        self._tuned = tuned
        self.label = config.kind

    def answer(self, ask: Ask) -> Answer:
        """Draw the words. The instruction is not read.

        Raises:
            ProposerError: there are no words.
        """
        words = self._tuned.words()
        if not words:
            raise ProposerError("random prompts need allowed tokens, but the model has none; choose another proposer")
        draw = generator((*ask.key, "random words"))
        lines = []
        for _ in range(ask.count):
            chosen = draw.integers(len(words), size=int(draw.integers(FEWEST, MOST + 1)))
            lines.append(" ".join(words[int(i)].strip() for i in chosen))
        return Answer("\n".join(lines))
