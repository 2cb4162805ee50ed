"""Writes the golden trajectories beside it: ``python tests/optimizers/golden/make_golden.py``.

Run it only when a change of trajectories is meant; the diff of the JSON shows what moved.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from distributed_tuner.config.optimizer import CmaConfig, OptimizerConfig, SurrogateConfig, ZotConfig
from distributed_tuner.config.oracle import AnalyticOracleConfig
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.optimizers import build
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.tasks.demo import build_demo
from distributed_tuner.values import (
    Answers,
    Array,
    Array64,
    Candidate,
    Latent,
    Objective,
    Perturbation,
    Point,
    PromptSpec,
    Request,
)

FOLDER = Path(__file__).parent
DIM, STEPS, KEY = 6, 8, (3, "golden", 1)
SCALES = np.array([1.0, 2.0, 0.5, 1.5, 0.1, 3.0])

CASES: dict[str, OptimizerConfig] = {
    "zot_n1": ZotConfig(rho=0.1, learning_rate=0.05, clip=100, momentum=0.96),
    "zot_n1_clipped": ZotConfig(rho=0.1, learning_rate=0.3, clip=0.8, momentum=0.8, floor=0.2),
    "zot_n3": ZotConfig(points=3, rho=0.2, learning_rate=0.05, clip=3.0, momentum=0.9),
    "zot_n3_no_bias": ZotConfig(points=3, rho=0.2, learning_rate=0.5, clip=3.0, momentum=0.9, bias_correction=False),
    "zo_sgd": ZotConfig(rho=0.1, learning_rate=0.05, clip=0, momentum=0, schedule="constant"),
    "surrogate": SurrogateConfig(popsize=6, rho=0.2),
    "surrogate_of_answers": SurrogateConfig(popsize=6, rho=0.2, of="answers"),
    "cma": CmaConfig(intrinsic_dim=DIM, popsize=6),
    "cma_mean": CmaConfig(intrinsic_dim=DIM, popsize=0, bound=2.0, recommend="mean"),
}


def coordinates(candidate: Candidate) -> Array:
    """Return prompt coordinates, or latent ones taken as such."""
    match candidate:
        case Point(vector):
            return vector
        case Perturbation(center, key, sign, radius):
            return center.vector + np.float32(sign * radius) * standard_normal(key, DIM)
        case Latent(z):
            return z
    raise AssertionError(candidate)


def quadratic(x: Array) -> float:
    """An ellipsoid around (1, ..., 1)."""
    return float(np.sum(SCALES * (x.astype(np.float64) - 1.0) ** 2))


def answered(points: list[Array]) -> tuple[Array64, Answers]:
    """Losses and answers of the analytic oracle on the demo task, after the best bias."""
    oracle = AnalyticOracle(AnalyticOracleConfig(kind="analytic", width=3, features=16))
    train = replace(build_demo(DemoTaskConfig(shots=4)).batch("train"), objective=Objective("bias"))
    spec = PromptSpec(DIM // 3, "zeros", "", "prefix", "paper")
    told = oracle.evaluate(Request(tuple(map(Point, points)), train, spec))
    return told.losses, Answers(told.logits, train)


def trajectory(config: OptimizerConfig) -> list[dict[str, list[float]]]:
    """Return losses asked and coordinates recommended, step by step."""
    optimizer = build(config, dim=DIM, key=KEY, steps=STEPS)
    rows = []
    for _ in range(STEPS):
        points = [coordinates(candidate) for candidate in optimizer.ask()]
        losses, answers = [quadratic(x) for x in points], None
        if optimizer.wants_answers:
            told, answers = answered(points)
            losses = told.tolist()
        optimizer.tell(losses, answers=answers)
        rows.append({"losses": losses, "recommended": coordinates(optimizer.recommend()).tolist()})
    return rows


def main() -> None:
    for name, config in CASES.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(trajectory(config), indent=1) + "\n")


if __name__ == "__main__":
    main()
