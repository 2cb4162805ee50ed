"""Matrix-product rate of this machine's device, hence about how long a token takes. For projections only.

torch multiplies at a rate of its own, some times that of numpy on the same processor. How many times is measured once,
in turns and by the processor's time, which others do not take; from then on the rate is measured with numpy, here and
now as before, and torch is not imported for it.
"""

import time
from typing import Any

import numpy as np

from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.local.machine import dtype_here, is_plain_cpu, processor_key
from distributed_tuner.oracles.local.machine_cache import keep, recall

USEFUL_SHARE = 0.7  # of the matrix-product rate that a forward pass reaches
MATRIX = (1024, 1024, 2048)
MATRIX_NUMPY = (512, 1024, 1024)
MEASURE_SECONDS = 0.3
MEASURE_NUMPY_SECONDS = 0.15
TURNS = 15


def seconds_per_token(config: TransformersOracleConfig, weights: int) -> float:
    """Return seconds a token: two operations a weight outside the embeddings, at the rate measured here and now."""
    return 2 * weights / (USEFUL_SHARE * product_rate(config.device, config.dtype, config.thread_count))


def product_rate(device: str, dtype: str, threads: int) -> float:
    """Return the floating-point operations a second of torch's large matrix products, measured here and now.

    Raises:
        ModelError: the device is not there, or there is no such dtype.
    """
    dtype = dtype_here(device, dtype)
    processor = processor_key() if is_plain_cpu(device) else None
    key = None if processor is None else [*processor, dtype]
    if key is not None and (times := recall("rate", key)) is not None:
        return float(times) * numpy_rate(threads)
    import torch

    from distributed_tuner.oracles.local.loading import resolve_device

    if key is not None:
        keep("rate", key, _times_numpy(getattr(torch, dtype)))
    return matmul_rate(resolve_device(device), getattr(torch, dtype), threads)


def _times_numpy(dtype: Any) -> float:
    """Return how many times faster torch multiplies on a CPU's core than numpy."""
    import torch
    from threadpoolctl import threadpool_limits

    rows, inner, columns = MATRIX_NUMPY
    torch.set_num_threads(1)
    ours = torch.ones(rows, inner).to(dtype), torch.ones(inner, columns).to(dtype)
    theirs = np.ones((rows, inner), dtype=np.float32), np.ones((inner, columns), dtype=np.float32)
    ratios = []
    with threadpool_limits(1, user_api="blas"):  # threads that wait for each other take the processor's time too
        for _ in range(TURNS):
            began = time.process_time()
            _ = ours[0] @ ours[1]
            between = time.process_time()
            _ = theirs[0] @ theirs[1]
            ratios.append((time.process_time() - between) / (between - began))
    return float(np.median(ratios))


def numpy_rate(threads: int) -> float:
    """Return the floating-point operations a second of a large matrix product in numpy, in float32."""
    from threadpoolctl import threadpool_limits

    rows, inner, columns = MATRIX_NUMPY
    a = np.ones((rows, inner), dtype=np.float32)
    b = np.ones((inner, columns), dtype=np.float32)
    with threadpool_limits(threads, user_api="blas"):
        _ = a @ b
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < MEASURE_NUMPY_SECONDS:
            _ = a @ b
            count += 1
        return 2.0 * rows * inner * columns * count / (time.perf_counter() - began)


def trunk_parameters(model_config: Any) -> int:
    """Return the number of weights that every token is multiplied with: all but the embedding tables."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    from distributed_tuner.oracles.local.loading import is_masked

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
