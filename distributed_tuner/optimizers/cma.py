"""BBT: pycma's CMA-ES on a latent vector. It owns the strategy, its noise and its exact state.

The projection to prompt coordinates happens beside the model; which generation is scored on dev is the stage's choice.
"""

import sys
import warnings
from contextlib import AbstractContextManager
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.maths.bbt import solve_projection
from distributed_tuner.optimizers.base import Optimizer, Race, ranked_last
from distributed_tuner.optimizers.latent import LatentSpace
from distributed_tuner.optimizers.pycma_state import put, taken
from distributed_tuner.optimizers.seeded_globals import isolated_randomness
from distributed_tuner.prompts.recipes import projection_matrix
from distributed_tuner.seeds import Key, generator
from distributed_tuner.values import Array, Array64, Candidate

RULES = {"csa": "CMAAdaptSigmaCSA", "tpa": "CMAAdaptSigmaTPA"}
"""pycma's names of step-size rules."""


class StepNoise:
    """pycma's ``randn``: standard normals of the stream that ``restart`` named last, never numpy's global generator."""

    def __init__(self, key: Key) -> None:
        self.restart(key)

    def restart(self, key: Key) -> None:
        """Begin the stream of ``key``."""
        self._generator = generator(key)

    def __call__(self, *shape: int) -> Array64:
        return self._generator.standard_normal(shape)


class Cma(Optimizer):
    """Black-Box Tuning (BBT, ICML 2022, Algorithm 1): one generation of CMA-ES per step, candidates ``start + A z``.

    Failed queries rank last in their generation; a generation without a finite loss is thrown away and drawn anew.
    pycma's own stop rules are reported in ``stop_reason`` and do not stop anything. The strategy is told the float64
    vectors it proposed, although candidates carry float32.

    The step size follows the rule that ``config.step_size`` names. With two-point adaptation (``tpa``) the first two
    candidates of a generation lie on either side of the mean, along its last step, and sigma follows their ranks alone.

    Raced candidates outside the best mu (pycma's number of parents) may come with estimated losses. They take no part
    in the mean, and none in sigma: with ``csa`` it follows the mean, with ``tpa`` the race keeps the ranks of the two
    exact. The active update of the covariance, which weighs all by rank, sees approximate ranks among the estimated.

    ``relocate`` makes the new point the origin and the mean zero; sigma, covariance and evolution paths stay.
    ``inject`` makes the point's nearest one in the subspace, by least squares, a solution of the next generation; what
    of the point lies outside the subspace, or beyond ``bound``, is lost. Of several, the last counts.

    Noise belongs to the key ``(*key, step)``. The state holds the strategy's numbers, which are put into a new one; one
    that takes the state of another goes on with its step-size rule.

    Args:
        config: the settings (``distributed_tuner.Cma``).
        dim: P, coordinates of a prompt: its rows L times the model's width D.
        key: prefix of all its random numbers, such as (seed, trial, stage).
        start: the origin of the subspace, shape (P,), float32. Its unit is a standard deviation of the
            embeddings, or 1 (``prompt.scale``).

    Raises:
        ConfigError: ``alpha`` is still "auto".

    Example: 30 generations on a formula; an oracle's ``evaluate`` takes its place.

        >>> import numpy as np
        >>> from distributed_tuner import Cma
        >>> from distributed_tuner.optimizers import build
        >>> from distributed_tuner.prompts.recipes import Recipes
        >>> recipes = Recipes(embedding_std=1.0)
        >>> optimizer = build(Cma(intrinsic_dim=10, popsize=10), dim=40, key=(0,), steps=30)
        >>> for _ in range(30):
        ...     prompts = [recipes.coordinates(asked, dim=40, unit=1.0) for asked in optimizer.ask()]
        ...     optimizer.tell([float(np.sum((x - 0.5) ** 2)) for x in prompts])
        >>> x = recipes.coordinates(optimizer.recommend(), dim=40, unit=1.0)
        >>> float(np.sum((x - 0.5) ** 2)) < 9  # of 10 at the start
        True
    """

    kind: ClassVar[str] = "cma"

    def __init__(self, config: CmaConfig, *, dim: int, key: Key, start: Array) -> None:
        super().__init__(dim, key)
        self._config = config
        self._space = LatentSpace.around(start, config, key)
        self._options = {"sigma": config.sigma, "popsize": config.popsize, "bound": config.bound}
        self._step_size: str = config.step_size
        self._solutions_C_K: list[Array64] = []
        self._directions: list[Array64] = []
        self._injected: list[Array64] = []
        self._best_K: Array64 = np.zeros(config.intrinsic_dim)
        self._stop_reason: str | None = None

    @cached_property
    def _es(self) -> Any:
        """pycma's strategy, made when it is first needed: pycma takes seconds to import, and a plan does without."""
        return self._new_strategy()

    def _new_strategy(self) -> Any:
        noise = StepNoise(self.key)
        more = self._further_options(noise)
        return _make_strategy(
            self._config.intrinsic_dim, **self._options, step_size=self._step_size, noise=noise, more=more
        )

    def _further_options(self, noise: StepNoise) -> dict[str, Any]:
        """Return pycma options in addition to those from the settings; empty unless a variant adds some."""
        return {}

    @property
    def queries_per_step(self) -> int:
        told = self._config.model_copy(update={"popsize": int(self._options["popsize"])})  # a state has its own
        return told.candidates

    @property
    def batch_size(self) -> int | None:
        return self._config.batch_size

    @property
    def race(self) -> Race | None:
        block = self._config.race_block
        pair = (0, 1) if self._step_size == "tpa" and self._directions else ()  # none in the first generation
        return Race(block, int(self._es.sp.weights.mu), pair) if block else None

    @property
    def stop_reason(self) -> str | None:
        return self._stop_reason

    def recommend(self) -> Candidate:
        if self._config.recommend == "best":
            return self._space.candidate(self._best_K)
        mean_K = self._es.gp.pheno(self._es.mean, into_bounds=self._es.boundary_handler.repair)
        return self._space.candidate(np.asarray(mean_K, dtype=np.float64))

    def _ask(self) -> list[Candidate]:
        self._es.opts["randn"].restart((*self.key, self.steps_told))
        self._directions = [np.array(direction) for direction in self._es.pop_injection_directions]
        self._injected = [np.array(solution) for solution in self._es.pop_injection_solutions]
        with self._isolated("ask"):
            self._solutions_C_K = self._es.ask()
        return [self._space.candidate(z_K) for z_K in self._solutions_C_K]

    def _tell(self, candidates: tuple[Candidate, ...], losses: Array64, gradients: Array | None) -> None:
        if np.isnan(losses).all():
            self._es.pop_injection_directions = self._directions  # used up by ask; the next ask needs them again
            self._es.pop_injection_solutions = self._injected
            return
        with self._isolated("tell"):
            self._es.tell(self._solutions_C_K, ranked_last(losses, float(np.nanmax(losses))).tolist())
        self._best_K = np.array(self._solutions_C_K[int(np.nanargmin(losses))], dtype=np.float64)
        self._stop_reason = ", ".join(f"{name}={value}" for name, value in self._es.stop().items()) or None
        axes = np.asarray(self._es.D, dtype=np.float64)
        self._metrics = {
            "sigma": float(self._es.sigma),
            "axis_ratio": float(axes.max() / axes.min()),
            "step_loss": float(np.nanmin(losses)),
            "mean_norm": float(np.linalg.norm(self._es.mean)),
        }

    def _isolated(self, part: str) -> AbstractContextManager[None]:
        """Keep pycma from numpy's global generator, which its consistency check of two-point adaptation draws from."""
        return isolated_randomness((*self.key, self.steps_told, part))

    def _relocate(self, x: Array) -> None:
        self._space = self._space.moved(x, self.key, self.steps_told)
        self._es.mean = np.zeros_like(self._es.mean)  # a new array: the strategy keeps the old one as mean_old
        self._best_K = np.zeros(self._config.intrinsic_dim)
        self._stop_reason = None

    def _inject(self, x: Array, embedding_std: float, unit: float) -> None:
        a_P_K = projection_matrix(self._space.projection, self.dim, embedding_std)
        origin = self._space.origin
        away = x if origin is None else x - origin.vector
        z_K = solve_projection(a_P_K, away * np.float32(unit))
        if bound := self._options["bound"]:
            z_K = np.clip(z_K, -bound, bound)
        geno_K = self._es.gp.geno(z_K, from_bounds=self._es.boundary_handler.inverse)
        self._es.pop_injection_solutions = []
        # As it is: without force pycma keeps a point near the mean and shortens a far one to a random length.
        self._es.inject([geno_K], force=True)
        self._stop_reason = None  # there is something new to try

    def _save(self) -> dict[str, Any]:
        return {
            "options": dict(self._options),
            "step_size": self._step_size,
            "strategy": taken(self._es),
            "space": self._space.state(),
            "best": self._best_K.copy(),
            "stop_reason": self._stop_reason or "",
        }

    def _load(self, state: dict[str, Any]) -> None:
        self._space = LatentSpace.restored(state["space"], self._config.intrinsic_dim, self.key)
        self._options = {name: float(state["options"][name]) for name in self._options}
        self._step_size = str(state.get("step_size", self._config.step_size))  # older versions do not write it
        self._es = self._new_strategy()
        put(self._es, state["strategy"])
        self._best_K = np.array(state["best"], dtype=np.float64)
        self._stop_reason = state["stop_reason"] or None


