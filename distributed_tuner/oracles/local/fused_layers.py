"""Decoder layers of LLaMA's kind, rewritten for a frozen model on a CPU: fewer passes over memory, the same function.

Between a layer's matrix products lie norms, rotary embedding, gathers, activation and additions. On a fast matrix unit
they take longer than the products. What does not hang on the input is done to the weights once:

- a norm's weight and the attention's scale are multiplied into the products behind them;
- queries, keys and values are one product;
- a head's two halves lie interleaved, so that the rotary embedding is one complex multiplication in place.

The rest is computed in memory that all layers share, and the last layer computes only the answers behind its attention.
A layer is taken for one of these by its parts, and the caller compares the whole model before and after.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from distributed_tuner.oracles.local.attention import Segments, attend
from distributed_tuner.oracles.local.cpu_linear import FUSED, Linear, gated, is_linear, product

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Make: TypeAlias = "Callable[[], dict[str, Tensor]]"

PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@dataclass(frozen=True, slots=True)
class Shape:
    """A layer's widths and constants. ``rms_eps``: of the norms in front of attention and MLP."""

    heads: int
    kv_heads: int
    width: int
    inner: int
    rms_eps: tuple[float, float]


class Buffers:
    """Memory that the layers of one model take turns in. It grows to the longest sequence."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, like: "Tensor", *shape: int, dtype: "torch.dtype | None" = None) -> "Tensor":
        """Return memory of a shape, whatever is in it."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or len(flat) < size:
            flat = self._flat[name] = like.new_empty(size, dtype=dtype)
        return flat[:size].view(shape)


