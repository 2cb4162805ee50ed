"""CMA-ES for few queries: fewer dimensions, restricted covariances, other rules and widths, beside what is shipped.

    python -m benchmarks.searches.cma_variants DATA                       # DATA/sst2; the demo task needs no DATA
    python -m benchmarks.searches.cma_variants DATA --tasks sst2 --only "as shipped;alpha auto"

Every search is told the loss that a bias leaves, in the prefix layout of 16 rows that start as the manual prompt, as
search_spaces/heads.yaml has it. A width that is measured is paid from the same queries. Loss on train is the one that
is told, of the distribution's mean; on dev it is that of the bias fitted to train.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import typer

from benchmarks.heads import TILE, task_of
from benchmarks.tables import table
from distributed_tuner.config.head import ObjectiveConfig
from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.maths.heads import profile_bias
from distributed_tuner.maths.losses import cross_entropy
from distributed_tuner.optimizers.cma import Cma, StepNoise
from distributed_tuner.optimizers.cma_probe import QUERIES, CmaProbe
from distributed_tuner.oracles import build
from distributed_tuner.oracles.base import LossOracle, labels_of
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.seeds import Key
from distributed_tuner.values import Array64, Candidate, Center, PromptSpec, Request

Covariance: TypeAlias = Literal["full", "separable", "limited"]
LENGTH = 16


class RestrictedCma(Cma):
    """Cma with a covariance of K variances ("separable", sep-CMA-ES) or of these and one direction ("limited", VD-CMA:
    Akimoto et al., GECCO 2014), which pycma has."""

    def __init__(self, config: CmaConfig, covariance: Covariance, dim: int, key: Key = (0, 0, 0)) -> None:
        super().__init__(config, dim=dim, key=key, start=np.zeros(dim, dtype=np.float32))
        self._covariance = covariance

    def _further_options(self, noise: StepNoise) -> dict[str, Any]:
        if self._covariance == "separable":
            return {"CMA_diagonal": True}
        if self._covariance == "limited":
            sampler = import_module("cma.restricted_gaussian_sampler").GaussVDSampler
            options: dict[str, Any] = sampler.extend_cma_options({"CMA_sampler_options": {"randn": noise}})
            return options
        return {}


@dataclass(frozen=True, slots=True)
class Variant:
    """One setting, the same for all tasks."""

    config: CmaConfig
    covariance: Covariance = "full"


def _cma(**settings: Any) -> CmaConfig:
    return CmaConfig.model_validate({"popsize": 20, "alpha": 0.3, "recommend": "mean", **settings})


VARIANTS = {
    "as shipped": Variant(_cma()),
    "alpha auto": Variant(_cma(alpha="auto")),
    "alpha 0.8": Variant(_cma(alpha=0.8)),
    "popsize 8, alpha 0.4": Variant(_cma(popsize=8, alpha=0.4)),
    "K 50, separable, tpa, alpha 0.4": Variant(_cma(intrinsic_dim=50, step_size="tpa", alpha=0.4), "separable"),
    "K 100, separable, csa": Variant(_cma(intrinsic_dim=100), "separable"),
    "K 50, limited, tpa": Variant(_cma(intrinsic_dim=50, step_size="tpa"), "limited"),
    "K 100, limited, csa": Variant(_cma(intrinsic_dim=100), "limited"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """Where a search stands after some queries."""

    task: str
    variant: str
    alpha: float
    queries: int
    train_loss: float
    dev_loss: float


class Trials:
    """Searches of one task, with one oracle."""

    def __init__(self, oracle: LossOracle, name: str, data: Path, key: Key) -> None:
        task = replace(task_of(name, data, 0, 1), objective=ObjectiveConfig(head="bias").value())
        self._name, self._oracle, self._key = name, oracle, key
        self._spec = PromptSpec(LENGTH, "text", task.manual_prompt, "prefix", "embedding")
        self._dim = LENGTH * oracle.info.width
        self._train, self._dev = task.batch("train"), task.batch("dev")

    def run(self, label: str, variant: Variant, marks: Sequence[int]) -> list[Line]:
        """Run one search as far as the last of ``marks``; a generation that would pass a mark comes after it."""
        config, used = variant.config, 0
        if config.alpha == "auto":
            center = Center("start", np.zeros(self._dim, dtype=np.float32))
            probe = CmaProbe(config, center, (*self._key, "survey"), 1.0)
            measured = probe.measure(self._losses(probe.candidates))
            config, used = config.resolved(measured.settings if measured else {}), QUERIES
        search = RestrictedCma(config, variant.covariance, self._dim, self._key)
        lines = []
        for mark in marks:
            while used + search.queries_per_step <= mark:
                search.tell(self._losses(tuple(search.ask())))
                used += search.queries_per_step
            train, dev = self._look(search.recommend())
            lines.append(Line(self._name, label, float(config.alpha), mark, train, dev))
        return lines

    def _losses(self, candidates: tuple[Candidate, ...]) -> Array64:
        return np.asarray(self._oracle.evaluate(Request(candidates, self._train, self._spec)).losses)

    def _look(self, candidate: Candidate) -> tuple[float, float]:
        train, dev = (
            self._oracle.evaluate(Request((candidate,), batch, self._spec)).logits.astype(np.float64)
            for batch in (self._train, self._dev)
        )
        b, loss = profile_bias(train, labels_of(self._train), self._train.objective.strength)
        return float(loss[0]), float(cross_entropy(dev[0] + b[0], labels_of(self._dev)).mean())


def main(
    data: Annotated[Path, typer.Argument(help="Folder with a folder for each task, of train.jsonl and test.jsonl.")],
    tasks: Annotated[str, typer.Option(help="Of sst2, agnews, demo.")] = "sst2,demo",
    only: Annotated[str, typer.Option(help="Names of searches, with ; between them; all when left out.")] = "",
    marks: Annotated[str, typer.Option(help="After how many queries to look.")] = "100,250",
    trial: Annotated[str, typer.Option(help="Whose noise it is: another trial's candidates are others.")] = "0",
    threads: Annotated[int, typer.Option(help="Threads of the model.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the lines here as well.")] = None,
) -> None:
    """Print where each search stands after so many queries."""
    names = only.split(";") if only else list(VARIANTS)
    oracle = TiledOracle(build(TransformersOracleConfig(kind="transformers", model=SMOLLM2, threads=threads)), TILE)
    lines: list[Line] = []
    for task in tasks.split(","):
        trials = Trials(oracle, task, data, (0, int(trial) if trial.isdigit() else trial, 0))
        for name in names:
            lines += trials.run(name, VARIANTS[name], [int(mark) for mark in marks.split(",")])
    rows = [
        [
            line.task,
            line.variant,
            f"{line.alpha:g}",
            str(line.queries),
            f"{line.train_loss:.4f}",
            f"{line.dev_loss:.4f}",
        ]
        for line in lines
    ]
    print("\n".join(table(["task", "search", "alpha", "queries", "train loss", "dev loss"], rows)))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
