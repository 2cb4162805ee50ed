"""A vLLM engine as a loss oracle: one sequence a candidate and example, all of a request in flight together.

What a sequence looks like is soft_lines.py's: embeddings for soft candidates, token ids for texts. Rows of a request
that begin alike share keys and values through the engine's prefix cache.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from distributed_tuner.config.oracle import VllmOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import answer, priced
from distributed_tuner.oracles.generation import instruction_ids, require_room
from distributed_tuner.oracles.served.prompt_embeds import SoftLines
from distributed_tuner.oracles.served.vllm_engine import MOST_LABELS, Sequenced, VllmEngine
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import (
    Answer,
    Candidate,
    Cost,
    Evaluation,
    OracleInfo,
    Request,
    Sampling,
    Text,
)


class VllmOracle:
    """Answers loss queries of one causal model. Not thread-safe: one request at a time.

    Raises:
        ModelError: vLLM is not installed here, or the model cannot be found, loaded or used.
    """

    def __init__(self, config: VllmOracleConfig) -> None:
        self._config = config
        self._engine = VllmEngine(config)
        self._lines = SoftLines(config, self._engine.dtype, self._engine.context)
        lines, engine = self._lines, self._engine
        self._info = OracleInfo(
            model=config.model,
            width=lines.width,
            vocabulary=lines.vocabulary_size,
            context=lines.context,
            embedding_std=lines.embedding_std,
            dtype=engine.dtype,
            device=engine.device,
            extra={"engine": f"vllm {engine.version}"},
            answer_words=MOST_LABELS,
        )

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def codec(self) -> PromptRows:
        return self._lines.rows

    def cost(self, request: Request) -> Cost:
        return priced(self._lines.cost(request), self._config.price)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        began = time.perf_counter()
        if request.gradient:
            raise ModelError("a vLLM engine gives no gradients; set oracle.kind: transformers")
        batch, prompt = request.batch, request.prompt
        label_ids = self._lines.answer_ids(batch)
        self._lines.require_fit(request.candidates, batch, prompt)
        sequences = [one for candidate in request.candidates for one in self._sequences(candidate, request)]
        shape = (len(request.candidates), len(batch.examples), len(label_ids))
        scores = self._engine.logits(sequences, label_ids).reshape(shape)
        cost = replace(self._lines.cost(request), seconds=time.perf_counter() - began)
        return answer(scores, batch, priced(cost, self._config.price))

    def write(self, instruction: str, sampling: Sampling) -> Answer:
        """Answer an instruction in words, between two requests for losses.

        Raises:
            ProposerError: the instruction leaves no room for an answer in the engine's context.
        """
        began = time.perf_counter()
        tokenizer = self._lines.tokenizer
        ids = instruction_ids(tokenizer, instruction)
        require_room(len(ids), sampling, self._lines.context)
        made = self._engine.write(ids, sampling, self._lines.end_ids)
        seconds = time.perf_counter() - began
        took = Cost(tokens=len(ids) + len(made), seconds=seconds, output_tokens=len(made))
        usd = priced(took, self._config.price).usd
        text: str = tokenizer.decode(made, skip_special_tokens=True)
        return Answer(text, len(ids), len(made), took.seconds, usd)

    def _sequences(self, candidate: Candidate, request: Request) -> Sequence[Sequenced]:
        examples = request.batch.examples
        if isinstance(candidate, Text):
            return [self._lines.ids(candidate, example) for example in examples]
        return self._lines.sequences(candidate, examples, request.prompt)
