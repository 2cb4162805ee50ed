"""Generated answers: the parts that all oracles compute in the same way. Nothing of a model is needed here.

A text ends at the model's end-of-text token, before the first stop string, or after ``max_new_tokens``. White space
around it is left out, because tokenizers and servers disagree about it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from distributed_tuner.errors import ModelError
from distributed_tuner.seeds import generator, seed_of
from distributed_tuner.values import (
    Array64,
    Batch,
    Candidate,
    Center,
    Cost,
    Decoding,
    Embedded,
    Evaluation,
    Latent,
    Perturbation,
    Point,
    Request,
    Text,
)

Texts = tuple[tuple[str | None, ...], ...]


def decoding_of(batch: Batch) -> Decoding:
    """Return how a batch's texts are generated.

    Raises:
        ModelError: it asks for no texts.
    """
    if batch.decoding is None or batch.question != "texts":
        raise ModelError("texts are generated for a batch with decoding settings and without label words")
    return batch.decoding


def require_scores(batch: Batch, why: str) -> None:
    """Check that labels are asked for, of an oracle that tells nothing else. ``why``: the reason, as a clause.

    Raises:
        ModelError: likelihoods of targets or texts are.
    """
    if batch.question == "targets":
        raise ModelError(
            f"likelihoods of the task's targets are asked for, but {why}; set oracle.kind: transformers (with a causal"
            " model) or vllm, or objective: metric where it can generate"
        )
    if batch.question == "texts":
        raise ModelError(
            f"answers of the task's examples are generated, but {why}; set oracle.kind: transformers (with a causal"
            " model), vllm or openai"
        )


def require_no_gradient(request: Request) -> None:
    """Check that no gradients of generated texts are asked for.

    Raises:
        ModelError: they are.
    """
    if request.gradient and request.batch.question == "texts":
        raise ModelError("generated answers have no gradient; search with losses alone, or set objective: likelihood")


def evaluation_of_texts(
    texts_C_E: Sequence[Sequence[str | None]],
    batch: Batch,
    cost: Cost,
    counts: Mapping[str, int] = MappingProxyType({}),
) -> Evaluation:
    """Return the answer to a request for texts. Its losses are NaN: only a metric knows what a text is worth."""
    texts = tuple(tuple(row) for row in texts_C_E)
    losses_C_E: Array64 = np.full((len(texts), len(batch.examples)), np.nan)
    logits = np.zeros((*losses_C_E.shape, 0), dtype=np.float32)
    failed = sum(text is None for row in texts for text in row)
    told = {**counts, "failed_answers": failed} if failed else dict(counts)
    return Evaluation(
        losses_C_E.mean(axis=1) if texts else np.zeros(0), losses_C_E, logits, cost, counts=told, texts=texts
    )


def most_output(request: Request) -> int:
    """Return the most tokens that may be generated for a request; 0 where none are asked for."""
    batch = request.batch
    if batch.question != "texts":
        return 0
    return decoding_of(batch).max_new_tokens * len(batch.examples) * len(request.candidates)


def spent(bound: Cost, output: int) -> Cost:
    """Return what a request has cost by the cost beforehand, a bound, and the tokens that were generated."""
    return replace(bound, tokens=bound.tokens - bound.output_tokens + output, output_tokens=output)


def trimmed(text: str, stop: Sequence[str]) -> str:
    """Return a text up to the first of the stop strings, without white space around it."""
    places = [place for one in stop if (place := text.find(one)) >= 0]
    return text[: min(places, default=len(text))].strip()


def stops(text: str, stop: Sequence[str]) -> bool:
    """Tell whether a text holds a stop string."""
    return any(one in text for one in stop)


def draws(decoding: Decoding, candidate: Candidate, uid: str) -> Array64:
    """Return the uniform numbers (max_new_tokens,) by which one candidate's answer to one example is sampled.

    They follow from the seed, the candidate's recipe and the example's uid alone, so that neither tiles nor workers
    change them.
    """
    return generator(("decoding", decoding.seed, _name(candidate), uid)).random(decoding.max_new_tokens)


def seed_for(decoding: Decoding, candidate: Candidate, uid: str) -> int:
    """Return the seed of one answer, for engines and servers that draw by their own."""
    return seed_of(("decoding", decoding.seed, _name(candidate), uid))


def _name(candidate: Candidate) -> str:
    """Return a digest of a candidate's recipe."""
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(candidate):
        told = part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        digest.update(len(told).to_bytes(8, "little") + told)
    return digest.hexdigest()


def _parts(candidate: Candidate) -> tuple[object, ...]:
    match candidate:
        case Perturbation(Center(id=center), key, sign, radius):
            return ("perturbation", center, key, sign, radius)
        case Latent(z, projection, origin):
            return ("latent", np.ascontiguousarray(z), projection, None if origin is None else origin.id)
        case Point(vector):
            return ("point", np.ascontiguousarray(vector))
        case Embedded(text, published):
            return ("embedded", text, published)
        case Text(text):
            return ("text", text)
