"""A vLLM engine as a loss oracle: one sequence a candidate and example, all of a request in flight together.

What a sequence looks like is prompt_embeds.py's: embeddings for soft candidates, token ids for texts. Rows of a request
that begin alike share keys and values through the engine's prefix cache. For label words of several tokens the row and
each of their beginnings are sequences of their own: each tells the tokens that may come next.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distributed_tuner.config.oracle import VllmOracleConfig
from distributed_tuner.errors import ModelError
from distributed_tuner.oracles.base import answer, priced
from distributed_tuner.oracles.decoding import decoding_of, evaluation_of_texts, seed_for, spent, stops, trimmed
from distributed_tuner.oracles.generation import instruction_ids, require_room
from distributed_tuner.oracles.served.prompt_embeds import SoftLines
from distributed_tuner.oracles.served.vllm_engine import MOST_LABELS, Sequenced, VllmEngine
from distributed_tuner.oracles.tokens.continuations import Continuations, Tokens
from distributed_tuner.oracles.tokens.prompt_embeddings import PromptRows
from distributed_tuner.values import (
    Answer,
    Array,
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
        self._stop_ids: dict[tuple[str, ...], list[int]] = {}
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
        if request.batch.question == "texts":
            return self._generated(request, began)
        batch, prompt = request.batch, request.prompt
        label_ids, continuations = self._lines.answer_ids(batch), self._lines.continuations(batch)
        self._lines.require_fit(request.candidates, batch, prompt)
        sequences = [one for candidate in request.candidates for one in self._sequences(candidate, request)]
        shape = (len(request.candidates), len(batch.examples), -1)
        parts = []
        if continuations is not None:
            of_targets = batch.question == "targets"
            mean = batch.per == "token" if of_targets else batch.label_rule == "mean"
            parts.append(self._log_likelihoods(sequences, continuations, mean))
        if label_ids:
            parts.append(self._engine.log_probabilities(sequences, label_ids).reshape(shape))
        scores = np.concatenate(parts, axis=-1)
        cost = replace(self._lines.cost(request), seconds=time.perf_counter() - began)
        return answer(scores, batch, priced(cost, self._config.price))

    def _generated(self, request: Request, began: float) -> Evaluation:
        """Answer a request for texts.

        The engine ends at tokens that hold a stop string; strings over the border of two are looked for here.
        """
        batch, decoding = request.batch, decoding_of(request.batch)
        self._lines.require_fit(request.candidates, batch, request.prompt)
        sequences = [one for candidate in request.candidates for one in self._sequences(candidate, request)]
        seeds = [seed_for(decoding, one, example.uid) for one in request.candidates for example in batch.examples]
        made = self._engine.texts(sequences, decoding, seeds, self._end_ids(decoding.stop))
        decoded = [self._lines.tokenizer.decode(ids, skip_special_tokens=True) for ids in made]
        texts = iter([trimmed(text, decoding.stop) for text in decoded])
        by_candidate = [[next(texts) for _ in batch.examples] for _ in request.candidates]
        cost = spent(self._lines.cost(request), sum(map(len, made)))
        cost = replace(cost, seconds=time.perf_counter() - began)
        return evaluation_of_texts(by_candidate, batch, priced(cost, self._config.price))

    def _end_ids(self, stop: tuple[str, ...]) -> list[int]:
        """Return the tokens at which a text ends for certain; found once for the same stop strings."""
        if stop not in self._stop_ids:
            tokenizer = self._lines.tokenizer
            pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
            self._stop_ids[stop] = [token for token, piece in enumerate(pieces) if stops(piece, stop)]
        return [*self._lines.end_ids, *self._stop_ids[stop]]

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

    def _log_likelihoods(self, rows: Sequence[Sequenced], continuations: Continuations, mean: bool) -> Array:
        """Return the sums, or means, (C, E, W) of the log-probabilities of the continuations of each row (C * E)."""
        examples = len(continuations.trees)
        starts, read = self._read_at(continuations)
        sequences = [self._lines.behind(row, path) for j, row in enumerate(rows) for path in starts[j % examples]]
        ids = [tokens for j in range(len(rows)) for tokens in read[j % examples]]
        told = self._engine.log_probabilities_each(sequences, ids)
        known = [dict(zip(tokens, values, strict=True)) for tokens, values in zip(ids, told, strict=True)]
        places = continuations.ends[-1] + 1 + len(continuations.trees[-1].tokens)
        at = np.arange(len(rows) // examples)[:, None, None, None] * places + continuations.places
        each = np.vectorize(lambda place, token: known[place][token], otypes=[np.float32])(at, continuations.tokens)
        sums = np.where(continuations.real, each, np.float32(0)).sum(axis=-1)
        return np.asarray(sums / continuations.lengths if mean else sums, dtype=np.float32)

    @staticmethod
    def _read_at(continuations: Continuations) -> tuple[list[list[Tokens]], list[list[list[int]]]]:
        """Return for each example the tokens behind its row at each place that is read, and the tokens read there."""
        starts: list[list[Tokens]] = []
        read: list[list[list[int]]] = []
        for e, tree in enumerate(continuations.trees):
            paths = [tuple(np.flatnonzero(seen).tolist()) for seen in tree.sees]
            starts.append([(), *(tuple(tree.tokens[place] for place in path) for path in paths)])
            own = continuations.places[e] - continuations.ends[e]
            pairs = sorted(set(zip(own.ravel().tolist(), continuations.tokens[e].ravel().tolist(), strict=True)))
            read.append([[token for at, token in pairs if at == place] for place in range(1 + len(tree.tokens))])
        return starts, read

    def _sequences(self, candidate: Candidate, request: Request) -> Sequence[Sequenced]:
        examples = request.batch.examples
        if isinstance(candidate, Text):
            return [self._lines.ids(candidate, example) for example in examples]
        return self._lines.sequences(candidate, examples, request.prompt)
