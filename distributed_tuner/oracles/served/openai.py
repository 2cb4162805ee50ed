"""Any server that speaks OpenAI's completions or chat completions as a loss oracle; through the openai package.

One request a candidate and example, or one for each label word where these have several tokens (phrases.py); many in
flight (http_client.py, rate_limit.py). What is sent is text_prompts.py's, what an answer means logprobs.py's and
answer_words.py's. A server that takes embeddings takes soft candidates as well (prompt_embeds.py).

An answer that cannot be read is a failed example, a server that does not answer is an error: a loss is never made up.
"""

import asyncio
import base64
import io
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from distributed_tuner.clients.loop_thread import LoopThread
from distributed_tuner.clients.openai import OPENAI_URL, Endpoint, is_plain, is_private
from distributed_tuner.clients.openai_answers import Refused, Unusable, Usage, cut_short, was_filtered, written
from distributed_tuner.config.oracle import OpenAIOracleConfig
from distributed_tuner.errors import ModelError, OracleTimeout
from distributed_tuner.oracles.base import answer, counted, priced
from distributed_tuner.oracles.decoding import decoding_of, evaluation_of_texts, require_no_gradient
from distributed_tuner.oracles.served.answer_texts import FAILED, REFUSED, Written, decoding_settings, written_text
from distributed_tuner.oracles.served.answer_words import generated_scores
from distributed_tuner.oracles.served.checks import Checks, Forward
from distributed_tuner.oracles.served.codec import ServedCodec
from distributed_tuner.oracles.served.http_client import NAMED_BY_ID, TOKEN_IDS, HttpClient, Prompt, Told
from distributed_tuner.oracles.served.logprobs import LabelTokens, Scored, failed, refused, top_logprobs
from distributed_tuner.oracles.served.phrases import ECHO, phrase_score
from distributed_tuner.oracles.served.prompt_embeds import SoftLines
from distributed_tuner.oracles.served.rate_limit import Sleep
from distributed_tuner.oracles.served.text_prompts import MOST_TOLD, NO_SOFT, ServedText, Source
from distributed_tuner.oracles.tiling import summed
from distributed_tuner.values import (
    Candidate,
    Cost,
    Decoding,
    Evaluation,
    Example,
    LabelRule,
    OracleInfo,
    Request,
    Text,
)

if TYPE_CHECKING:
    from torch import Tensor

FEW = 8  # requests that a server may refuse before it has taken any; then it takes none
KEPT_BACK = "the answer was kept back (finish_reason: content_filter)"


