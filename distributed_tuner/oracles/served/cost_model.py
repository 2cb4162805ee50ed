"""Costs of requests to vLLM and to OpenAI-compatible servers."""

import math

from distributed_tuner.config.oracle import OpenAIOracleConfig, VllmOracleConfig
from distributed_tuner.oracles.local.cost_model import TextualCounter
from distributed_tuner.oracles.plain_counter import PlainCounter
from distributed_tuner.values import Batch, Cost, Layout, PromptSpec, Request

# Rough guesses for machines that are not asked beforehand: of a small model in vLLM, and of a busy server far away.
VLLM_SECONDS_A_TOKEN = {"cpu": 1e-3, "gpu": 2e-5}
SERVED_SECONDS_A_FORWARD = 0.5


class VllmCounter(TextualCounter):
    """Counts for a vLLM engine, which computes every row whole, except for its prefix cache: no calibration."""

    rounds = False

    def __init__(self, config: VllmOracleConfig) -> None:
        super().__init__(config, config.max_model_len)
        self._seconds_a_token = VLLM_SECONDS_A_TOKEN["gpu" if config.gpus else "cpu"]

    def seconds(self, request: Request) -> float:
        return self._encoder.cost(request).tokens * self._seconds_a_token

    def choose_layout(self, batch: Batch, length: int) -> Layout:
        return "prefix"

    def kept_bytes(self, batch: Batch, prompt: PromptSpec) -> int:
        return 0


class OpenAICounter(PlainCounter):
    """Counts for a server, whose model is not here: with its tokenizer where one is named, else from above."""

    def __init__(self, config: OpenAIOracleConfig) -> None:
        from distributed_tuner.oracles.local.loading import load_model_config
        from distributed_tuner.oracles.served.text_prompts import ServedText, Source

        self._config = config
        self._text = ServedText(config)
        self.soft = config.prompt_embeds
        self.has_tokenizer = (config.tokenizer or config.embeddings) is not None
        source = Source(config.embeddings) if config.prompt_embeds and config.embeddings else None
        self.width = 0 if source is None else int(load_model_config(source).get_text_config().hidden_size)

    def cost(self, request: Request) -> Cost:
        return self._text.cost(request)

    def seconds(self, request: Request) -> float:
        """Return the seconds of one actor's share of the requests in flight, or those that the rates make of it."""
        config, cost = self._config, self._text.cost(request)
        requests = cost.forwards * self._text.requests(request.batch)
        share = 60 * config.most_actors
        by_requests = 0.0 if config.requests_per_minute is None else share * requests / config.requests_per_minute
        by_tokens = 0.0 if config.tokens_per_minute is None else share * cost.tokens / config.tokens_per_minute
        in_flight = math.ceil(config.concurrency / config.most_actors)
        return max(SERVED_SECONDS_A_FORWARD * requests / in_flight, by_requests, by_tokens)

    def require(self, batch: Batch, prompt: PromptSpec, texts: tuple[str, ...] = ()) -> None:
        self._text.require(batch, prompt, texts)

    def require_embedded(self, prompt: PromptSpec) -> None:
        self._text.require_soft()
