"""How requests and tiles travel: what many of them share is put into the object store once, and known by its reference.

A request carries recipes; the centres of its candidates are references, and so are batch and prompt for the oracle
actors. References are nested in what is sent, so that Ray leaves them be, and whoever needs them fetches each once.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray

from distributed_tuner.oracles.tiling import Cut
from distributed_tuner.values import Array, Candidate, Center, Latent, Perturbation, Request

_EMPTY: Array = np.zeros(0, dtype=np.float32)
PUT = 16  # batches with prompts that a trial keeps in the object store
FETCHED = 64  # references whose values an actor keeps; trials that share it have two each in use


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
    """A request without its centres' vectors, and where these are.

    ``shared``: the reference of its (batch, prompt), or the two themselves.
    """

    request: Request
    ids: tuple[str, ...]
    refs: tuple[Any, ...]
    shared: Any = None


def pack(request: Request, put: Recent | None = None) -> Packed:
    """Put the request's centres into the object store, each once; batch and prompt too unless ``put`` has them."""
    refs: dict[str, Any] = {}
    bare: dict[str, Center] = {}
    candidates = []
    for candidate in request.candidates:
        center = _center(candidate)
        if center is not None and center.id not in refs:
            refs[center.id] = ray.put(center.vector)
            bare[center.id] = Center(center.id, _EMPTY)
        candidates.append(candidate if center is None else _with_center(candidate, bare[center.id]))
    both = (request.batch, request.prompt)
    shared = (Recent(1) if put is None else put).get_or(both, lambda: ray.put(both))
    return Packed(replace(request, candidates=tuple(candidates)), tuple(refs), tuple(refs.values()), shared)


def unpack(request: Request, ids: tuple[str, ...], vectors: tuple[Array, ...]) -> Request:
    """Give the candidates their centres' vectors back."""
    centers = {id_: Center(id_, vector) for id_, vector in zip(ids, vectors, strict=True)}
    candidates = []
    for candidate in request.candidates:
        center = _center(candidate)
        candidates.append(candidate if center is None else _with_center(candidate, centers[center.id]))
    return replace(request, candidates=tuple(candidates))


def _center(candidate: Candidate) -> Center | None:
    match candidate:
        case Perturbation(center=center):
            return center
        case Latent(origin=origin):
            return origin
        case _:
            return None


def _with_center(candidate: Candidate, center: Center) -> Candidate:
    match candidate:
        case Perturbation():
            return replace(candidate, center=center)
        case Latent():
            return replace(candidate, origin=center)
        case _:
            return candidate


# ------------------------------------------------------------------------------------------------------- tiles
@dataclass(frozen=True, eq=False, slots=True)
class Tiles:
    """What an oracle actor is sent: tiles of one request, each its candidates and a range of the batch's examples."""

    pieces: tuple[tuple[tuple[Candidate, ...], tuple[int, int]], ...]
    ids: tuple[str, ...]
    refs: tuple[Any, ...]
    shared: Any
    gradient: bool = False
    fresh: bool = False


def tiles_of(packed: Packed, cuts: Sequence[Cut], fresh: bool = False) -> Tiles:
    """Return the tiles of a request as they are sent. ``fresh``: what was kept from before is left aside."""
    request = packed.request
    return Tiles(
        pieces=tuple((request.candidates[slice(*piece.candidates)], piece.examples) for piece in cuts),
        ids=packed.ids,
        refs=packed.refs,
        shared=(request.batch, request.prompt) if packed.shared is None else packed.shared,
        gradient=request.gradient,
        fresh=fresh or request.fresh,
    )


@dataclass(slots=True)
class Opener:
    """Makes requests of what was sent. It keeps what came by reference last."""

    _fetched: Recent = field(default_factory=lambda: Recent(FETCHED))

    def open(self, tiles: Tiles) -> list[Request]:
        """Return each tile as a request of its own, with its centres' vectors."""
        batch, prompt = self._fetch(tiles.shared)
        vectors = tuple(self._fetch(ref) for ref in tiles.refs)
        requests = []
        for candidates, (first, last) in tiles.pieces:
            part = replace(batch, examples=batch.examples[first:last])
            bare = Request(candidates, part, prompt, tiles.gradient, tiles.fresh)
            requests.append(unpack(bare, tiles.ids, vectors))
        return requests

    def _fetch(self, ref: Any) -> Any:
        if not isinstance(ref, ray.ObjectRef):
            return ref
        return self._fetched.get_or(ref.hex(), lambda: ray.get(ref))
