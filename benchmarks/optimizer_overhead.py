"""Time of one step of ``TrainableOptimizer`` beside torch's own optimizers, on ten million parameters.

    python -m benchmarks.optimizer_overhead [--json FILE]

All optimizers take turns, each on parameters and gradients of its own with the same values. The first steps make the
state and are not counted.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 512  # of the square matrices that the parameters are, with a bias each, as in a network's layers
TARGET = 1.5  # times AdamW's step that diagonal and rank-one may take
WARM = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One optimizer. seconds: of its steps. over_adamw: median of the ratios to AdamW's step of the same round.

    numbers: of its state, a parameter.
    """

    optimizer: str
    seconds: tuple[float, ...]
    over_adamw: float
    numbers: float

    @property
    def median(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)


def main(
    millions: Annotated[float, typer.Option(help="Parameters, in millions.")] = 10.0,
    rounds: Annotated[int, typer.Option(help="Steps of each, in turns.")] = 30,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here as well.")] = None,
) -> None:
    """Measure, print the table and the verdict."""
    import torch

    rows = measure(millions, rounds)
    print(f"{millions:g} M parameters, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| optimizer | ms a step | over AdamW | state, numbers a parameter |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row.optimizer} | {1e3 * row.median:.1f} | {row.over_adamw:.2f} | {row.numbers:.1f} |")
    print()
    for row in rows:
        if row.optimizer.startswith("Trainable"):
            print(f"{'met' if row.over_adamw <= TARGET else 'MISSED':<8}{row.optimizer}: at most {TARGET}x AdamW")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


def measure(millions: float, rounds: int) -> list[Row]:
    """Return a row an optimizer, AdamW first."""
    made = {name: make(_parameters(millions)) for name, make in optimizers().items()}
    for optimizer in made.values():
        for _ in range(WARM):
            optimizer.step()
    taken: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, optimizer in made.items():
            began = time.perf_counter()
            optimizer.step()
            taken[name].append(time.perf_counter() - began)
    beside = taken["AdamW"]
    return [
        Row(
            name,
            tuple(seconds),
            statistics.median(one / other for one, other in zip(seconds, beside, strict=True)),
            _numbers(made[name]),
        )
        for name, seconds in taken.items()
    ]


def optimizers() -> dict[str, Callable[[list["Tensor"]], Any]]:
    """Return by name what makes each optimizer: torch's with multi-tensor kernels, ours as it chooses for the device.

    On a CPU that is a loop over tensors, which leaves each in the caches from one operation to the next.
    """
    import torch

    from distributed_tuner.optimizers import TrainableOptimizer

    return {
        "AdamW": lambda tensors: torch.optim.AdamW(tensors, lr=1e-4, foreach=True),
        "SGD with momentum": lambda tensors: torch.optim.SGD(tensors, lr=1e-4, momentum=0.9, foreach=True),
        "Trainable, diagonal": lambda tensors: TrainableOptimizer(tensors, lr=1e-4, variant="diagonal"),
        "Trainable, rank_one": lambda tensors: TrainableOptimizer(tensors, lr=1e-4, variant="rank_one"),
    }


def _parameters(millions: float) -> list["Tensor"]:
    import torch

    draw = torch.Generator().manual_seed(0)
    tensors: list[Tensor] = []
    for _ in range(max(1, round(millions * 1e6 / (SIDE * SIDE + SIDE)))):
        for shape in ((SIDE, SIDE), (SIDE,)):
            tensor = torch.nn.Parameter(torch.randn(shape, generator=draw))
            tensor.grad = torch.randn(shape, generator=draw)
            tensors.append(tensor)
    return tensors


def _numbers(optimizer: Any) -> float:
    import torch

    parameters = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    return float(sum(value.numel() for value in kept) / sum(tensor.numel() for tensor in parameters))


if __name__ == "__main__":
    typer.run(main)
