"""Losses by formula, of the shape of a real oracle: a member of the family that needs no model and takes no time."""

import math
import re
import time
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.maths.sampling import sample
from distributed_tuner.oracles.base import (
    bias_of,
    counted,
    evaluation,
    mean_loss_slopes,
    priced,
    require_coordinates,
    require_label_words,
)
from distributed_tuner.oracles.decoding import (
    decoding_of,
    draws,
    evaluation_of_texts,
    most_output,
    require_no_gradient,
    spent,
    trimmed,
)
from distributed_tuner.oracles.tokens.vocabulary import PUBLISHED_IDS, fit_ids, require_tokens
from distributed_tuner.prompts.recipes import Recipes
from distributed_tuner.seeds import generator, standard_normal
from distributed_tuner.values import (
    Array,
    Array64,
    Batch,
    Candidate,
    Cost,
    Embedded,
    Evaluation,
    Example,
    Layout,
    OracleInfo,
    PromptSpec,
    Request,
    Text,
    TokenSpace,
)

CONTEXT = 4096
TOP_TOKENS = 256
TOKEN = r"<(\d+)>"


class AnalyticOracle:
    """Three functions of the prompt coordinates.

    "logistic": logit_W(x, e) = <phi(e), (M x)_W> with phi the hashed words of the example (F features, unit norm) and M
    a random map from the coordinates to a W x F classifier. "quadratic": f(x) = 1/2 sum_i lambda_i (x_i - x*_i)^2, the
    same for every example; its logits put -f on the true label, so that the cross-entropy rises with f. "flat": zero.

    Of targets, "logistic": each word of a target is drawn alone, by the softmax of x M over F hashed words;
    "quadratic": a token has the negative log-likelihood f(x); "flat": 1.

    Its vocabulary are TOP_TOKENS random rows, named "<0>", "<1>", ... A text of such names alone is their rows, so that
    rows put into words are read back; any other text is random coordinates of its own. A prompt in words is the mean of
    random rows, one a word, so that texts with words in common score alike.

    A generated answer is one word of the example's text: "logistic": the one whose entry in x M is largest; "flat": the
    first one. "quadratic": the example's target if f(x) is below a share of f(0) that is the example's own, else the
    first word.
    """

    def __init__(self, config: AnalyticOracleConfig) -> None:
        self._config = config
        self._codec = AnalyticCodec(config.seed, config.width)
        self._maps: dict[tuple[int, int], Array] = {}
        self._curvatures: dict[int, tuple[Array64, Array64]] = {}
        self._flats: dict[Hashable, Evaluation] = {}
        self._info = OracleInfo(f"analytic-{config.function}", config.width, TOP_TOKENS, CONTEXT, 1.0, "float32", "cpu")

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def codec(self) -> "AnalyticCodec":
        return self._codec

    def cost(self, request: Request) -> Cost:
        rows = request.batch.examples
        scored = request.batch.question == "targets"
        words = sum(_word_count(e.text + e.cue + e.target * scored) for e in rows)
        tokens = 0
        for candidate in request.candidates:
            length = _word_count(candidate.text) if isinstance(candidate, Text) else request.prompt.length
            tokens += words + length * len(rows)
        return priced(counted(request, tokens, most_output(request)), self._config.price)

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        began = time.perf_counter()
        require_coordinates(request)
        require_label_words(request.batch)
        require_no_gradient(request)
        if request.batch.question == "texts":
            answer = self._generated(request)
        elif request.batch.question == "targets":
            answer = self._likelihoods(request)
        else:
            answer = self._flat(request) if self._config.function == "flat" else self._computed(request)
        if (left := began + self._config.seconds - time.perf_counter()) > 0:
            time.sleep(left)
        cost = replace(answer.cost, seconds=time.perf_counter() - began)
        return replace(answer, cost=priced(cost, self._config.price))

    def _computed(self, request: Request) -> Evaluation:
        batch = request.batch
        count = len(request.candidates)
        logits = np.empty((count, len(batch.examples), len(batch.label_words)), dtype=np.float32)
        words = np.array([isinstance(candidate, Text) for candidate in request.candidates], dtype=bool)
        for chosen in (np.flatnonzero(words), np.flatnonzero(~words)):  # coordinates of two sizes
            if chosen.size:
                x_C_P = np.stack([self._codec.coordinates(request.candidates[i], request.prompt) for i in chosen])
                logits[chosen] = self._logits(x_C_P, batch)
        gradients = self._gradients(logits, request) if request.gradient else None
        return evaluation(logits, batch, self.cost(request), gradients)

    def _flat(self, request: Request) -> Evaluation:
        """Return the answer without computing anything, where one like it was given before."""
        batch, count = request.batch, len(request.candidates)
        key = (count, batch.label_words, batch.loss, tuple(example.label for example in batch.examples))
        if key not in self._flats:
            zeros = np.zeros((count, len(batch.examples), len(batch.label_words)), dtype=np.float32)
            self._flats[key] = evaluation(zeros, batch, Cost())
        slopes = np.zeros((count, request.prompt.length * self._config.width), dtype=np.float32)
        return replace(self._flats[key], cost=self.cost(request), gradients=slopes if request.gradient else None)

    def _generated(self, request: Request) -> Evaluation:
        """Return the answers in words."""
        batch, bound = request.batch, self.cost(request)
        decoding = decoding_of(batch)
        texts = []
        for candidate in request.candidates:
            x_P = self._codec.coordinates(candidate, request.prompt)
            drawn = [draws(decoding, candidate, example.uid)[0] for example in batch.examples]
            told = [self._said(x_P, e, decoding.temperature, u) for e, u in zip(batch.examples, drawn, strict=True)]
            texts.append([trimmed(" ".join(one.split()[: decoding.max_new_tokens]), decoding.stop) for one in told])
        output = sum(len(text.split()) for row in texts for text in row)
        return evaluation_of_texts(texts, batch, spent(bound, output))

    def _said(self, x_P: Array, example: Example, temperature: float, uniform: float) -> str:
        """Return what is generated behind an example."""
        words: list[str] = re.findall(r"\w+", example.text) or [""]
        match self._config.function:
            case "flat":
                return words[0]
            case "quadratic":
                share = generator(("answered", self._config.seed, example.uid)).random()
                known = self._f(x_P[None])[0] < share * self._f(np.zeros_like(x_P[None]))[0]
                return example.target if known else words[0]
        scores = x_P @ self._map(len(x_P), self._config.features)
        of_words = scores[[zlib.crc32(word.lower().encode()) % self._config.features for word in words]]
        if temperature > 0:
            return words[int(sample(of_words[None], temperature, np.array([uniform]))[0])]
        return words[int(of_words.argmax())]

    def _logits(self, x_C_P: Array, batch: Batch) -> Array:
        return self._logistic(x_C_P, batch) if self._config.function == "logistic" else self._quadratic(x_C_P, batch)

    def _likelihoods(self, request: Request) -> Evaluation:
        """Return the losses of targets, and their gradients where these are asked for."""
        batch = request.batch
        counts_E_F = np.stack([self._counts(example.target) for example in batch.examples])
        words_E = np.maximum(1.0, counts_E_F.sum(axis=1))
        weights_E = 1.0 / words_E if batch.per == "token" else np.ones(len(words_E))
        losses, gradients = [], []
        for candidate in request.candidates:
            x_P = self._codec.coordinates(candidate, request.prompt)
            a_token_E, slope_P = self._of_targets(x_P, counts_E_F, words_E, weights_E)
            losses.append(weights_E * a_token_E)
            gradients.append(slope_P)
        slopes = np.stack(gradients).astype(np.float32) if request.gradient else None
        return evaluation(-np.stack(losses)[..., None].astype(np.float32), batch, self.cost(request), slopes)

    def _of_targets(
        self, x_P: Array, counts_E_F: Array64, words_E: Array64, weights_E: Array64
    ) -> tuple[Array64, Array64]:
        """Return each target's negative log-likelihood (E,), and the slope (P,) of their weighted mean."""
        match self._config.function:
            case "flat":
                return words_E, np.zeros(len(x_P))
            case "quadratic":
                eigenvalues, optimum = self._curvature(len(x_P))
                f = 0.5 * float(((x_P - optimum) ** 2 * eigenvalues).sum())
                return f * words_E, (x_P - optimum) * eigenvalues * float((weights_E * words_E).mean())
        word_map = self._map(len(x_P), self._config.features)
        scores_F = (x_P @ word_map).astype(np.float64)
        shares_F = np.exp(scores_F - scores_F.max())
        known_F = np.log(shares_F / shares_F.sum())
        slope_E_F = weights_E[:, None] * (words_E[:, None] * np.exp(known_F) - counts_E_F)
        return -counts_E_F @ known_F, word_map @ slope_E_F.mean(axis=0)

    def _counts(self, text: str) -> Array64:
        """Return how often each hashed word is in a text, (F,)."""
        places = [zlib.crc32(word.encode()) % self._config.features for word in _words(text.lower())]
        return np.bincount(places, minlength=self._config.features).astype(np.float64)

    def _gradients(self, logits: Array, request: Request) -> Array:
        x_C_P = np.stack([self._codec.coordinates(candidate, request.prompt) for candidate in request.candidates])
        shift = np.stack([bias_of(logits_E_W, request.batch) for logits_E_W in logits])
        slopes = mean_loss_slopes(logits + shift[:, None], request.batch)
        if self._config.function == "logistic":
            return self._logistic_gradient(slopes, x_C_P.shape[1], request.batch)
        return self._quadratic_gradient(slopes, x_C_P, request.batch)

    def _logistic(self, x_C_P: Array, batch: Batch) -> Array:
        phi_E_F = self._all_features(batch)
        labels, features = len(batch.label_words), self._config.features
        classifier = _each(x_C_P, self._map(x_C_P.shape[1], labels * features))
        weights_C_W_F = classifier.reshape(len(x_C_P), labels, features)
        logits: Array = np.einsum("ef,cwf->cew", phi_E_F, weights_C_W_F).astype(np.float32)
        return logits

    def _logistic_gradient(self, slopes_C_E_W: Array64, dim: int, batch: Batch) -> Array:
        """Return M' applied to the loss's slopes by the classifier, shape (C, P)."""
        by_classifier = np.einsum("cew,ef->cwf", slopes_C_E_W, self._all_features(batch)).reshape(len(slopes_C_E_W), -1)
        return _each(by_classifier, self._map(dim, by_classifier.shape[1]).T).astype(np.float32, copy=False)

    def _curvature(self, dim: int) -> tuple[Array64, Array64]:
        """Return lambda and x* of the quadratic, (P,) each."""
        if dim not in self._curvatures:
            eigenvalues = np.geomspace(1.0, 1.0 / self._config.condition, dim)
            optimum = generator(("optimum", self._config.seed)).standard_normal(dim)
            self._curvatures[dim] = eigenvalues, optimum
        return self._curvatures[dim]

    def _quadratic(self, x_C_P: Array, batch: Batch) -> Array:
        f_C = self._f(x_C_P)
        logits = np.zeros((len(x_C_P), len(batch.examples), len(batch.label_words)), dtype=np.float32)
        labels = [example.label for example in batch.examples]
        logits[:, np.arange(len(labels)), labels] = -f_C[:, None]
        return logits

    def _f(self, x_C_P: Array) -> Array64:
        """Return the quadratic's values (C,)."""
        eigenvalues, optimum = self._curvature(x_C_P.shape[1])
        f_C: Array64 = 0.5 * ((x_C_P - optimum) ** 2 * eigenvalues).sum(axis=1)
        return f_C

    def _quadratic_gradient(self, slopes_C_E_W: Array64, x_C_P: Array, batch: Batch) -> Array:
        """Return the gradient of f times the loss's slope by -f, shape (C, P)."""
        eigenvalues, optimum = self._curvature(x_C_P.shape[1])
        slope_C = sum(slopes_C_E_W[:, j, example.label] for j, example in enumerate(batch.examples))
        return np.asarray(-(x_C_P - optimum) * eigenvalues * np.reshape(slope_C, (-1, 1)), dtype=np.float32)

    def _map(self, rows: int, columns: int) -> Array:
        key = (rows, columns)
        if key not in self._maps:
            stream = generator(("map", self._config.seed, rows, columns))
            self._maps[key] = stream.standard_normal(key, dtype=np.float32) * np.float32(3.0 / rows**0.5)
        return self._maps[key]

    def _all_features(self, batch: Batch) -> Array:
        """Return phi, shape (E, F)."""
        return np.stack([self._features(example.text) for example in batch.examples])

    def _features(self, text: str) -> Array:
        phi = np.zeros(self._config.features, dtype=np.float32)
        for word in _words(text.lower()):
            phi[zlib.crc32(word.encode()) % self._config.features] += 1.0
        norm = float(np.linalg.norm(phi))
        return phi / np.float32(norm) if norm else phi


