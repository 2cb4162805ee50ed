"""Settings of the optimizers, one class a kind. The objects themselves are built in ``distributed_tuner.optimizers``.

The defaults are those of the papers' own code: ZOT (Zhan et al., EMNLP Findings 2024) and BBT (Sun et al., ICML 2022).
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from distributed_tuner.config.base import LABEL, Config, Read
from distributed_tuner.config.custom import CustomPart
from distributed_tuner.config.estimator import (
    EstimatorConfig,
    MomentumEstimatorConfig,
)

Auto: TypeAlias = Literal["auto"]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
AtLeastOne: TypeAlias = Annotated[int, Field(ge=1)]


class OptimizerSettings(Config):
    """Settings common to all optimizers, and all that a run reads of them in addition to ``kind``.

    A new kind has it from here, and says anew what is otherwise with it.
    """

    radius_setting: ClassVar[str | None] = None
    """Which setting is the distance of the first step's candidates from where it begins; None: no single one is."""

    name: str | None = Field(default=None, pattern=LABEL)
    """Label in tables and reports; the kind when it is not given."""

    @property
    def label(self) -> str:
        """Return ``name``, or the kind where no name was given."""
        return self.name or str(getattr(self, "kind", "optimizer"))

    @property
    def is_discrete(self) -> bool:
        """Whether it searches prompts in words, and not coordinates of soft ones."""
        return False

    @property
    def radius(self) -> float | None:
        """The distance that ``radius_setting`` names; None where it names none or is left to be measured."""
        name = self.radius_setting
        return None if name is None or name in self.unresolved else float(getattr(self, name))

    @property
    def plans_ahead(self) -> bool:
        """Whether its steps depend on how many are planned; if not, a longer search begins as a shorter one does."""
        return getattr(self, "schedule", "constant") != "constant"

    @property
    def radius_is_measured(self) -> bool:
        """Whether how far the first step's candidates go is left to be measured."""
        return self.radius_setting in self.unresolved

    @property
    def measurable(self) -> tuple[str, ...]:
        """The settings that may be "auto": the trial then measures them around its start, before the first step."""
        return ()

    @property
    def unresolved(self) -> tuple[str, ...]:
        """The settings that are left to be measured."""
        return tuple(name for name in self.measurable if getattr(self, name) == "auto")

    def resolved(self, measured: Mapping[str, float]) -> Self:
        """Return the settings with measured numbers where "auto" stands, or the defaults where none was measured."""
        fields = type(self).model_fields
        return self.model_copy(
            update={name: measured.get(name, fields[name].default) for name in self.unresolved},
        )

    def chosen(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return all measurable settings by name, as ``resolved`` has them; those that are known."""
        resolved = self.resolved(measured)
        return {name: getattr(resolved, name) for name in self.measurable}

    @property
    def race_examples(self) -> int:
        """Examples a block where the candidates of a step are raced; 0: they are not."""
        return 0

    @property
    def takes_candidates(self) -> bool:
        """Whether a prompt can be handed in, to be one of the next step's candidates."""
        return False


class RandomSearchConfig(OptimizerSettings):
    """Gaussian samples around the start; the best one seen is kept. The baseline that needs no tuning."""

    radius_setting: ClassVar[str | None] = "sigma"

    kind: Literal["random_search"] = "random_search"
    """Names this optimizer."""
    sigma: float = Field(default=0.5, gt=0)
    """Standard deviation of each coordinate around the start, in the prompt's units."""
    popsize: int = Field(default=8, ge=1)
    """Candidates per step."""


class ZotConfig(OptimizerSettings):
    """ZOT: two-point zeroth-order gradients with clipping, momentum, bias correction and cosine annealing (Alg. 3).

    Plain ZO-SGD (Alg. 2) is the same thing with its additions off: ``clip: 0``, ``momentum: 0``,
    ``schedule: constant``.

    ``points``, ``rho`` and ``learning_rate`` may be "auto": the trial then measures noise and curvature of the loss
    around its start, out of its own budget, before the first step, and takes them from there (``maths.survey``).

    Example:
        >>> from distributed_tuner import Analytic, Zot, tune
        >>> data = (["good film", "bad film"] * 8, ["positive", "negative"] * 8)
        >>> result = tune(Analytic(), data, optimizer=Zot(points=2, learning_rate=0.5), budget=60, progress=False)
        >>> result.summary["best"]["method"]
        'zot'
    """

    radius_setting: ClassVar[str | None] = "rho"
    reads: ClassVar[tuple[Read, ...]] = (
        Read(("momentum", "bias_correction"), "estimator.kind", where=("momentum",)),
        Read(("floor",), "schedule", where=("cosine",)),
    )

    kind: Literal["zot"] = "zot"
    """Names this optimizer."""
    points: AtLeastOne | Auto = 1
    """n: random directions per step; each costs two queries. "auto": the largest n whose query
    cost for equal progress is within 10 % of n = 1."""
    rho: Positive | Auto = 0.1
    """Perturbation radius: candidates are ``x +- rho z``, z standard normal. "auto": the radius at which noise
    of the losses and their curvature together disturb a slope least."""
    learning_rate: Positive | Auto = 0.1
    """gamma_max: the step size at the start of the schedule. "auto": n / ((D_e + n + 1) L), the theory's."""
    clip: float = Field(default=100.0, ge=0)
    """Largest L2 norm of a gradient estimate, over the whole prompt; 0 turns clipping off."""
    momentum: float = Field(default=0.96, ge=0, lt=1)
    """beta: decay of the running mean of gradients; 0 turns momentum off."""
    bias_correction: bool = True
    """Divide the running mean by ``1 - beta^t``, so that early steps are not too small."""
    estimator: EstimatorConfig = MomentumEstimatorConfig()
    """Direction of the steps: the running mean ("momentum"), or a trained estimate in its place, which has rates of
    its own and reads neither ``momentum`` nor ``bias_correction``."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Schedule of the step size over the planned steps."""
    floor: float = Field(default=0.1, ge=0, le=1)
    """Final value of the cosine, as a ratio of ``learning_rate``."""
    batch_size: int = Field(default=64, ge=1)
    """Training examples per step, the same for all its queries; all of them where there are fewer."""

    @property
    def measurable(self) -> tuple[str, ...]:
        return ("points", "rho", "learning_rate")


class SurrogateConfig(OptimizerSettings):
    """Steps to where a model of all queries so far, a Gaussian process, expects the lowest loss. It has no learning
    rate."""

    radius_setting: ClassVar[str | None] = "rho"

    kind: Literal["surrogate"] = "surrogate"
    """Names this optimizer."""
    popsize: int = Field(default=20, ge=6)
    """Candidates per step: four steps, each damped otherwise, and random probes around one of them."""
    rho: float = Field(default=0.3, gt=0)
    """Probes are ``x + rho z``, z standard normal."""
    of: Literal["losses", "answers"] = "losses"
    """What the process predicts: "losses", or the scores of all label words on all train rows ("answers"), of which the
    loss is then computed. Answers need a loss with a slope: task.loss other than zero_one, and objective.head
    label_words or bias, scored on train."""


class LatentSettings(OptimizerSettings):
    """Settings common to searches in a random low-dimensional subspace (BBT, Sec. 3)."""

    radius_setting: ClassVar[str | None] = "sigma"
    reads: ClassVar[tuple[Read, ...]] = (Read(("alpha",), "projection", where=("normal",)),)

    intrinsic_dim: int = Field(default=500, ge=2)
    """K: coordinates that are searched; a fixed random matrix maps them to the prompt."""
    alpha: Positive | Auto = 1.0
    """Scale of the "normal" projection: prompts drawn at ``sigma`` are alpha times as wide as the embeddings."""
    sigma: float = Field(default=1.0, gt=0)
    """Initial standard deviation of each searched coordinate."""
    projection: Literal["normal", "uniform"] = "normal"
    """Entries of the matrix: fitted to the embeddings (BBTv2's code), or U(-1/sqrt(K), 1/sqrt(K)) (published BBT)."""


class CmaConfig(LatentSettings):
    """BBT: CMA-ES on the latent vector. Every candidate is scored on the whole training set, unless it is raced or
    generations have mini-batches.

    Example:
        >>> from distributed_tuner import Analytic, Cma, tune
        >>> data = (["good film", "bad film"] * 8, ["positive", "negative"] * 8)
        >>> result = tune(Analytic(), data, optimizer=Cma(intrinsic_dim=20, popsize=8), budget=60, progress=False)
        >>> result.summary["best"]["method"]
        'cma'
    """

    kind: Literal["cma"] = "cma"
    """Names this optimizer."""
    alpha: Positive | Auto = 1.0
    """Scale of the "normal" projection: prompts drawn at ``sigma`` are alpha times as wide as the embeddings. "auto":
    the trial scores some prompts around its start at several widths, out of its own budget, before the first
    generation, and takes the width at which a generation should lower the loss most (``maths.ladder``)."""
    popsize: int = Field(default=20, ge=0)
    """Candidates per generation; 0 leaves pycma its own 4 + 3 ln K."""
    bound: float = Field(default=0.0, ge=0)
    """Keep every latent coordinate within [-bound, bound]; 0 means no bound."""
    step_size: Literal["csa", "tpa"] = "csa"
    """Rule that adapts sigma. "csa": by the length of the mean's path (cumulative step-size adaptation), as pycma did
    in any number of dimensions when BBT was published; "tpa": by the ranks of two candidates before and behind the last
    step (two-point adaptation), which pycma 4.5 by itself takes from 300 dimensions on."""
    recommend: Literal["mean", "best"] = "best"
    """Scored on dev: "best" of the last generation by loss (as the papers' code), or the distribution's "mean"."""
    race_block: int = Field(default=0, ge=0)
    """Examples a block: candidates are raced, and those that cannot become parents any more stop early. 0: no race."""
    batch_size: int | None = Field(default=None, ge=1)
    """Training examples per generation, drawn anew for each and the same for all its candidates; all when left out."""

    @property
    def candidates(self) -> int:
        """Candidates per generation."""
        return self.popsize or 4 + int(3 * math.log(self.intrinsic_dim))  # pycma's own

    @property
    def measurable(self) -> tuple[str, ...]:
        return ("alpha",)

    @property
    def radius_is_measured(self) -> bool:
        return self.alpha == "auto"

    @property
    def race_examples(self) -> int:
        return self.race_block

    @property
    def takes_candidates(self) -> bool:
        return True

    @model_validator(mode="after")
    def _a_population(self) -> "CmaConfig":
        least = 4 if self.step_size == "tpa" else 2  # two of them are the pair by which tpa goes
        if 0 < self.popsize < least:
            raise ValueError(
                f"a generation with step_size: {self.step_size} has at least {least} candidates, got {self.popsize}:"
                " use 0 for pycma's default"
            )
        return self


class NevergradConfig(LatentSettings):
    """Any optimizer of nevergrad's registry, in the latent subspace or on the whole prompt."""

    reads: ClassVar[tuple[Read, ...]] = (
        *LatentSettings.reads,
        Read(("intrinsic_dim", "alpha", "projection"), "space", where=("latent",)),
        Read(("sigma",), "space", where=("latent", "full")),
        Read(("words",), "space", where=("words",)),
    )

    kind: Literal["nevergrad"] = "nevergrad"
    """Names this optimizer."""
    alpha: Positive = 1.0
    """Scale of the "normal" projection: prompts drawn at ``sigma`` are alpha times as wide as the embeddings."""
    optimizer: str = Field(default="NGOpt", min_length=1)
    """Name in ``nevergrad.optimizers.registry``: NGOpt, CMA, DE, PSO, OnePlusOne, TBPSA, ..."""
    space: Literal["latent", "full", "words"] = "latent"
    """Search K latent coordinates, the P prompt coordinates themselves around the start, or the words of a text prompt
    (with discrete optimizers, such as DiscreteOnePlusOne)."""
    words: int = Field(default=500, ge=2)
    """With ``space: words``: how many words of the vocabulary are searched, drawn by the seed."""
    num_workers: int = Field(default=8, ge=1)
    """Candidates in flight at once, which is the number of queries per step."""

    @property
    def plans_ahead(self) -> bool:
        return True  # many members plan by their budget

    @property
    def is_discrete(self) -> bool:
        return self.space == "words"


class TokenEditConfig(OptimizerSettings):
    """Local search on the words of a text prompt: random edits of the best prompts so far; the better ones are kept."""

    kind: Literal["token_edit"] = "token_edit"
    """Names this optimizer."""
    popsize: int = Field(default=8, ge=1)
    """Candidates per step."""
    parents: int = Field(default=4, ge=1)
    """The best different prompts so far, which are edited."""
    edits: float = Field(default=1.5, ge=1)
    """Mean number of edits that make a candidate: one, and further ones by a geometric draw."""

    @property
    def is_discrete(self) -> bool:
        return True


class CustomOptimizerConfig(OptimizerSettings, CustomPart):
    """A black-box optimizer of your own: a subclass of ``distributed_tuner.optimizers.Optimizer``.

    Where its class has a ``probe``, ``settings`` may be "auto". One that nothing is measured for is left to the
    constructor's default.
    """

    kind: Literal["custom"] = "custom"
    """Names this optimizer."""
    space: Literal["coordinates", "words"] = "coordinates"
    """Search space: coordinates of soft prompts, or texts."""

    @property
    def label(self) -> str:
        return self.name or self.class_name

    @property
    def plans_ahead(self) -> bool:
        return True  # it may: it knows how many steps are planned

    @property
    def is_discrete(self) -> bool:
        return self.space == "words"

    @property
    def measurable(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.settings.items() if value == "auto")

    @property
    def unresolved(self) -> tuple[str, ...]:
        return self.measurable

    def resolved(self, measured: Mapping[str, float]) -> Self:
        numbers = {name: measured[name] for name in self.unresolved if name in measured}
        given = {name: value for name, value in self.settings.items() if name not in self.unresolved}
        return self.model_copy(update={"settings": given | numbers})

    def chosen(self, measured: Mapping[str, float]) -> dict[str, float]:
        return {name: measured[name] for name in self.unresolved if name in measured}


OptimizerConfig: TypeAlias = Annotated[
    RandomSearchConfig
    | ZotConfig
    | SurrogateConfig
    | CmaConfig
    | NevergradConfig
    | TokenEditConfig
    | CustomOptimizerConfig,
    Field(discriminator="kind"),
]
