"""How fast this machine's device multiplies matrices, hence about how long a token takes. For projections only."""

import time
from typing import Any

from distributed_tuner.config.oracle import TransformersOracleConfig

USEFUL_SHARE = 0.7  # of the matrix-product rate that a forward pass reaches
MATRIX = (1024, 1024, 2048)
MEASURE_SECONDS = 0.3


def seconds_per_token(config: TransformersOracleConfig, model_config: Any) -> float:
    """Return seconds a token: two operations a weight outside the embeddings, at the rate measured here and now."""
    from distributed_tuner.oracles.models import resolve_device, resolve_dtype

    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    return 2 * trunk_parameters(model_config) / (USEFUL_SHARE * matmul_rate(device, dtype, config.thread_count))


def trunk_parameters(model_config: Any) -> int:
    """Return the number of weights that every token is multiplied with: all but the embedding tables."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from distributed_tuner.oracles.models import is_masked

    with torch.device("meta"):
        model = (AutoModelForMaskedLM if is_masked(model_config) else AutoModelForCausalLM).from_config(model_config)
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    head = model.get_output_embeddings()
    tied = head is None or head.weight is model.get_input_embeddings().weight
    return int(sum(p.numel() for p in model.parameters()) - tables - (0 if tied else head.weight.numel()))


def matmul_rate(device: str, dtype: Any, threads: int) -> float:
    """Return the floating-point operations a second of a large matrix product on this device."""
    import torch

    torch.set_num_threads(threads)
    rows, inner, columns = MATRIX
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(inner, columns, device=device).to(dtype)
    _ = a @ b
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < MEASURE_SECONDS:
        _ = a @ b
        count += 1
    if device == "cuda":
        torch.cuda.synchronize()
    return 2.0 * rows * inner * columns * count / (time.perf_counter() - began)
