"""Linear layers of a frozen model on a CPU: as torch multiplies them, or packed once for the CPU's matrix units.

torch lays a weight out anew in every product (oneDNN's blocked format). Weights that never change can be kept that way.
Whether that pays differs from processor to processor, and so does fusing a gated MLP's activation into its product:
``fastest`` measures it, once a machine.

The packed operations are those that torch.compile emits for the CPU when it freezes weights. They have no gradient.
"""

import logging
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from distributed_tuner.oracles.local.loading import cache_directory
from distributed_tuner.oracles.local.machine import processor_key
from distributed_tuner.oracles.local.machine_cache import keep, recall

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

Linear: TypeAlias = Literal["plain", "packed", "packed_fused"]
LINEARS: tuple[Linear, ...] = get_args(Linear)
"""Method of products; "packed_fused": packed, and a gated MLP's activation while its product is in the cache."""

ROWS = 1024  # tokens a product is expected to have, which oneDNN picks its layout by
MEASURED_ROWS, MEASURED_TIMES = 128, 8
MEASURED_SECONDS = 0.5  # after which, on large weights, two measurements have to do
LEAST_MEASURED = 2**16  # numbers of a weight; smaller ones take no time
MARGIN = 1.1  # by which a way must be faster than torch's own, whose weights processes can share
TOLERANCE = 0.02  # of a packed product's largest entry, in bfloat16: far above rounding, far below a wrong layout
FUSED = {"SiLU": "swish", "SiLUActivation": "swish"}


class Product:
    """y = x W^T + b as torch multiplies it; ``weight`` (out, in)."""

    def __init__(self, weight: "Tensor", bias: "Tensor | None" = None) -> None:
        self.weight, self.bias = weight, bias

    def into(self, x: "Tensor", out: "Tensor") -> "Tensor":
        """Return y, in ``out`` where the product can be written there."""
        import torch

        if self.bias is None:
            return torch.mm(x, self.weight.t(), out=out)
        return torch.addmm(self.bias, x, self.weight.t(), out=out)

    def add_to(self, residual: "Tensor", x: "Tensor") -> None:
        """Add y to ``residual``, in place."""
        residual.addmm_(x, self.weight.t())
        if self.bias is not None:
            residual.add_(self.bias)


class PackedProduct(Product):
    """y = x W^T + b with W packed."""

    def __init__(self, weight: "Tensor", bias: "Tensor | None" = None) -> None:
        import torch

        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS), bias)
        self._multiply = torch.ops.mkldnn._linear_pointwise

    def __call__(self, x: "Tensor", activation: str = "none") -> "Tensor":
        """Return y, its activation taken while it is in the cache."""
        y: Tensor = self._multiply(x, self.weight, self.bias, activation, [], "")
        return y

    def times(self, x: "Tensor", factor: "Tensor") -> "Tensor":
        """Return y * factor."""
        y: Tensor = self._multiply.binary(x, factor, self.weight, self.bias, "mul")
        return y

    def into(self, x: "Tensor", out: "Tensor") -> "Tensor":
        return self(x)

    def add_to(self, residual: "Tensor", x: "Tensor") -> None:
        residual.add_(self(x))


def product(linear: Linear, weight: "Tensor", bias: "Tensor | None" = None) -> Product:
    """Return a product with a weight (out, in), computed the given way."""
    return Product(weight, bias) if linear == "plain" else PackedProduct(weight, bias)


