"""The whole of ZOT in one file: Algorithm 3 of Zhan et al. (Findings of EMNLP 2024), on a loss oracle.

    python examples/zot_loop.py

The oracle is a formula, so that this takes a second; any other goes in its place: ``TransformersOracle``, for example.
``distributed_tuner.Zot`` is the same with saved states, failed queries, and noise that is named rather than drawn in
turn.
"""

import math

import numpy as np

from distributed_tuner import Analytic
from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.oracles.analytic import AnalyticOracle
from distributed_tuner.tasks.demo import build_demo
from distributed_tuner.values import Batch, Point, PromptSpec, Request

ROWS, STEPS = 8, 300
POINTS, RHO, LEARNING_RATE, CLIP, BETA, FLOOR = 2, 0.1, 1.0, 100.0, 0.9, 0.1

oracle = AnalyticOracle(Analytic())
train: Batch = build_demo(DemoTaskConfig(shots=8)).batch("train")
spec = PromptSpec(ROWS, "zeros", "", "prefix", "embedding")


def loss(*prompts: np.ndarray) -> np.ndarray:
    """Return the mean loss of each prompt (P,) on train: one query each."""
    return oracle.evaluate(Request(tuple(map(Point, prompts)), train, spec)).losses


def main() -> tuple[float, float]:
    """Return the loss before and after."""
    random = np.random.default_rng(0)
    x = np.zeros(ROWS * oracle.info.width, dtype=np.float32)
    m = np.zeros_like(x)
    before = float(loss(x)[0])
    for t in range(1, STEPS + 1):
        z = random.standard_normal((POINTS, len(x)), dtype=np.float32)  # n directions
        losses = loss(*(x + RHO * z), *(x - RHO * z))  # 2n queries
        delta = (losses[:POINTS] - losses[POINTS:]) / (2 * RHO)  # slope along each direction
        g = (delta[:, None] * z).mean(axis=0).astype(np.float32)  # gradient estimate
        g *= min(1.0, CLIP / max(float(np.linalg.norm(g)), 1e-12))  # clipped
        m = BETA * m + (1 - BETA) * g  # momentum
        m_hat = m / (1 - BETA**t)  # without its bias towards zero
        cosine = 0.5 * (1 + math.cos(math.pi * (t - 1) / (STEPS - 1)))  # annealed to FLOOR of the rate
        x = x - np.float32(LEARNING_RATE * (FLOOR + (1 - FLOOR) * cosine)) * m_hat
    return before, float(loss(x)[0])


if __name__ == "__main__":
    before, after = main()
    print(f"loss {before:.4f} -> {after:.4f} in {2 * POINTS * STEPS} queries")
