"""Small parameters, gradients and losses for optimizers of torch."""

from collections.abc import Callable
from typing import Any

import torch

SLOPES = {"full": ["slope"], "diagonal": ["slope"], "rank_one": ["slope_u", "slope_v"]}


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def parameters(*tensors: torch.Tensor) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(tensor.clone()) for tensor in tensors]


def layer() -> list[torch.nn.Parameter]:
    return parameters(noise(10, 5, seed=1), noise(10, seed=2))


def closure(params: list[Any], optimizer: Any = None) -> Callable[[], torch.Tensor]:
    """Return a closure that computes a quadratic loss of a weight and a bias."""

    def compute() -> torch.Tensor:
        for p in params:
            p.grad = None
        weight, bias = params
        loss = (weight.mv(noise(5, seed=3).to(weight)) + bias).square().sum()
        loss.backward()
        return loss

    return compute


def give_gradients(params: list[Any], seed: int) -> None:
    for i, p in enumerate(params):
        p.grad = noise(*p.shape, seed=100 * seed + i, dtype=p.dtype)


def states(optimizer: Any) -> list[torch.Tensor]:
    return [value for state in optimizer.state.values() for value in state.values()]


def assert_same(some: list[Any], others: list[Any], tolerance: float = 0.0) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=tolerance, atol=tolerance)
