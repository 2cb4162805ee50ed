"""Settings of the engines of this suite, and the request that they are compared on."""

import os
from typing import Any

import numpy as np
import pytest

from distributed_tuner.oracles.local.machine import dtype_here
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import (
    Candidate,
    Center,
    Embedded,
    Latent,
    Perturbation,
    Projection,
    PromptSpec,
    Request,
    Text,
)

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
DTYPE = dtype_here("cpu", "auto")
"""What the processor multiplies fast: where that is not bfloat16, a query in it takes ten times as long."""
ENGINE: dict[str, Any] = {
    "kind": "vllm",
    "dtype": DTYPE,
    "kv_cache_gib": 0.5,
    "max_model_len": 1024,
    "max_num_seqs": 32,
    "threads": THREADS,
}
LENGTH = 36  # longer than a block of the prefix cache, so that it has something to share
FEW = 3  # examples, where more would show no more
LAYOUTS = ("prefix", "suffix", "add")
SHARING = ("prefix", *(pytest.param(layout, marks=pytest.mark.extended) for layout in LAYOUTS[1:]))
"""The layouts for tests of what rows may share: the first shares most, and stands for the others."""


def spec_of(task: Task, layout: Any) -> PromptSpec:
    init: Any = "zeros" if layout == "add" else "text"
    return PromptSpec(LENGTH, init, task.manual_prompt, layout, "embedding")


def candidates(width: int) -> tuple[Candidate, ...]:
    center = Center("c", 0.1 * np.random.default_rng(3).standard_normal(LENGTH * width).astype(np.float32))
    projection = Projection(seed=5, dim=20, alpha=1.0, sigma=1.0)
    z = np.random.default_rng(4).standard_normal(20).astype(np.float32)
    return (
        Perturbation(center, ("a",), 1, 0.25),
        Perturbation(center, ("a",), -1, 0.25),
        Latent(z, projection),
        Embedded("Route the message"),
    )


def mixed(task: Task, width: int, layout: Any, examples: int = FEW) -> Request:
    """Return soft candidates of every kind and texts, on a few examples."""
    texts = (Text(task.manual_prompt), Text(""))
    batch = task.batch("train", range(examples))
    return Request((*candidates(width), *texts), batch, spec_of(task, layout))