class AnalyticCodec:
    """Random words as a vocabulary, for any text: see ``AnalyticOracle``. Rows are coordinates."""

    def __init__(self, seed: int, width: int) -> None:
        self._seed, self._width = seed, width
        self._recipes = Recipes(embedding_std=1.0)

    def materialize(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        return self.coordinates(candidate, prompt).reshape(prompt.length, self._width)

    def nearest_tokens(self, rows: Array, layout: Layout = "prefix") -> list[tuple[str, float]]:
        cosine = _cosine(rows, self._tokens())
        return [(f"<{int(j)}>", float(c[j])) for c, j in zip(cosine, cosine.argmax(axis=1), strict=True)]

    def project(self, rows: Sequence[Array], layout: Layout, space: TokenSpace) -> list[str]:
        ids = _allowed(space)
        tokens = self._tokens()[ids]
        texts = []
        for rows_L_D in rows:
            if space.distance == "l2":
                best = ((rows_L_D[:, None] - tokens) ** 2).sum(axis=2).argmin(axis=1)
            else:
                cosine = _cosine(rows_L_D, tokens)
                best = cosine.argmin(axis=1) if space.distance == "published" else cosine.argmax(axis=1)
            texts.append(" ".join(f"<{ids[j]}>" for j in best))
        return texts

    def token_count(self, text: str) -> int:
        return _word_count(text)

    def answer_words(self, batch: Batch, count: int) -> tuple[str, ...]:
        return ()

    def vocabulary(self, space: TokenSpace) -> tuple[str, ...]:
        return tuple(f" <{i}>" for i in _allowed(space))

    def coordinates(self, candidate: Candidate, prompt: PromptSpec) -> Array:
        """Return x of a candidate, shape (P,); of a prompt in words (D,)."""
        dim = prompt.length * self._width
        if isinstance(candidate, Text):
            return self._worded(candidate.text)
        if isinstance(candidate, Embedded):
            return self._embedded(candidate.text, prompt.length)
        return self._recipes.coordinates(candidate, dim, unit=1.0)

    def _embedded(self, text: str, length: int) -> Array:
        """Return the coordinates of a text, shape (length * D,)."""
        require_tokens(self.token_count(text), text)
        ids = [int(name) for name in re.findall(TOKEN, text)]
        if re.fullmatch(rf"(\s*{TOKEN})+\s*", text) and max(ids) < TOP_TOKENS:
            return self._tokens()[fit_ids(ids, length)].astype(np.float32).reshape(-1)
        return standard_normal(("text", self._seed, text), length * self._width)

    def _worded(self, text: str) -> Array:
        """Return the coordinates of a prompt in words, shape (D,): zeros without any."""
        rows = [standard_normal(("word", self._seed, word), self._width) for word in _words(text.lower())]
        return np.asarray(np.mean(rows, axis=0) if rows else np.zeros(self._width), dtype=np.float32)

    def _tokens(self) -> Array64:
        """Return the rows of the vocabulary, shape (TOP_TOKENS, D)."""
        return generator(("tokens", self._seed)).standard_normal((TOP_TOKENS, self._width))


def _each(rows: Array, by: Array) -> Array:
    """Return rows @ by, each row alone: of several at a time, a BLAS may round each as their number has it, and a
    candidate's loss would depend on who shares its tile."""
    return np.stack([row @ by for row in rows])


def _cosine(rows_L_D: Array, tokens_V_D: Array64) -> Array64:
    scale = np.linalg.norm(rows_L_D, axis=1, keepdims=True) * np.linalg.norm(tokens_V_D, axis=1)[None, :]
    cosine: Array64 = (rows_L_D @ tokens_V_D.T) / np.maximum(scale, 1e-12)
    return cosine


def _allowed(space: TokenSpace) -> list[int]:
    """Return the tokens that a text may be made of: every one is printable and begins a word."""
    first = PUBLISHED_IDS.start if space.vocabulary == "published" else 0
    return list(range(first, TOP_TOKENS))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@lru_cache(maxsize=10_000)
def _word_count(text: str) -> int:
    return len(_words(text))
