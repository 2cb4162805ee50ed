"""ZOT as an optimizer: it stores the prompt, and applies the formulas of ``maths.zot`` to it."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.estimator import MomentumEstimatorConfig
from distributed_tuner.config.optimizer import ZotConfig
from distributed_tuner.errors import ConfigError
from distributed_tuner.maths import zot
from distributed_tuner.maths.schedules import cosine_annealing
from distributed_tuner.optimizers.base import Optimizer, frozen_copy
from distributed_tuner.optimizers.centers import make_center
from distributed_tuner.optimizers.directions import Direction, MomentumDirection, build_direction
from distributed_tuner.seeds import Key, standard_normal
from distributed_tuner.values import Array, Array64, Candidate, Perturbation, Point


class Zot(Optimizer):
    """Zeroth-order tuning (ZOT, EMNLP Findings 2024, Algorithm 3); ZO-SGD (Algorithm 2) with its additions off.

    With a trained estimator (``estimator``), "A Trainable Optimizer" (Wang & Klabjan 2025) takes the place of the
    running mean: A and b learn from each clipped estimate, and x moves along ``A x + b``.

    A step asks for the pairs ``x + rho z_1, x - rho z_1, x + rho z_2, ...`` around one centre. z_i belongs to the key
    ``(*key, step, i)`` and is drawn again in ``tell``, so that nothing but x and m is kept. A pair of which a member
    failed is left out of the mean; where no pair is whole, x, m (or A and b) and their count of updates stay, and only
    the schedule moves on. ``recommend`` is x itself, which has not been scored.

    Steps behind T run at the floor of the schedule. ``relocate`` changes x alone: the estimate, its update count and
    the schedule stay.

    Args:
        config: the settings (``distributed_tuner.Zot``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        steps: T, the planned steps: the length of the cosine schedule.
        start: x before the first step, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Raises:
        ConfigError: a setting is still "auto".

    Example: a loss that is a formula; an oracle's ``evaluate`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner import Zot
        >>> from distributed_tuner.optimizers import build
        >>> from distributed_tuner.prompts.recipes import Recipes
        >>> recipes = Recipes(embedding_std=1.0)
        >>> optimizer = build(Zot(points=4, learning_rate=0.05, momentum=0.5), dim=40, key=(0,), steps=100)
        >>> for _ in range(100):
        ...     prompts = [recipes.coordinates(asked, dim=40, unit=1.0) for asked in optimizer.ask()]
        ...     optimizer.tell([float(np.sum((x - 0.5) ** 2)) for x in prompts])
        >>> x = recipes.coordinates(optimizer.recommend(), dim=40, unit=1.0)
        >>> float(np.sum((x - 0.5) ** 2)) < 0.1  # of 10 at the start
        True
    """

    kind: ClassVar[str] = "zot"
    losses_are_of_the_start: ClassVar[bool] = True

    def __init__(self, config: ZotConfig, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(dim, key)
        self._config = config
        self._points, self._rho, self._gamma = _numbers(config)
        self._steps = steps
        self._x = frozen_copy(start)
        self._direction = _direction(config, dim, key)

    @property
    def queries_per_step(self) -> int:
        return 2 * self._points

    @property
    def batch_size(self) -> int | None:
        return self._config.batch_size

    def recommend(self) -> Candidate:
        return Point(self._x)

    def _ask(self) -> list[Candidate]:
        center = make_center(self.key, self.steps_told, self._x)
        return [
            Perturbation(center, self._noise_key(i), sign, self._rho) for i in range(self._points) for sign in (1, -1)
        ]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        pairs = losses.reshape(-1, 2)
        whole = [i for i, pair in enumerate(pairs) if not np.isnan(pair).any()]
        if not whole:
            return
        deltas = [zot.coefficient(float(pairs[i, 0]), float(pairs[i, 1]), self._rho) for i in whole]
        g = zot.gradient_estimate(deltas, self._noise(whole), self.dim)
        gamma = self._learning_rate()
        length = zot.norm(g)
        clipped = zot.clip_by_norm(g, self._config.clip)
        estimate = self._direction.learn(self._x, clipped)
        self._x = zot.update(self._x, estimate, gamma)
        self._x.flags.writeable = False
        self._metrics = {
            "gradient_norm": length,
            "clipped": float(0.0 < self._config.clip < length),
            "learning_rate": gamma,
            "estimate_norm": zot.norm(estimate),
            "x_norm": zot.norm(self._x),
        }

    def _learning_rate(self) -> float:
        """Return gamma of the current step; the first step runs at the full rate."""
        if self._config.schedule == "constant":
            return self._gamma
        return cosine_annealing(self.steps_told, self._steps, self._gamma, self._config.floor)

    def _noise_key(self, i: int) -> Key:
        return (*self.key, self.steps_told, i)

    def _noise(self, indices: list[int]) -> Iterator[Array]:
        return (standard_normal(self._noise_key(i), self.dim) for i in indices)

    def _relocate(self, x: Array) -> None:
        self._x = x

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy(), **self._direction.save()}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = frozen_copy(state["x"])
        self._direction.load(state)


def _numbers(config: ZotConfig) -> tuple[int, float, float]:
    if config.points == "auto" or config.rho == "auto" or config.learning_rate == "auto":
        raise ConfigError(
            f"zot takes steps with measured settings, but {', '.join(config.unresolved)} are still auto: resolve them"
            " first (ZotConfig.resolved)"
        )
    return config.points, config.rho, config.learning_rate


def _direction(config: ZotConfig, dim: int, key: Key) -> Direction:
    if isinstance(config.estimator, MomentumEstimatorConfig):
        return MomentumDirection(dim, config.momentum, config.bias_correction)
    return build_direction(config.estimator, dim, key)