class OpenAIOracle:
    """Answers loss queries by asking a server. ``sleep``: waits so many seconds between attempts.

    Raises:
        ModelError: there is no key where one is needed, the URL would give embeddings or a password away, or tokenizer
            or embeddings cannot be found.
    """

    def __init__(self, config: OpenAIOracleConfig, sleep: Sleep = asyncio.sleep) -> None:
        self._config = config
        self._endpoint = Endpoint("oracle", config, ModelError)
        self._client = HttpClient(config, self._endpoint, sleep)
        url = self._endpoint.base_url or OPENAI_URL
        _require_sound(url, config.prompt_embeds)
        self._text = ServedText(config)
        embeddings = config.embeddings if config.prompt_embeds else None
        self._soft = None if embeddings is None else SoftLines(Source(embeddings), context=self._text.context)
        self._codec = ServedCodec(self._text, None if self._soft is None else self._soft.rows)
        self._thread = LoopThread("openai-oracle")
        self._refusals = 0
        self._checks = Checks(self._endpoint.where(), self._client.shown, self._client.told_of)
        self._info = self._facts({"base_url": url, "api": config.api, "scores": config.scores})

    def _facts(self, extra: dict[str, str]) -> OracleInfo:
        name, soft = self._config.model, self._soft
        if soft is None:
            return OracleInfo(name, 0, 0, self._text.context, 0.0, "served", "server", extra, soft=False)
        size, std = soft.vocabulary_size, soft.embedding_std
        return OracleInfo(name, soft.width, size, soft.context, std, "served", "server", extra)

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def codec(self) -> ServedCodec:
        return self._codec

    def cost(self, request: Request) -> Cost:
        return self._text.cost(request)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        began = time.perf_counter()
        labels = self._require(request)
        try:
            forwards = self._thread.run(self._all(request, labels), timeout)
        except TimeoutError:
            raise OracleTimeout(f"no answer within {timeout:.1f} s; the request was given up") from None
        remarks = self._checks.remarks(request.batch.examples, forwards)
        counts = sum((Counter(forward.scored.counts) for forward in forwards), Counter[str]())
        scores = np.array([forward.scored.scores for forward in forwards], dtype=np.float32)
        usage = sum((forward.usage for forward in forwards), Usage())
        cost = replace(counted(request, usage.read, usage.written), seconds=time.perf_counter() - began)
        cost = priced(cost, self._config.price, cached=usage.cached)
        shape = (len(request.candidates), len(request.batch.examples), -1)
        if request.batch.question == "texts":
            texts = iter([None if forward.written is None else forward.written.text for forward in forwards])
            by_candidate = [[*islice(texts, shape[1])] for _ in request.candidates]
            found = evaluation_of_texts(by_candidate, request.batch, cost, counts)
        else:
            found = answer(scores.reshape(shape), request.batch, cost, counts=counts)
        return replace(found, remarks=remarks, tops=summed(forward.tops for forward in forwards))

    def close(self) -> None:
        """Close the connections. The oracle answers no more."""
        self._thread.run(self._client.close())
        self._thread.close()

    # ------------------------------------------------------------------------------------------------ requests
    def _embeddings(self) -> SoftLines:
        if self._soft is None:
            raise ModelError(NO_SOFT)
        return self._soft

    def _require(self, request: Request) -> LabelTokens:
        """Check that the server can be asked; return what stands for the label words."""
        require_no_gradient(request)
        if request.gradient:
            raise ModelError("a server gives no gradients; set oracle.kind: transformers, or use black-box searches")
        batch = request.batch
        soft = any(not isinstance(candidate, Text) for candidate in request.candidates)
        if soft:
            self._embeddings().require_fit(request.candidates, batch, request.prompt)
        texts = tuple(c.text for c in request.candidates if isinstance(c, Text))
        return self._text.require(batch, request.prompt if soft else replace(request.prompt, length=0), texts)

    async def _all(self, request: Request, labels: LabelTokens) -> list[Forward]:
        """Return every candidate on every example, candidates outermost. The first error ends them all."""
        batch, spec = request.batch, request.prompt
        output, by_phrase = self._text.answer_tokens(batch), self._text.by_phrase(batch)
        texts = batch.question == "texts"

        # Requests begin in order, so that few candidates' sequences are needed at a time.
        @lru_cache(maxsize=4)
        def sequences(candidate: int) -> "list[Tensor]":
            return self._embeddings().sequences(request.candidates[candidate], batch.examples, spec)

        tasks = []
        for i, candidate in enumerate(request.candidates):
            for j, example in enumerate(batch.examples):
                estimate = Usage(self._text.tokens(candidate, example, spec), 0, output)
                if by_phrase:
                    assert isinstance(candidate, Text), "soft ones are refused before"
                    line = self._text.prompt(candidate.text, example)
                    asked = self._phrases(line, self._text.phrases(batch, example), self._text.rule(batch), estimate)
                    tasks.append(asyncio.create_task(asked))
                    continue
                if isinstance(candidate, Text):
                    prompt: Prompt = partial(self._words, candidate.text, example)
                else:
                    prompt = partial(_embedded, sequences, i, j)
                if texts:
                    forward = self._written(prompt, candidate, example, decoding_of(batch), estimate)
                else:
                    forward = self._forward(prompt, example, labels, estimate, request.fresh)
                tasks.append(asyncio.create_task(forward))
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _words(self, text: str, example: Example) -> dict[str, Any]:
        line = self._text.prompt(text, example)
        if self._config.api == "completions":
            return _of_text(line)
        system = [{"role": "system", "content": self._config.system}] if self._config.system else []
        return {"messages": [*system, {"role": "user", "content": line}]}

    async def _forward(
        self, prompt: Prompt, example: Example, labels: LabelTokens, estimate: Usage, fresh: bool
    ) -> Forward:
        """Ask for one example's scores. The cost is what the server reports, else an estimate.

        ``fresh``: tell what else answers begin with.

        Raises:
            ModelError: the server does not take the request.
            OracleError: it did not answer in so many attempts.
        """
        told = Told()
        try:
            settings = self._settings(labels, estimate.written)
            choice = await self._client.ask(prompt, settings, told, estimate.read + estimate.written)
            scored, tops = self._read(choice, example, labels)
            return Forward(scored, told.spent(estimate), tops=tops if fresh else {})
        except Unusable as error:
            return Forward(failed(labels.count, unusable_answers=1), told.spent(estimate), unusable=error)
        except Refused as error:
            self._not_taken(error)
            return Forward(refused(labels.count), told.spent(estimate), refused=error)

    async def _phrases(self, line: str, phrases: Sequence[str], rule: LabelRule, estimate: Usage) -> Forward:
        """Ask for every label phrase behind a line, or for a target, one after the other, so that a server's cache has
        the line."""
        usage, scores = Usage(), []
        for phrase in phrases:
            told = Told()
            tokens = Usage(estimate.read + self._text.phrase_tokens(phrase), 0, estimate.written)
            try:
                prompt: Prompt = partial(_of_text, line + phrase)
                choice = await self._client.ask(prompt, ECHO, told, tokens.read + tokens.written)
                scores.append(phrase_score(choice, line, phrase, rule))
            except Unusable as error:
                spent = usage + told.spent(tokens)
                return Forward(failed(len(phrases), unusable_answers=1), spent, unusable=error)
            except Refused as error:
                self._not_taken(error)
                return Forward(refused(len(phrases)), usage + told.spent(tokens), refused=error)
            usage += told.spent(tokens)
        return Forward(Scored(np.array(scores, dtype=np.float32)), usage)

    async def _written(
        self, prompt: Prompt, candidate: Candidate, example: Example, decoding: Decoding, estimate: Usage
    ) -> Forward:
        """Ask for one example's text. Cost and errors are those of ``_forward``."""
        told, output, chat = Told(), estimate.written, self._config.api == "chat"
        thinks = chat and self._config.max_tokens is not None
        settings = decoding_settings(decoding, output, thinks, candidate, example)
        try:
            choice = await self._client.ask(prompt, settings, told, estimate.read + output)
            if was_filtered(choice):
                raise Refused(200, KEPT_BACK, "", "content filter", None, "")
            found = written_text(choice, decoding, chat=chat, output=output, usage=told.usages[-1])
            return Forward(_counts(found), told.spent(estimate), written=found)
        except Unusable as error:
            return Forward(_counts(FAILED), told.spent(estimate), unusable=error, written=FAILED)
        except Refused as error:
            self._not_taken(error)
            return Forward(_counts(REFUSED), told.spent(estimate), refused=error, written=REFUSED)

    def _not_taken(self, error: Refused) -> None:
        """Count a refusal.

        Raises:
            ModelError: the server has refused all it was asked.
        """
        self._refusals += 1
        if self._refusals >= FEW and not self._client.taken:
            raise ModelError(self._client.told_of(error)) from None

    def _read(
        self, choice: Mapping[str, Any], example: Example, labels: LabelTokens
    ) -> tuple[Scored, dict[str, float]]:
        """Return the scores of an answer, and its other tokens.

        Raises:
            Unusable: nothing can be read from it.
            Refused: it was kept back.
        """
        if self._config.scores == "logprobs":
            top = top_logprobs(choice)
            return labels.scores(top, self._config.top_logprobs), labels.beside(top)
        if was_filtered(choice):
            raise Refused(200, KEPT_BACK, "", "content filter", None, "")
        return generated_scores(written(choice), labels.words, example.cue, cut=cut_short(choice)), {}

    def _settings(self, labels: LabelTokens, output: int) -> dict[str, Any]:
        """Return the request's fields other than the prompt."""
        config = self._config
        settings: dict[str, Any] = {"max_tokens": output, "temperature": 0.0}
        if config.scores == "generated":
            return settings
        if config.api == "chat":
            settings |= {"logprobs": True, "top_logprobs": config.top_logprobs}
        else:
            settings |= {"logprobs": config.top_logprobs}
        if labels.ids is not None and len(labels.other_ids) == len(labels.others) and labels.count <= MOST_TOLD:
            settings |= {TOKEN_IDS: [*labels.ids, *labels.other_ids], NAMED_BY_ID: True}
        return settings


