"""Oracles of the user's own: a base class that needs the label words' scores alone, and a guard around any of them."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from distributed_tuner.config.oracle import CustomOracleConfig
from distributed_tuner.custom import imported, made, promised, require_methods
from distributed_tuner.errors import ModelError, PartError
from distributed_tuner.oracles.base import MEMBERS, LossOracle, counted, evaluation, priced, require_label_words
from distributed_tuner.oracles.codec import METHODS, PromptCodec, codec_of
from distributed_tuner.oracles.decoding import require_scores
from distributed_tuner.oracles.wrappers.base import WrappedOracle
from distributed_tuner.values import (
    Array,
    Candidate,
    Cost,
    Evaluation,
    OracleInfo,
    PromptSpec,
    Request,
    Text,
)


class Oracle(ABC):
    """A loss oracle that is made of one method: ``score``. For a model, a server or a formula of your own.

    **An oracle of your own** (docs/extending.md) is made with its settings alone, in the driver, in the dispatcher and
    in every oracle actor: load what is large at the first ``score``, not in the constructor. It may derive from this
    class, or be any class that has the three members of ``distributed_tuner.oracles.base.LossOracle``. It answers the
    same request with the same bits, and changes nothing by which a later answer would differ.

    It knows no words unless it has a ``codec``, which does what ``distributed_tuner.oracles.codec.PromptCodec`` says:
    restart stages on soft prompts and heads that read more than the label words need one.

    width: D, of a soft prompt's row; 0: it takes prompts in words alone. The rows of a soft prompt are the coordinates
    that are searched, (L, D), and begin at zero: set ``prompt.init: zeros`` and ``prompt.scale: paper``.
    """

    width = 0
    context = 1_000_000

    @abstractmethod
    def score(self, request: Request) -> Array:
        """Return the scores of the label words (C, E, W), log-probabilities up to a constant of the row.

        ``self.rows(candidate, request.prompt)`` has the rows (L, D) of a soft candidate; a prompt in words is a
        ``Text``. An example is ``example.text``, then ``example.cue``, then one of ``request.batch.label_words``. NaN:
        there is no answer, and the candidate has failed.
        """

    def token_count(self, text: str) -> int:
        """Return how many tokens a text has, by which it is billed: its words, unless said otherwise."""
        return len(text.split())

    def rows(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        """Return the rows (L, D) of a soft candidate, float32."""
        return codec_of(self).materialize(candidate, prompt)

    # ------------------------------------------------------------------------------------------------ the protocol
    @property
    def info(self) -> OracleInfo:
        return OracleInfo(type(self).__name__, self.width, 0, self.context, 1.0, "float32", "cpu", soft=self.width > 0)

    def cost(self, request: Request) -> Cost:
        rows = request.batch.examples
        texts = sum(self.token_count(example.text) + self.token_count(example.cue) for example in rows)
        tokens = 0
        for candidate in request.candidates:
            length = self.token_count(candidate.text) if isinstance(candidate, Text) else request.prompt.length
            tokens += texts + length * len(rows)
        return counted(request, tokens)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        if request.gradient:
            raise ModelError(f"{type(self).__name__} gives no gradients; search with losses alone")
        require_label_words(request.batch)
        require_scores(request.batch, f"{type(self).__name__} scores label words alone")
        began = time.perf_counter()
        scores = np.asarray(self.score(request), dtype=np.float32)
        cost = replace(self.cost(request), seconds=time.perf_counter() - began)
        return evaluation(scores, request.batch, cost)


class GuardedOracle(WrappedOracle):
    """An oracle of the user's own, whose answers are held against the contract, at the price of the settings."""

    def __init__(self, oracle: LossOracle, config: CustomOracleConfig) -> None:
        super().__init__(oracle)
        self._config = config

    def cost(self, request: Request) -> Cost:
        with promised(self._config.import_path, "say what a request costs"):
            return priced(self._oracle.cost(request), self._config.price)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        with promised(self._config.import_path, "answer a request"):
            answer = self._oracle.evaluate(request, timeout)
        wanted = (len(request.candidates), len(request.batch.examples), request.batch.scores)
        shapes = (np.shape(answer.logits), np.shape(answer.example_losses), np.shape(answer.losses))
        if shapes != (wanted, wanted[:2], wanted[:1]):
            raise PartError(
                f"an answer has scores (C, E, W) = {wanted}, losses of examples (C, E) and losses (C,), but"
                f" {self._config.import_path} gave arrays of shape {', '.join(map(str, shapes))}; mend it there"
            )
        if request.batch.question == "texts" and [len(row) for row in answer.texts] != [wanted[1]] * wanted[0]:
            raise PartError(
                f"an answer to a request with decoding has texts (C)(E) of {wanted[:2]}, but {self._config.import_path}"
                " gave others; mend it there"
            )
        return replace(answer, cost=priced(answer.cost, self._config.price))


def build_custom(config: CustomOracleConfig) -> LossOracle:
    """Make an oracle of the user's own.

    Raises:
        ConfigError: it cannot be imported or made, or lacks a method of ``LossOracle``, or its codec one of
            ``PromptCodec``.
    """
    oracle = made(config, imported(config), {})
    require_methods(config, oracle, MEMBERS, LossOracle)
    if getattr(oracle, "codec", None) is not None:
        require_methods(config, oracle.codec, METHODS, PromptCodec)
    if not isinstance(oracle.info, OracleInfo):
        raise PartError(f"info of {config.import_path} must be an OracleInfo, but is {oracle.info!r}; mend it there")
    return GuardedOracle(oracle, config)
