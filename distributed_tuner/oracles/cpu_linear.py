"""Linear layers of a frozen model laid out for the CPU's matrix units, once.

torch lays a weight out anew in every product (oneDNN's blocked format). Weights that never change can be kept that way,
which matters most for a small model's shapes (docs/performance.md). The activation of a gated MLP (LLaMA, Qwen2,
Mistral, ...) is computed while its product is still in the cache.

The operations are those that torch.compile emits for the CPU when it freezes weights. They have no gradient.
"""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

ROWS = 1024  # tokens a product is expected to have, which oneDNN picks its layout by
TOLERANCE = 0.02  # of a packed product's largest entry, in bfloat16: far above rounding, far below a wrong layout
FUSED = {"SiLU": "swish", "SiLUActivation": "swish"}


def pack_linears(trunk: Any) -> int:
    """Replace the linear layers in ``trunk`` by packed ones where this torch and CPU can; returns how many.

    The trunk must be on the CPU, in float32 or bfloat16, and must not share the layers' weights with anything else.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    if not _works(trunk.dtype):
        return 0
    modules = _classes()
    count = 0
    for name, module in list(trunk.named_modules()):
        if isinstance(module, torch.nn.Linear | Conv1D):
            weight = module.weight.detach()
            packed = modules["linear"](weight.T.contiguous() if isinstance(module, Conv1D) else weight, module.bias)
            trunk.set_submodule(name, packed)
            count += 1
    for name, module in list(trunk.named_modules()):
        parts = [getattr(module, part, None) for part in ("gate_proj", "up_proj", "down_proj")]
        activation = FUSED.get(type(getattr(module, "act_fn", None)).__name__)
        if activation and all(isinstance(part, modules["linear"]) for part in parts):
            trunk.set_submodule(name, modules["gated"](*parts, activation))
    return count


def _classes() -> "dict[str, Any]":
    """Return the two modules. Made when asked for, since torch is imported only where a model is built."""
    import torch

    packed = torch.ops.mkldnn._linear_pointwise

    class PackedLinear(torch.nn.Module):
        """y = x W^T + b with W packed."""

        def __init__(self, weight: "Tensor", bias: "Tensor | None") -> None:
            super().__init__()
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)
            self.bias = None if bias is None else bias.detach()

        def forward(self, x: "Tensor", activation: str = "none") -> "Tensor":
            y: Tensor = packed(x, self.weight, self.bias, activation, [], "")
            return y

    class PackedGatedMlp(torch.nn.Module):
        """down(act(gate(x)) * up(x)), the activation and the product fused into the matrix products."""

        def __init__(self, gate: Any, up: Any, down: Any, activation: str) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj, self._activation = gate, up, down, activation

        def forward(self, x: "Tensor") -> "Tensor":
            gate = self.gate_proj(x, self._activation)
            y: Tensor = self.down_proj(packed.binary(x, gate, self.up_proj.weight, self.up_proj.bias, "mul"))
            return y

    return {"linear": PackedLinear, "gated": PackedGatedMlp}


def _works(dtype: "torch.dtype") -> bool:
    """Tell whether packed products are there and right; anything else costs speed, not numbers."""
    import torch

    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        modules = _classes()
        stream = torch.Generator().manual_seed(0)
        x, up, gate, down = (
            torch.randn(size, generator=stream).to(dtype) for size in ((3, 40), (24, 40), (24, 40), (40, 24))
        )
        mlp = modules["gated"](*(modules["linear"](weight, None) for weight in (gate, up, down)), "swish")
        with torch.inference_mode():
            got = mlp(x[None])[0].float()
        wanted = (torch.nn.functional.silu(x.float() @ gate.float().T) * (x.float() @ up.float().T)) @ down.float().T
    except (AttributeError, RuntimeError) as error:
        log.warning("packed linear layers are not available (%s); queries take longer", error)
        return False
    return bool((got - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
