"""Few-shot splits: the k-shot draw of train and dev, and the class-balanced cut of a large test set.

Owns indices only; what the rows hold belongs to others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distributed_tuner import seeds
from distributed_tuner.errors import TaskError


@dataclass(frozen=True, slots=True)
class Draw:
    """Indices into the pool: ``train`` and ``dev`` in the order drawn, ``rest`` in the pool's order."""

    train: tuple[int, ...]
    dev: tuple[int, ...]
    rest: tuple[int, ...]


def draw(labels: Sequence[int], names: Sequence[str], shots: int, seed: int, halve: bool = False) -> Draw:
    """Draw ``shots`` examples per class for train and as many more for dev. ``halve``: fewer of a class that has fewer
    than twice as many, half of them each.

    The pool is shuffled by ``seed`` and walked once: an example goes to train while its class has fewer than ``shots``
    there, else to dev likewise, else to the rest (Sun et al. 2022, section 4.1; Zhan et al. 2024, section 3.1).
    Labels below 0 mark rows without a label and are left out. Raises TaskError where a class has too few examples.
    """
    counts = np.bincount([label for label in labels if label >= 0], minlength=len(names))
    each = [shots] * len(names)
    if halve:
        each = [min(shots, max(1, int(count) // 2)) for count in counts]
    _check_counts(counts, names, each)
    train: list[int] = []
    dev: list[int] = []
    rest: list[int] = []
    seen = [0] * len(names)
    for i in map(int, seeds.generator(("split", seed)).permutation(len(labels))):
        label = labels[i]
        if label < 0:
            continue
        target = train if seen[label] < each[label] else dev if seen[label] < 2 * each[label] else rest
        target.append(i)
        seen[label] += 1
    return Draw(tuple(train), tuple(dev), tuple(sorted(rest)))


def hold_out(drawn: Sequence[int], labels: Sequence[int], each: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return ``drawn`` without the last ``each`` of every class, and those; both in the order drawn."""
    left: dict[int, int] = {}
    for i in drawn:
        left[labels[i]] = left.get(labels[i], 0) + 1
    kept: list[int] = []
    held_out: list[int] = []
    for i in drawn:
        (kept if left[labels[i]] > each else held_out).append(i)
        left[labels[i]] -= 1
    return tuple(kept), tuple(held_out)


def limit(labels: Sequence[int], count: int | None) -> tuple[int, ...]:
    """Return at most ``count`` indices of labelled rows, as even over the classes as these allow, in row order.

    The choice depends on the labels alone, never on the few-shot seed. None keeps all.
    """
    kept = [i for i, label in enumerate(labels) if label >= 0]
    if count is None or count >= len(kept):
        return tuple(kept)
    order = seeds.generator(("test_limit",)).permutation(len(kept))
    # Sorting by the rank within its class takes one of every class, then a second of every class, and so on.
    ranks: dict[int, int] = {}
    ranked: list[tuple[int, int]] = []
    for i in (kept[j] for j in order):
        rank = ranks.get(labels[i], 0)
        ranks[labels[i]] = rank + 1
        ranked.append((rank, i))
    chosen = sorted(ranked, key=lambda pair: pair[0])[:count]
    return tuple(sorted(i for _, i in chosen))


def _check_counts(counts: npt.NDArray[np.int64], names: Sequence[str], each: Sequence[int]) -> None:
    scarce = [(name, int(n)) for name, n, shots in zip(names, counts, each, strict=True) if n < 2 * shots]
    if not scarce:
        return
    most = int(counts.min()) // 2
    if len(names) == 1:
        raise TaskError(
            f"train and dev need 2 x shots = {2 * max(each)} examples in the pool, but it has {scarce[0][1]}:"
            f" {f'use shots: {most} or fewer, or add examples' if most else 'add examples'}"
        )
    advice = f"use shots: {most} or fewer, or add examples" if most else "add examples, or take out its label word"
    found = ", ".join(f"{name!r} has {n}" for name, n in scarce[:5]) + (", ..." if len(scarce) > 5 else "")
    raise TaskError(
        f"every class needs 2 x shots = {2 * max(each)} examples in the pool (train and dev), but class {found}:"
        f" {advice}"
    )
