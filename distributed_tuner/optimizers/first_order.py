"""First-order optimizers, for models that give gradients: they store the prompt and its moments.

The formulas are those of ``maths.first_order`` and ``maths.trainable``. Where gradients come from is the business of
oracles.
"""

from abc import abstractmethod
from typing import Any, ClassVar, assert_never

import numpy as np

from distributed_tuner.config.first_order import AdamWConfig, FirstOrderSettings, SgdConfig, TrainableConfig
from distributed_tuner.maths import first_order
from distributed_tuner.maths.schedules import cosine_annealing, linear_decay
from distributed_tuner.maths.zot import clip_by_norm, norm
from distributed_tuner.optimizers.base import Optimizer, frozen_copy
from distributed_tuner.optimizers.directions import build_direction
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array, Array64, Candidate, Point


class FirstOrder(Optimizer):
    """Descends along the gradient at x: a step asks for x alone and moves it.

    The gradient is clipped by its norm over the whole prompt. Weight decay is decoupled and draws x to zero, that is to
    the prompt's base rows. A failed step moves nothing but the schedule. ``recommend`` is x, as moved by the last step
    and not scored yet. ``relocate`` changes x alone: moments, update count and schedule stay.

    ``steps`` is T of the schedule; further steps run at its floor.
    """

    white_box: ClassVar[bool] = True
    losses_are_of_the_start: ClassVar[bool] = True

    def __init__(self, settings: FirstOrderSettings, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(dim, key)
        self._settings = settings
        self._steps = steps
        self._x = frozen_copy(start)

    @property
    def queries_per_step(self) -> int:
        return 1

    @property
    def batch_size(self) -> int | None:
        return self._settings.batch_size

    def recommend(self) -> Candidate:
        return Point(self._x)

    @abstractmethod
    def _direction(self, g: Array) -> Array:
        """Take the clipped gradient into the moments; return what x moves against, both of shape (P,)."""

    def _ask(self) -> list[Candidate]:
        return [Point(self._x)]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        if gradients is None or np.isnan(losses[0]):
            return
        gamma = self._learning_rate()
        length = norm(gradients[0])
        direction = self._direction(clip_by_norm(gradients[0], self._settings.clip))
        decayed = first_order.decay(self._x, gamma, self._settings.weight_decay)
        self._x = frozen_copy(first_order.descend(decayed, direction, gamma))
        self._metrics = {
            "step_loss": float(losses[0]),
            "gradient_norm": length,
            "clipped": float(0.0 < self._settings.clip < length),
            "learning_rate": gamma,
            "x_norm": norm(self._x),
        }

    def _learning_rate(self) -> float:
        """Return gamma of the current step; the first step runs at the full rate."""
        rate, floor = self._settings.learning_rate, self._settings.floor
        match self._settings.schedule:
            case "linear":
                return linear_decay(self.steps_told, self._steps, rate, floor)
            case "cosine":
                return cosine_annealing(self.steps_told, self._steps, rate, floor)
            case "constant":
                return rate
            case unknown:
                assert_never(unknown)

    def _relocate(self, x: Array) -> None:
        self._x = x


class AdamW(FirstOrder):
    """AdamW (Loshchilov & Hutter, ICLR 2019, Algorithm 2), with torch's weight decay.

    Args:
        config: the settings (``distributed_tuner.AdamW``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        steps: T, the planned steps: the length of the learning rate's schedule.
        start: x before the first step, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Example: 30 steps on a formula with its gradient; a white-box oracle's ``value_and_grad`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner import AdamW
        >>> from distributed_tuner.optimizers import build
        >>> optimizer = build(AdamW(learning_rate=0.1), dim=40, key=(0,), steps=30)
        >>> for _ in range(30):
        ...     (asked,) = optimizer.ask()  # x, shape (40,)
        ...     loss, gradient = float(np.sum((asked.vector - 0.5) ** 2)), 2 * (asked.vector - 0.5)
        ...     optimizer.tell([loss], gradient[None])
        >>> float(np.sum((optimizer.recommend().vector - 0.5) ** 2)) < 0.1  # of 10 at the start
        True
    """

    kind: ClassVar[str] = "adamw"

    def __init__(self, config: AdamWConfig, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(config, dim=dim, key=key, steps=steps, start=start)
        self._config = config
        self._m = np.zeros(dim, dtype=np.float32)
        self._v = np.zeros(dim, dtype=np.float32)
        self._updates = 0  # t of the bias correction: failed steps do not count

    def _direction(self, g: Array) -> Array:
        beta1, beta2 = self._config.beta1, self._config.beta2
        self._updates += 1
        self._m = first_order.first_moment(self._m, g, beta1)
        self._v = first_order.second_moment(self._v, g, beta2)
        return first_order.adam_direction(self._m, self._v, self._updates, beta1, beta2, self._config.eps)

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy(), "m": self._m.copy(), "v": self._v.copy(), "updates": self._updates}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = frozen_copy(state["x"])
        self._m = np.array(state["m"], dtype=np.float32)
        self._v = np.array(state["v"], dtype=np.float32)
        self._updates = int(state["updates"])


class Sgd(FirstOrder):
    """Gradient descent with momentum as torch.optim.SGD has it, without dampening; weight decay is decoupled.

    Args:
        config: the settings (``distributed_tuner.Sgd``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        steps: T, the planned steps: the length of the learning rate's schedule.
        start: x before the first step, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Example: 30 steps on a formula with its gradient; a white-box oracle's ``value_and_grad`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner import Sgd
        >>> from distributed_tuner.optimizers import build
        >>> optimizer = build(Sgd(learning_rate=0.1, momentum=0.5, clip=0), dim=40, key=(0,), steps=30)
        >>> for _ in range(30):
        ...     (asked,) = optimizer.ask()  # x, shape (40,)
        ...     loss, gradient = float(np.sum((asked.vector - 0.5) ** 2)), 2 * (asked.vector - 0.5)
        ...     optimizer.tell([loss], gradient[None])
        >>> float(np.sum((optimizer.recommend().vector - 0.5) ** 2)) < 0.1  # of 10 at the start
        True
    """

    kind: ClassVar[str] = "sgd"

    def __init__(self, config: SgdConfig, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(config, dim=dim, key=key, steps=steps, start=start)
        self._config = config
        self._m = np.zeros(dim, dtype=np.float32)

    def _direction(self, g: Array) -> Array:
        self._m = first_order.momentum_sum(self._m, g, self._config.momentum)
        return self._m

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy(), "m": self._m.copy()}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = frozen_copy(state["x"])
        self._m = np.array(state["m"], dtype=np.float32)


class Trainable(FirstOrder):
    """The Trainable Optimizer: x moves along ``A x + b``, which has learnt from every gradient, the last one included.

    In a training loop of PyTorch, ``distributed_tuner.optimizers.TrainableOptimizer`` does the same for any parameters.

    Args:
        config: the settings (``distributed_tuner.config.first_order.TrainableConfig``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        steps: T, the planned steps: the length of the learning rate's schedule.
        start: x before the first step, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Example: 30 steps on a formula with its gradient; a white-box oracle's ``value_and_grad`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner.config.first_order import TrainableConfig
        >>> from distributed_tuner.optimizers import build
        >>> optimizer = build(TrainableConfig(learning_rate=0.1), dim=40, key=(0,), steps=30)
        >>> for _ in range(30):
        ...     (asked,) = optimizer.ask()  # x, shape (40,)
        ...     loss, gradient = float(np.sum((asked.vector - 0.5) ** 2)), 2 * (asked.vector - 0.5)
        ...     optimizer.tell([loss], gradient[None])
        >>> float(np.sum((optimizer.recommend().vector - 0.5) ** 2)) < 8  # of 10 at the start
        True
    """

    kind: ClassVar[str] = "trainable"

    def __init__(self, config: TrainableConfig, *, dim: int, key: Key, steps: int, start: Array) -> None:
        super().__init__(config, dim=dim, key=key, steps=steps, start=start)
        self._estimate = build_direction(config.estimator, dim, key)

    def _direction(self, g: Array) -> Array:
        return self._estimate.learn(self._x, g)

    def _save(self) -> dict[str, Any]:
        return {"x": self._x.copy(), **self._estimate.save()}

    def _load(self, state: dict[str, Any]) -> None:
        self._x = frozen_copy(state["x"])
        self._estimate.load(state)