def is_linear(module: Any) -> bool:
    """Tell whether a module is a linear layer and nothing more.

    One of a class of its own, or with a forward, hooks or parametrizations, may compute anything of its weight: it may
    be rounded on the way, or adapted.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    if type(module) not in (torch.nn.Linear, Conv1D) or "forward" in vars(module):
        return False
    hooks = module._forward_hooks or module._forward_pre_hooks
    return not hooks and type(module.weight.data) is torch.Tensor and module.weight.is_floating_point()


def pack_linears(trunk: Any, linear: Linear) -> int:
    """Replace the linear layers in ``trunk`` by packed ones; returns how many. "plain" leaves them as they are.

    The trunk must be on the CPU, in float32 or bfloat16, and must not share the layers' weights with anything else.
    What is more than a linear layer stays.
    """
    if linear == "plain":
        return 0
    packed_linear, packed_mlp = _modules()
    count = 0
    for name, module in list(trunk.named_modules()):
        if is_linear(module):
            trunk.set_submodule(name, packed_linear(module))
            count += 1
    if linear == "packed_fused":
        for name, module in list(trunk.named_modules()):
            parts = [getattr(module, part, None) for part in ("gate_proj", "up_proj", "down_proj")]
            activation = FUSED.get(type(getattr(module, "act_fn", None)).__name__)
            if activation and all(isinstance(part, packed_linear) for part in parts):
                mlp = packed_mlp(module, *parts, activation)
                if _alike(module, mlp):
                    trunk.set_submodule(name, mlp)
    return count


def unpack_linears(trunk: Any) -> None:
    """Put back what ``pack_linears`` replaced."""
    packed_linear, packed_mlp = _modules()
    for kind in (packed_mlp, packed_linear):
        for name, module in list(trunk.named_modules()):
            if isinstance(module, kind):
                trunk.set_submodule(name, module.original())


def _alike(module: Any, other: Any) -> bool:
    """Tell whether a packed module gives what another does; a gated MLP may scale or norm in between."""
    import torch

    x = torch.randn((3, other.inputs), generator=torch.Generator().manual_seed(0)).to(other.dtype)
    with torch.inference_mode():
        wanted, got = module(x).float(), other(x).float()
    return bool((got - wanted).norm() <= TOLERANCE * wanted.norm())


@cache
def _modules() -> "tuple[Any, Any]":
    """Return the two modules. Made when asked for, since torch is imported only where a model is built."""
    import torch
    from transformers.pytorch_utils import Conv1D

    class PackedLinear(torch.nn.Module):
        """A packed product in the place of a linear layer, which keeps no weight of its own meanwhile."""

        def __init__(self, plain: Any) -> None:
            super().__init__()
            self._turned = isinstance(plain, Conv1D)
            weight = plain.weight.detach()
            weight = weight.T if self._turned else weight
            self.inputs, self.dtype = weight.shape[1], weight.dtype
            self.product = PackedProduct(weight, None if plain.bias is None else plain.bias.detach())
            self._plain = (plain,)  # no module of this one
            plain.weight.data = weight.new_empty(0)

        def forward(self, x: "Tensor") -> "Tensor":
            return self.product(x)

        def original(self) -> Any:
            """Return the linear layer, with its weight."""
            (plain,) = self._plain
            weight = self.product.weight.to_dense()
            plain.weight.data = weight.T.contiguous() if self._turned else weight
            return plain

    class PackedGatedMlp(torch.nn.Module):
        """down(act(gate(x)) * up(x)), the activation and the product fused into the matrix products."""

        def __init__(self, mlp: Any, gate: Any, up: Any, down: Any, activation: str) -> None:
            super().__init__()
            self._mlp = (mlp,)  # no module of this one
            self.gate, self.up, self.down, self.activation = gate.product, up.product, down.product, activation
            self.inputs, self.dtype = gate.inputs, gate.dtype

        def original(self) -> Any:
            """Return the module that this one stands for."""
            return self._mlp[0]

        def forward(self, x: "Tensor") -> "Tensor":
            y: Tensor = self.down(self.up.times(x, self.gate(x, self.activation)))
            return y

    return PackedLinear, PackedGatedMlp


def fastest(trunk: Any) -> Linear:
    """Return the fastest way to multiply by a model's weights on this machine's processor.

    What is measured is a gated MLP with the shape of the model's largest weight: once a machine, since the choice is
    part of the numbers, and two runs alike shall have the same. "plain" unless another is faster by ``MARGIN``.
    """
    import torch
    from filelock import FileLock

    weights = [module.weight for module in trunk.modules() if is_linear(module)]
    largest = max(weights, key=lambda weight: weight.numel(), default=None)
    if largest is None or largest.numel() < LEAST_MEASURED:
        return "plain"
    inner, hidden = max(largest.shape), min(largest.shape)
    if (processor := processor_key()) is None:
        return _measured(inner, hidden, largest.dtype)
    key = [*processor, str(largest.dtype), inner, hidden, torch.get_num_threads()]
    try:
        cache_directory().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_directory() / "linear.lock"):  # the first process measures for all
            known: Linear | None = recall("linear", key)
            if known not in LINEARS:
                known = _measured(inner, hidden, largest.dtype)
                keep("linear", key, known)
            return known
    except OSError as error:
        log.warning("how products are computed is measured anew in every run, since it cannot be kept (%s)", error)
        return _measured(inner, hidden, largest.dtype)


def _measured(inner: int, hidden: int, dtype: "torch.dtype") -> Linear:
    """Measure for some milliseconds. Ways that this torch or CPU lacks, or computes wrongly, are out."""
    import torch

    stream = torch.Generator().manual_seed(0)
    x, gate, up, down = (
        torch.randn(size, generator=stream).to(dtype)
        for size in ((MEASURED_ROWS, hidden), (inner, hidden), (inner, hidden), (hidden, inner))
    )
    ways: tuple[Linear, ...] = LINEARS if packing_works(dtype) else ("plain",)
    seconds: dict[Linear, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        runs = {way: _gated_mlp(way, gate, up, down) for way in ways}
        # One thread's own time does not count what other processes take of its core.
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        first = clock()
        for number in range(1 + MEASURED_TIMES):  # the first only warms up
            if number > 2 and clock() - first > MEASURED_SECONDS:
                break
            for way, run in runs.items():
                began = clock()
                run(x)
                seconds[way].append(clock() - began)
    # Turn by turn, so that a machine that slows down in between slows all of them.
    gains = {
        way: statistics.median(plain / mine for plain, mine in zip(seconds["plain"][1:], taken[1:], strict=True))
        for way, taken in seconds.items()
    }
    log.info("a gated MLP %d x %d, times as fast as plain: %s", inner, hidden, gains)
    best = max(ways, key=lambda way: gains[way])
    return best if gains[best] > MARGIN else "plain"


def _gated_mlp(linear: Linear, gate: "Tensor", up: "Tensor", down: "Tensor") -> "Callable[[Tensor], Tensor]":
    """Return down(silu(gate(x)) * up(x)) computed the given way."""
    gates, ups, downs = (product(linear, weight) for weight in (gate, up, down))

    def run(x: "Tensor") -> "Tensor":
        y = x.new_zeros(x.shape)
        inside = gated(linear, gates, ups, x, x.new_empty((len(x), len(gate))), x.new_empty((len(x), len(gate))))
        downs.add_to(y, inside)
        return y

    return run


def gated(linear: Linear, gate: Product, up: Product, x: "Tensor", out: "Tensor", more: "Tensor") -> "Tensor":
    """Return silu(gate(x)) * up(x), (N, F); ``out`` and ``more`` (N, F) are memory to work in."""
    import torch

    if linear == "packed_fused":
        assert isinstance(gate, PackedProduct) and isinstance(up, PackedProduct)
        return up.times(x, gate(x, "swish"))
    inside = torch.nn.functional.silu(gate.into(x, out), inplace=True)
    return inside.mul_(up.into(x, more))


def packing_works(dtype: "torch.dtype") -> bool:
    """Tell whether packed products are there and right; anything else costs speed, not numbers."""
    import torch

    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        stream = torch.Generator().manual_seed(0)
        x, gate, up, down = (
            torch.randn(size, generator=stream).to(dtype) for size in ((3, 40), (24, 40), (24, 40), (40, 24))
        )
        with torch.inference_mode():
            got = _gated_mlp("packed_fused", gate, up, down)(x).float()
        wanted = (torch.nn.functional.silu(x.float() @ gate.float().T) * (x.float() @ up.float().T)) @ down.float().T
    except (AttributeError, RuntimeError) as error:
        log.warning("packed linear layers are not available (%s)", error)
        return False
    return bool((got - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