def _of_text(line: str) -> dict[str, Any]:
    return {"prompt": line}


def _counts(written: Written) -> Scored:
    return Scored(np.zeros(0, dtype=np.float32), written.counts)


def _embedded(sequences: "Callable[[int], list[Tensor]]", candidate: int, example: int) -> dict[str, Any]:
    """Return a prompt of embeddings as vLLM reads it: a tensor as torch saves it, dense, in base64."""
    import torch

    buffer = io.BytesIO()
    torch.save(sequences(candidate)[example], buffer)
    return {"prompt": None, "prompt_embeds": base64.b64encode(buffer.getvalue()).decode("ascii")}


def _require_sound(url: str, embeds: bool) -> None:
    """Check a server's URL, which may come from the environment.

    Raises:
        ModelError: it is none, holds a user or a query, or would carry embeddings in the open.
    """
    if not is_plain(url):
        raise ModelError(
            "a server's URL is http(s)://host/v1 without user, password or query, but OPENAI_BASE_URL is not; set it"
            " again, or set oracle.base_url"
        )
    if embeds and not is_private(url):
        raise ModelError(
            f"embeddings go to a server over https or on this machine alone, but oracle.base_url is {url!r}, whose"
            " traffic others on the way can read and change; use https, or a tunnel to localhost"
        )
