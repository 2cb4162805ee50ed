"""Messages of the pool: requests and tiles, with shared parts put into the object store once.

A request carries recipes; the centres of its candidates are references, and so are its batch with its prompt.
References are nested in what is sent, so that Ray does not resolve them, and each process that needs them fetches each
once. Candidates are sent as plain tuples, which pickle small and fast.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import ray

from distributed_tuner.oracles.tiling import Cut
from distributed_tuner.values import Array, Array64, Candidate, Center, Cost, Evaluation, Latent, Perturbation, Request

_EMPTY: Array = np.zeros(0, dtype=np.float32)
_NO_LOSSES: Array64 = np.zeros(0)
PUT = 16  # batches with prompts that a trial keeps in the object store
FETCHED = 64  # references whose values an actor keeps; trials that share it have two each in use

Sent: TypeAlias = Candidate | tuple[Any, ...]
"""A candidate on its way. The centre of a perturbation or a latent is a place in a list; None: it has none."""


class Recent(OrderedDict[Hashable, Any]):
    """The last few values by their keys."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def get_or(self, key: Hashable, make: Any) -> Any:
        """Return the value of a key; ``make`` is called for one that is not there."""
        if key in self:
            self.move_to_end(key)
        else:
            self[key] = make()
            if len(self) > self._most:
                self.popitem(last=False)
        return self[key]


# ------------------------------------------------------------------------------------------------------- requests
@dataclass(frozen=True, eq=False, slots=True)
class Packed:
    """A request as a trial sends it. ``refs``: of its centres' vectors, whose ids are ``ids``; ``shared``: of its
    (batch, prompt). Values may stand in place of references."""

    candidates: tuple[Sent, ...]
    ids: tuple[str, ...]
    refs: tuple[Any, ...]
    shared: Any
    gradient: bool = False
    fresh: bool = False


def pack(request: Request, kept: Recent | None = None, put: Callable[[Any], Any] = ray.put) -> Packed:
    """Put the request's centres into the object store, each once; batch and prompt too unless ``kept`` has them."""
    centers: dict[str, Array] = {}
    for candidate in request.candidates:
        if (center := _center(candidate)) is not None:
            centers.setdefault(center.id, center.vector)
    ids = tuple(centers)
    both = (request.batch, request.prompt)
    return Packed(
        candidates=tuple(_sent(candidate, ids) for candidate in request.candidates),
        ids=ids,
        refs=tuple(put(vector) for vector in centers.values()),
        shared=(Recent(1) if kept is None else kept).get_or(both, lambda: put(both)),
        gradient=request.gradient,
        fresh=request.fresh,
    )


async def unpack(packed: Packed, kept: Recent) -> Request:
    """Return the request with its centres' ids alone: all that is needed to count, cut and merge."""
    batch, prompt = await _fetched(packed.shared, kept)
    nothing = (_EMPTY,) * len(packed.ids)
    return Request(_received(packed.candidates, packed.ids, nothing), batch, prompt, packed.gradient, packed.fresh)


async def _fetched(ref: Any, kept: Recent) -> Any:
    if not isinstance(ref, ray.ObjectRef):
        return ref
    value = kept[ref.hex()] if ref.hex() in kept else await ref
    return kept.get_or(ref.hex(), lambda: value)


def _center(candidate: Candidate) -> Center | None:
    match candidate:
        case Perturbation(center=center):
            return center
        case Latent(origin=origin):
            return origin
        case _:
            return None


def _sent(candidate: Candidate, ids: Sequence[str]) -> Sent:
    match candidate:
        case Perturbation(center=center, key=key, sign=sign, radius=radius):
            return (ids.index(center.id), key, sign, radius)
        case Latent(z=z, projection=projection, origin=origin):
            return (None if origin is None else ids.index(origin.id), z, projection)
        case _:
            return candidate