def _make_strategy(
    dim: int, *, sigma: float, popsize: float, bound: float, step_size: str, noise: StepNoise, more: dict[str, Any]
) -> Any:
    """Return pycma's CMAEvolutionStrategy with its defaults, silent, without files, drawing all samples from ``noise``.

    popsize, bound: 0 for pycma's own, and for none. step_size: of ``RULES``; pycma's own choice would follow dim. more:
    options of pycma's beside these.
    """
    pycma = _pycma()
    options: dict[str, Any] = {
        "randn": noise,
        "AdaptSigma": getattr(pycma.sigma_adaptation, RULES[step_size]),
        "seed": np.nan,  # "do nothing" in pycma: numpy's global generator is left alone
        "verbose": -9,
        "verb_log": 0,
        "signals_filename": "",  # otherwise stop() looks for a file in the working directory
        **more,
    }
    if popsize:
        options["popsize"] = int(popsize)
    if bound:
        options["bounds"] = [-bound, bound]
    strategy = pycma.CMAEvolutionStrategy(np.zeros(dim), sigma, options)
    strategy.timer = import_module("cma.utilities.utils").ElapsedWCTime()  # made by the first ask, where there is one
    return strategy


def _pycma() -> Any:
    """Import pycma without the packages that it can do without: most of its import's seconds are theirs.

    It wants them for its plots and for a test of its surrogate models, neither of which is used here.
    """
    absent = [name for name in ("matplotlib", "scipy.stats") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: an import of it fails
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is missing
            return import_module("cma")
    finally:
        for name in absent:
            del sys.modules[name]
