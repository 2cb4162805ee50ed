"""One step of the Trainable Optimizer's estimators on torch tensors; the formulas are those of ``maths.trainable``.

Each function lets its state learn, in place, from a gradient g observed at w, and returns the new estimate of the
gradient at w as a tensor of its own. All tensors have the shape, device and dtype of w, except a full slope, which is
(d, d) for a w of d coordinates. ``*_many`` takes lists of tensors of one device and dtype, one entry a parameter, and
uses torch's multi-tensor kernels. None reads a number back from a device.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Tensors: TypeAlias = "tuple[Tensor, ...] | list[Tensor]"
Rate: TypeAlias = Any
"""A float, or a tensor of no dimensions while torch.compile traces the step."""


# ------------------------------------------------------------------------------------------------------------- full A
def full(w: "Tensor", g: "Tensor", slope: "Tensor", intercept: "Tensor", alpha: Rate, beta: Rate) -> "Tensor":
    """Return ``A w + b`` after a step of A and b. ``intercept`` is contiguous. O(d^2)."""
    import torch

    flat_w, b = w.reshape(-1), intercept.view(-1)
    target = g.reshape(-1) - slope.mv(flat_w)
    error = b - target
    _learn(b, target, beta)
    slope.addr_(error.mul_(alpha / (1.0 + _dot(w, w))), flat_w, alpha=-1)
    return torch.addmv(b, slope, flat_w).view_as(w)


# --------------------------------------------------------------------------------------------------------- diagonal A
def diagonal(w: "Tensor", g: "Tensor", slope: "Tensor", intercept: "Tensor", alpha: Rate, beta: Rate) -> "Tensor":
    """Return ``a w + b`` after a step of a and b. O(d)."""
    target = g.addcmul(slope, w, value=-1)
    error = intercept - target
    _learn(intercept, target, beta)
    slope.addcdiv_(error.mul_(w), w.square().add_(1.0), value=-alpha)
    return intercept.addcmul(slope, w)


def diagonal_many(
    w: Tensors,
    g: Tensors,
    slope: Tensors,
    intercept: Tensors,
    alpha: Sequence[float],
    beta: Sequence[float],
) -> Tensors:
    """Return what ``diagonal`` returns, for each parameter."""
    import torch

    target = torch._foreach_addcmul(g, slope, w, value=-1)
    error = torch._foreach_sub(intercept, target)
    torch._foreach_lerp_(intercept, target, beta)
    divisor = target  # used up, as the error will be: a step takes only two lists in addition to the state
    torch._foreach_copy_(divisor, w)
    torch._foreach_mul_(divisor, w)
    torch._foreach_add_(divisor, 1.0)
    torch._foreach_mul_(error, w)
    torch._foreach_addcdiv_(slope, error, divisor, [-rate for rate in alpha])
    estimate = error
    torch._foreach_copy_(estimate, intercept)
    torch._foreach_addcmul_(estimate, slope, w)
    return estimate


# --------------------------------------------------------------------------------------------------- rank one, u v^T
def rank_one(
    w: "Tensor", g: "Tensor", u: "Tensor", v: "Tensor", intercept: "Tensor", alpha: Rate, beta: Rate
) -> "Tensor":
    """Return ``(v.w) u + b`` after a step of u, v and b. O(d)."""
    s = _dot(v, w)
    target = g.addcmul(u, s, value=-1)
    error = intercept - target
    _learn(intercept, target, beta)
    u_step, v_step, s = _rank_one_steps(s, _norm(u), _norm(w), _norm(error), _dot(u, error), alpha)
    u.addcmul_(error, u_step, value=-1)
    v.addcmul_(w, v_step, value=-1)
    return intercept.addcmul(u, s)


def rank_one_many(
    w: Tensors,
    g: Tensors,
    u: Tensors,
    v: Tensors,
    intercept: Tensors,
    alpha: Sequence[float],
    beta: Sequence[float],
) -> Tensors:
    """Return what ``rank_one`` returns, for each parameter."""
    import torch

    s = torch.stack([_dot(*pair) for pair in zip(v, w, strict=True)])
    target = torch._foreach_addcmul(g, u, s.unbind(), value=-1)
    error = torch._foreach_sub(intercept, target)
    torch._foreach_lerp_(intercept, target, beta)
    u_error = torch.stack([_dot(*pair) for pair in zip(u, error, strict=True)])
    rates = torch.tensor(alpha, dtype=s.dtype).to(s.device, non_blocking=True)
    u_step, v_step, s = _rank_one_steps(s, _norms(u), _norms(w), _norms(error), u_error, rates)
    torch._foreach_addcmul_(u, error, u_step.unbind(), value=-1)
    torch._foreach_addcmul_(v, w, v_step.unbind(), value=-1)
    estimate = error
    torch._foreach_copy_(estimate, intercept)
    torch._foreach_addcmul_(estimate, u, s.unbind())
    return estimate


def _rank_one_steps(
    s: "Tensor", u: "Tensor", w: "Tensor", error: "Tensor", u_error: "Tensor", alpha: Rate
) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Return the factors of u's and v's steps and the new v.w, from the old one and norms; of any one shape."""
    rate = alpha / (1.0 + s.square() + (u * w).square() + error * w)
    return rate * s, rate * u_error, s - rate * u_error * w.square()


# ------------------------------------------------------------------------------------------------------------- shared
def _learn(intercept: "Tensor", target: "Tensor", beta: Rate) -> None:
    """Move the intercept towards what the slope leaves of the gradient; a mean as torch's own optimizers keep it."""
    intercept.lerp_(target, beta if isinstance(beta, float) else beta.to(intercept))


def _dot(x: "Tensor", y: "Tensor") -> "Tensor":
    """Return the sum of x y, without dimensions, half precision in float32."""
    import torch

    return torch.dot(_wide(x).reshape(-1), _wide(y).reshape(-1))


def _norm(x: "Tensor") -> "Tensor":
    """Return the L2 norm of x, without dimensions, half precision in float32."""
    import torch

    norm: Tensor = torch.linalg.vector_norm(_wide(x))
    return norm


def _norms(x: Tensors) -> "Tensor":
    """Return ``_norm`` of each tensor as one of shape (len(x),)."""
    import torch

    wide = torch.promote_types(x[0].dtype, torch.float32)
    return torch.stack(torch._foreach_norm(x, 2, dtype=wide))


def _wide(x: "Tensor") -> "Tensor":
    import torch

    return x.to(torch.promote_types(x.dtype, torch.float32))
