"""Bytes of a candidate on its way from trial to dispatcher to oracle actor.

The optimizers themselves make the candidates, and what is counted is what is sent, as Ray pickles it, without Ray's own
envelope. Needs a running Ray: what is put once is put for real.
"""

from dataclasses import dataclass

import numpy as np
from ray import cloudpickle

from actors.pool.messages import pack, tiles_of
from benchmarks.populations import INTRINSIC
from benchmarks.texts import batch
from distributed_tuner import optimizers
from distributed_tuner.config.optimizer import CmaConfig, ZotConfig
from distributed_tuner.config.oracle import Tile
from distributed_tuner.oracles.tiling import cut
from distributed_tuner.seeds import Key
from distributed_tuner.values import Candidate, Center, Latent, Perturbation, PromptSpec, Request, Text

CANDIDATES = 20
TILE = 4  # candidates; what "auto" is on a CPU
LENGTH, WIDTH = 50, 576  # rows of the prompt, and their width in SmolLM2-135M
KEY: Key = (0, "trial-0000", 0)
TEXT = "Say which team should take care of the customer's message below. Variant {:02d}."


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes of a request of ``candidates``. request: from trial to dispatcher; tile: of one tile from there on.

    each: what one candidate more adds to the request. once: vectors that are put into the object store once a step.
    """

    asks: str
    candidates: int
    tile_candidates: int
    request: int
    tile: int
    each: float
    once: int

    @property
    def to_dispatcher(self) -> float:
        """Bytes of a candidate, with its share of everything else in the request."""
        return self.request / self.candidates

    @property
    def to_oracle(self) -> float:
        """Bytes of a candidate, with its share of everything else in its tile."""
        return self.tile / self.tile_candidates


def measure() -> list[Row]:
    """Return a row for ZOT, CMA-ES and prompts in words."""
    return [_row(name, candidates) for name, candidates in populations().items()]


def populations() -> dict[str, tuple[Candidate, ...]]:
    """Return the candidates of one step of each kind of search."""
    dim = LENGTH * WIDTH
    start = np.full(dim, 0.01, dtype=np.float32)
    zot = ZotConfig(kind="zot", points=CANDIDATES // 2, rho=0.1, learning_rate=1.0)
    cma = CmaConfig(kind="cma", popsize=CANDIDATES, intrinsic_dim=INTRINSIC)
    asked = [optimizers.build(config, dim=dim, key=KEY, steps=10, start=start).ask() for config in (zot, cma)]
    texts = tuple(Text(TEXT.format(i)) for i in range(CANDIDATES))
    return {"ZOT": tuple(asked[0]), f"CMA-ES, {INTRINSIC} dimensions": tuple(asked[1]), "words": texts}


def center_of(candidate: Candidate) -> Center | None:
    """Return the point that a candidate is given by, if it is."""
    match candidate:
        case Perturbation(center=center):
            return center
        case Latent(origin=origin):
            return origin
        case _:
            return None


def _row(name: str, candidates: tuple[Candidate, ...]) -> Row:
    examples, prompt = batch("quickstart"), PromptSpec(LENGTH, "text", "", "prefix", "embedding")
    whole = Request(candidates, examples, prompt)
    half = Request(candidates[: len(candidates) // 2], examples, prompt)
    packed = pack(whole)
    each = (_size(packed) - _size(pack(half))) / (len(candidates) - len(half.candidates))
    tile = _size(tiles_of(packed, cut(whole, Tile(candidates=TILE))[:1]))
    centers = {center.id: center.vector.nbytes for center in map(center_of, candidates) if center is not None}
    once = sum(centers.values())
    return Row(name, len(candidates), TILE, _size(packed), tile, each, once)


def _size(sent: object) -> int:
    return len(cloudpickle.dumps(sent))