def shape_of(layer: Any) -> Shape | None:
    """Return the shape of a layer that can be rewritten; None where it has other parts than LLaMA's.

    Linear layers must be no more than that: one that is quantized or adapted has no weight that could be folded.
    """
    if {name for name, _ in layer.named_children()} != PARTS or any(map(_is_watched, layer.modules())):
        return None
    attention, mlp = layer.self_attn, layer.mlp
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    known = (
        {name for name, _ in attention.named_children()} == PROJECTIONS
        and {name for name, _ in mlp.named_children()} == MLP_PARTS
        and type(mlp.act_fn).__name__ in FUSED
        and all(hasattr(norm, "variance_epsilon") and not any(True for _ in norm.children()) for norm in norms)
        and hasattr(attention, "scaling")
        and all(is_linear(module) for part in (attention, mlp) for module in _linears(part))
    )
    if not known:
        return None
    d = int(getattr(attention, "head_dim", 0))
    sizes = [getattr(attention, name).out_features for name in ("q_proj", "k_proj", "v_proj")]
    if d < 2 or d % 2 or any(size % d for size in sizes) or sizes[1] != sizes[2] or sizes[0] % sizes[1]:
        return None
    eps = tuple(float(norm.variance_epsilon) for norm in norms)
    return Shape(sizes[0] // d, sizes[1] // d, d, mlp.gate_proj.out_features, (eps[0], eps[1]))


def _is_watched(module: Any) -> bool:
    """Tell whether a module has a forward or hooks of its own, which rewriting would leave out."""
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def _linears(part: Any) -> list[Any]:
    return [module for name, module in part.named_children() if name.endswith("_proj")]


def prepared(layer: Any, shape: Shape) -> "dict[str, Tensor]":
    """Return a layer's weights as ``FusedLayer`` wants them, in the layer's dtype; rounded once."""
    import torch

    attention, mlp = layer.self_attn, layer.mlp
    before, behind = (norm.weight.detach().float() for norm in (layer.input_layernorm, layer.post_attention_layernorm))
    dtype = attention.q_proj.weight.dtype

    def interleaved(part: "Tensor") -> "Tensor":
        halves = part.view(-1, 2, shape.width // 2, *part.shape[1:])
        return halves.transpose(1, 2).reshape(part.shape)

    def of(module: Any, scale: float = 1.0, rotated: bool = False) -> "tuple[Tensor, Tensor]":
        weight = module.weight.detach().float() * scale
        bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach().float() * scale
        return (interleaved(weight), interleaved(bias)) if rotated else (weight, bias)

    qkv = [
        of(attention.q_proj, float(attention.scaling), rotated=True),
        of(attention.k_proj, rotated=True),
        of(attention.v_proj),
    ]
    found = {"qkv": torch.cat([weight for weight, _ in qkv]) * before}
    if any(getattr(attention, name).bias is not None for name in ("q_proj", "k_proj", "v_proj")):
        found["qkv.bias"] = torch.cat([bias for _, bias in qkv])
    rest = {"o": (attention.o_proj, None), "gate": (mlp.gate_proj, behind), "up": (mlp.up_proj, behind)}
    for name, (module, norm) in {**rest, "down": (mlp.down_proj, None)}.items():
        weight = module.weight.detach()
        found[name] = weight if norm is None else weight.float() * norm
        if module.bias is not None:
            found[f"{name}.bias"] = module.bias.detach()
    return {name: part.to(dtype).contiguous() for name, part in found.items()}


def fused_layer(
    weights: "dict[str, Tensor]", shape: Shape, linear: Linear, index: int, last: bool, buffers: Buffers
) -> Any:
    """Return a module in the place of a decoder layer; ``weights``: as ``prepared`` returns them."""
    import torch

    class FusedLayer(torch.nn.Module):
        """One decoder layer over a flat sequence. It works in place, on what the layer before it returned."""

        def __init__(self) -> None:
            super().__init__()
            names = ("qkv", "o", "gate", "up", "down")
            self._parts = {name: product(linear, weights[name], weights.get(f"{name}.bias")) for name in names}

        def forward(
            self,
            hidden_states: "Tensor",
            *,
            segments: Segments,
            position_embeddings: "tuple[Tensor, Tensor]",
            **_more: Any,
        ) -> "Tensor":
            residual = self._residual(hidden_states[0])
            attended = self._attend(self._normed(residual, shape.rms_eps[0]), segments, position_embeddings)
            if last and segments.answers is not None:
                residual, attended = residual[segments.answers], attended[segments.answers]
            self._parts["o"].add_to(residual, attended)
            normed = self._normed(residual, shape.rms_eps[1])
            memory = (buffers.take(name, normed, len(normed), shape.inner) for name in ("gate", "up"))
            self._parts["down"].add_to(residual, gated(linear, self._parts["gate"], self._parts["up"], normed, *memory))
            return residual[None]

        def _residual(self, hidden_N_D: "Tensor") -> "Tensor":
            """Return the hidden states in memory that may be written to: not in the caller's."""
            mine = buffers.take("residual", hidden_N_D, *hidden_N_D.shape)
            return mine if mine.data_ptr() == hidden_N_D.data_ptr() else mine.copy_(hidden_N_D)

        def _normed(self, x_N_D: "Tensor", eps: float) -> "Tensor":
            """Return x over its root mean square, which is taken in float32."""
            squares = torch.linalg.vector_norm(x_N_D, dim=-1, keepdim=True, dtype=torch.float32).square_()
            factor = squares.div_(x_N_D.shape[1]).add_(eps).rsqrt_()
            exact = buffers.take("exact", x_N_D, *x_N_D.shape, dtype=torch.float32)
            torch.mul(x_N_D, factor, out=exact)
            if x_N_D.dtype == torch.float32:
                return exact
            return buffers.take("normed", x_N_D, *x_N_D.shape).copy_(exact)

        def _attend(
            self, normed_N_D: "Tensor", segments: Segments, position_embeddings: "tuple[Tensor, Tensor]"
        ) -> "Tensor":
            count, rotated, d = len(normed_N_D), shape.heads + shape.kv_heads, shape.width
            memory = buffers.take("qkv", normed_N_D, count, (rotated + shape.kv_heads) * d)
            qkv_N_W_d = self._parts["qkv"].into(normed_N_D, memory).view(count, -1, d)
            if segments.rotation is None:
                cos, sin = (part[0, :, None, : d // 2].float() for part in position_embeddings)
                segments.rotation = torch.complex(cos.contiguous(), sin.contiguous())
            turned = qkv_N_W_d[:, :rotated]
            exact = turned if turned.dtype == torch.float32 else turned.float()
            torch.view_as_complex(exact.view(count, rotated, d // 2, 2)).mul_(segments.rotation)
            if exact is not turned:
                turned.copy_(exact)
            out = buffers.take("attended", normed_N_D, count, shape.heads * d)
            return attend(qkv_N_W_d, shape.heads, segments, index, out)

    return FusedLayer()


def fuse_layers(layers: Any, linear: Linear, kept: "Callable[[Make], dict[str, Tensor]]" = lambda make: make()) -> int:
    """Rewrite the layers of a stack (a ModuleList), all or none; returns how many. Undone by putting them back.

    ``kept`` may return the weights of all layers from elsewhere, instead of having them made.
    """
    shapes = [shape for layer in layers if (shape := shape_of(layer)) is not None]
    if not shapes or len(shapes) < len(layers):
        return 0

    def make() -> "dict[str, Tensor]":
        return {
            f"{index}.{name}": part
            for index, shape in enumerate(shapes)
            for name, part in prepared(layers[index], shape).items()
        }

    weights, buffers = kept(make), Buffers()
    for index, shape in enumerate(shapes):
        mine = {name.partition(".")[2]: part for name, part in weights.items() if name.startswith(f"{index}.")}
        layers[index] = fused_layer(mine, shape, linear, index, index == len(shapes) - 1, buffers)
    return len(shapes)