def _received(sent: Sequence[Sent], ids: Sequence[str], vectors: Sequence[Array]) -> tuple[Candidate, ...]:
    centers = [Center(id_, vector) for id_, vector in zip(ids, vectors, strict=True)]
    return tuple(_candidate(one, centers) for one in sent)


def _candidate(sent: Sent, centers: Sequence[Center]) -> Candidate:
    if not isinstance(sent, tuple):
        return sent
    match sent:
        case (place, key, sign, radius):
            return Perturbation(centers[place], key, sign, radius)
        case (place, z, projection):
            return Latent(z, projection, None if place is None else centers[place])
    raise TypeError(f"no candidate is sent as {sent!r}")


# ------------------------------------------------------------------------------------------------------- tiles
@dataclass(frozen=True, eq=False, slots=True)
class Tiles:
    """Message to an oracle worker: tiles of one request, each its candidates and a range of the batch's examples."""

    tile_tasks: tuple[tuple[tuple[Sent, ...], tuple[int, int]], ...]
    ids: tuple[str, ...]
    refs: tuple[Any, ...]
    shared: Any
    gradient: bool = False
    fresh: bool = False


def tiles_of(packed: Packed, cuts: Sequence[Cut], fresh: bool = False) -> Tiles:
    """Return the tiles of a request as they are sent. ``fresh``: what was kept from before is left aside."""
    return Tiles(
        tile_tasks=tuple((packed.candidates[slice(*tile_task.candidates)], tile_task.examples) for tile_task in cuts),
        ids=packed.ids,
        refs=packed.refs,
        shared=packed.shared,
        gradient=packed.gradient,
        fresh=fresh or packed.fresh,
    )


Reply: TypeAlias = tuple[Any, ...]
"""The answer to a tile on its way: logits and features as bytes, texts, and no losses, which are made again where tiles
are merged. Ray takes several times as long to send an evaluation."""


def reply(answer: Evaluation) -> Reply:
    """Return a tile's answer as it is sent."""
    cost = answer.cost
    kept = None if answer.kept is None else answer.kept.tolist()
    return (
        answer.logits.shape,
        answer.logits.tobytes(),
        (cost.queries, cost.forwards, cost.tokens, cost.seconds, cost.usd, cost.output_tokens),
        answer.gradients,
        dict(answer.counts),
        kept,
        None if answer.features is None else (answer.features.shape, answer.features.tobytes()),
        answer.remarks,
        dict(answer.tops),
        answer.texts,
    )


def read_reply(sent: Reply) -> Evaluation:
    """Return a tile's answer without its losses."""
    shape, logits, cost, gradients, counts, kept, features, remarks, tops, texts = sent
    return Evaluation(
        losses=_NO_LOSSES,
        example_losses=_NO_LOSSES,
        logits=np.frombuffer(logits, dtype=np.float32).reshape(shape),
        cost=Cost(*cost),
        gradients=gradients,
        counts=counts,
        kept=None if kept is None else np.array(kept, dtype=np.bool_),
        features=None if features is None else np.frombuffer(features[1], dtype=np.float16).reshape(features[0]),
        remarks=remarks,
        tops=tops,
        texts=texts,
    )


@dataclass(slots=True)
class Opener:
    """Makes requests of what was sent. It keeps what came by reference last."""

    _fetched: Recent = field(default_factory=lambda: Recent(FETCHED))

    def open(self, tiles: Tiles) -> list[Request]:
        """Return each tile as a request of its own, with its centres' vectors."""
        batch, prompt = self._fetch(tiles.shared)
        vectors = [self._fetch(ref) for ref in tiles.refs]
        requests = []
        for sent, (first, last) in tiles.tile_tasks:
            part = replace(batch, examples=batch.examples[first:last])
            candidates = _received(sent, tiles.ids, vectors)
            requests.append(Request(candidates, part, prompt, tiles.gradient, tiles.fresh))
        return requests

    def _fetch(self, ref: Any) -> Any:
        if not isinstance(ref, ray.ObjectRef):
            return ref
        return self._fetched.get_or(ref.hex(), lambda: ray.get(ref))
