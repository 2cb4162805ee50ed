"""How a request travels: the centre of a population is put into the object store once, and known by its reference."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from distributed_tuner.values import Array, Candidate, Center, Latent, Perturbation, Request

_EMPTY: Array = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Packed:
    """A request without its centres' vectors, and where these are. The references are nested, so Ray leaves them be."""

    request: Request
    ids: tuple[str, ...]
    refs: tuple[Any, ...]


def pack(request: Request) -> Packed:
    """Put the request's centres into the object store, each once."""
    refs: dict[str, Any] = {}
    candidates = []
    for candidate in request.candidates:
        center = _center(candidate)
        if center is not None and center.id not in refs:
            refs[center.id] = ray.put(center.vector)
        candidates.append(_with_vector(candidate, _EMPTY))
    return Packed(replace(request, candidates=tuple(candidates)), tuple(refs), tuple(refs.values()))


def unpack(request: Request, ids: tuple[str, ...], vectors: tuple[Array, ...]) -> Request:
    """Give the candidates their centres' vectors back."""
    by_id = dict(zip(ids, vectors, strict=True))
    candidates = []
    for candidate in request.candidates:
        center = _center(candidate)
        candidates.append(candidate if center is None else _with_vector(candidate, by_id[center.id]))
    return replace(request, candidates=tuple(candidates))


def _center(candidate: Candidate) -> Center | None:
    match candidate:
        case Perturbation(center=center):
            return center
        case Latent(origin=origin):
            return origin
        case _:
            return None


def _with_vector(candidate: Candidate, vector: Array) -> Candidate:
    match candidate:
        case Perturbation(center=center):
            return replace(candidate, center=Center(center.id, vector))
        case Latent(origin=Center() as origin):
            return replace(candidate, origin=Center(origin.id, vector))
        case _:
            return candidate
