"""The Trainable Optimizer for any PyTorch loop: ``TrainableOptimizer``, a ``torch.optim.Optimizer``.

The class is made when it is first asked for, since its base is torch's, which is imported only where it is needed. The
estimators are in ``estimators.py``; what of them is the paper's is said in ``maths/trainable.py``.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from distributed_tuner.errors import ConfigError
from distributed_tuner.maths.trainable import rate
from distributed_tuner.optimizers import estimators
from distributed_tuner.seeds import standard_normal

if TYPE_CHECKING:
    from torch import Tensor

Variant: TypeAlias = Literal["full", "diagonal", "rank_one"]

SLOPES: dict[str, tuple[str, ...]] = {"full": ("slope",), "diagonal": ("slope",), "rank_one": ("slope_u", "slope_v")}
"""The state that each variant's slope is kept in, beside ``intercept`` and ``step``."""
UPDATES: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {
    "full": (estimators.full, None),  # there are no multi-tensor kernels for products with a matrix
    "diagonal": (estimators.diagonal, estimators.diagonal_many),
    "rank_one": (estimators.rank_one, estimators.rank_one_many),
}
FULL_LIMIT = 4096  # coordinates of a tensor with a full slope; 64 MiB in float32


def __getattr__(name: str) -> Any:
    if name == "TrainableOptimizer":
        return _optimizer_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _optimizer_class() -> type:
    import torch

    class TrainableOptimizer(torch.optim.Optimizer):
        """Moves parameters along an estimate ``G_hat = A w + b`` of the gradient that learns from each gradient seen.

        Every parameter tensor has an estimator of its own. A step lets it learn from ``grad``, then moves the parameter
        by ``-lr G_hat``. All arguments but ``params`` may differ between parameter groups.

        params: tensors, named tensors or parameter groups, real and floating.
        lr: step size; a float or a tensor of one element.
        variant: "full" (d x d numbers for a tensor of d coordinates, at most 4096), "diagonal" (2 d numbers) or
            "rank_one" (3 d).
        alpha: rate of the slope A, in [0, 1]. At 0 the slope stays 0 and b is an exponential mean of the gradients.
        beta: rate of the intercept b, in [0, 1].
        decay_steps: t0 of the rates' decay ``1 / (1 + t / t0)``, t a parameter's steps; None keeps them constant.
            The step size is left to torch's schedulers.
        weight_decay: decoupled, scaled by lr as in AdamW.
        maximize: ascend instead of descend.
        foreach: multi-tensor kernels (True), a loop (False), or the former where all tensors of a group are on CUDA
            (None). The full variant always loops, and so does a step that is being compiled.
        seed: names the random numbers that a rank-one slope starts from; the same on every device.

        Raises ConfigError, which is a ValueError, for values outside these, for complex parameters, for a tensor too
        large for "full", and in ``step`` for sparse gradients.
        """

        def __init__(
            self,
            params: Iterable[Any],
            lr: "float | Tensor" = 1e-2,
            *,
            variant: Variant = "diagonal",
            alpha: float = 0.1,
            beta: float = 0.1,
            decay_steps: float | None = None,
            weight_decay: float = 0.0,
            maximize: bool = False,
            foreach: bool | None = None,
            seed: int = 0,
        ) -> None:
            defaults = {
                "lr": lr,
                "variant": variant,
                "alpha": alpha,
                "beta": beta,
                "decay_steps": decay_steps,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "foreach": foreach,
                "seed": seed,
            }
            _check_options(defaults)
            super().__init__(params, defaults)

        def add_param_group(self, param_group: dict[str, Any]) -> None:
            """Add a group of parameters, as torch's optimizers do. Raises ConfigError; nothing has changed then."""
            super().add_param_group(param_group)
            try:
                _check_options(self.param_groups[-1])
                _check_parameters(self.param_groups[-1])
            except ConfigError:
                self.param_groups.pop()
                raise

        def __setstate__(self, state: dict[str, Any]) -> None:
            super().__setstate__(state)
            for group in self.param_groups:  # saved before an option was there, or with steps as numbers
                for name in self.defaults.keys() - {"differentiable"}:  # torch adds it, for optimizers of its own
                    group.setdefault(name, self.defaults[name])
            for kept in self.state.values():
                if "step" in kept and not isinstance(kept["step"], torch.Tensor):
                    kept["step"] = torch.tensor(float(kept["step"]))

        @torch.no_grad()
        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            """Take one step and return the closure's loss, or None without a closure.

            closure: computes the loss and its gradients anew. Parameters without a gradient stay as they are.
            """
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for group in self.param_groups:
                params: list[Tensor] = []
                grads: list[Tensor] = []
                slopes: list[list[Tensor]] = [[] for _ in SLOPES[group["variant"]]]
                intercepts: list[Tensor] = []
                steps: list[Tensor] = []
                self._init_group(group, params, grads, intercepts, steps, *slopes)
                if params:
                    _update(group, params, grads, intercepts, steps, slopes)
            return loss

        def _init_group(
            self,
            group: dict[str, Any],
            params: "list[Tensor]",
            grads: "list[Tensor]",
            intercepts: "list[Tensor]",
            steps: "list[Tensor]",
            *slopes: "list[Tensor]",
        ) -> None:
            """Fill the lists with the group's parameters that have a gradient, and with their state, made when missing.

            torch.compile runs it as it is, outside the trace, because of its name.
            """
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.layout != torch.strided:
                    raise ConfigError(
                        f"TrainableOptimizer takes dense gradients; got one of layout {p.grad.layout} for a parameter"
                        f" of shape {tuple(p.shape)}: make it with sparse=False, or use torch.optim.SparseAdam for it"
                    )
                state = self.state[p]
                if not state:
                    state.update(_start(p, group["variant"], (group["seed"], len(self.state))))
                params.append(p)
                grads.append(p.grad)
                intercepts.append(state["intercept"])
                steps.append(state["step"])
                for name, kept in zip(SLOPES[group["variant"]], slopes, strict=True):
                    kept.append(state[name])

    # It is found, by pickle too, as an attribute of this module.
    TrainableOptimizer.__qualname__ = TrainableOptimizer.__name__
    return TrainableOptimizer


def _check_options(group: dict[str, Any]) -> None:
    """Raise ConfigError unless the options of a group are in their ranges."""
    import torch

    def require(sound: bool, name: str, rule: str, move: str) -> None:
        if not sound:
            raise ConfigError(f"{name} of TrainableOptimizer is {rule}; got {group[name]!r}: {move}")

    lr, decay_steps = group["lr"], group["decay_steps"]
    require(not isinstance(lr, torch.Tensor) or lr.numel() == 1, "lr", "one number", "give a tensor of one element")
    require(0.0 <= float(lr) < float("inf"), "lr", "0 or more", "to ascend, say maximize=True")
    require(group["variant"] in SLOPES, "variant", f"one of {', '.join(SLOPES)}", "diagonal suits most tensors")
    for name in ("alpha", "beta"):
        require(0.0 <= group[name] <= 1.0, name, "a rate between 0 and 1", "0.1 is a start")
    require(decay_steps is None or decay_steps > 0.0, "decay_steps", "above 0, or None", "None keeps rates constant")
    require(0.0 <= group["weight_decay"] < float("inf"), "weight_decay", "0 or more", "0 is none")


def _check_parameters(group: dict[str, Any]) -> None:
    """Raise ConfigError for parameters that no estimator, or not the group's, can be kept for."""
    for p in group["params"]:
        if not p.is_floating_point():
            raise ConfigError(
                f"TrainableOptimizer takes real floating parameters; got {p.dtype} of shape {tuple(p.shape)}: for a"
                " complex one, optimize torch.view_as_real of it"
            )
        if group["variant"] == "full" and p.numel() > FULL_LIMIT:
            gib = p.numel() ** 2 * p.element_size() / 2**30
            raise ConfigError(
                f"variant full keeps d x d numbers for a tensor of d coordinates, d at most {FULL_LIMIT}; got a tensor"
                f" of shape {tuple(p.shape)}, d = {p.numel()}, which would take {gib:.3g} GiB: use diagonal or"
                " rank_one, for this tensor alone if it has a parameter group of its own"
            )


def _start(p: "Tensor", variant: str, key: tuple[int, int]) -> "dict[str, Tensor]":
    """Return a parameter's state before its first step; the estimate is 0 everywhere."""
    import torch

    def zeros() -> "Tensor":
        return torch.zeros_like(p, memory_format=torch.preserve_format)

    step = torch.zeros((), dtype=torch.float32)
    if variant == "full":
        flat = torch.zeros_like(p, memory_format=torch.contiguous_format)
        return {"step": step, "slope": p.new_zeros(p.numel(), p.numel()), "intercept": flat}
    if variant == "diagonal":
        return {"step": step, "slope": zeros(), "intercept": zeros()}
    noise = torch.from_numpy(standard_normal((*key, "slope_v"), p.numel())).view(p.shape)
    direction = zeros().copy_(noise.mul_(max(p.numel(), 1) ** -0.5))  # of length about 1
    return {"step": step, "slope_u": zeros(), "slope_v": direction, "intercept": zeros()}


def _update(
    group: dict[str, Any],
    params: "list[Tensor]",
    grads: "list[Tensor]",
    intercepts: "list[Tensor]",
    steps: "list[Tensor]",
    slopes: "list[list[Tensor]]",
) -> None:
    """Let the estimators of a group's parameters learn, and move the parameters along them."""
    import torch

    compiling = torch.compiler.is_compiling()  # the compiler joins what a loop computes by itself
    rates = [_rates(group, step, compiling) for step in steps]
    for step in steps:
        step += 1
    foreach = group["foreach"]
    if foreach is None:
        foreach = all(p.is_cuda and type(p) in (torch.Tensor, torch.nn.Parameter) for p in params)
    one, many = UPDATES[group["variant"]]
    rows = list(zip(params, grads, *slopes, intercepts, rates, strict=True))
    if not foreach or many is None or compiling:
        for w, g, *state, (alpha, beta) in rows:
            estimate = one(w, g.neg() if group["maximize"] else g, *state, alpha, beta)
            _move(group, w, estimate)
        return
    alike: dict[Any, list[Any]] = {}
    for row in rows:
        alike.setdefault((row[0].device, row[0].dtype), []).append(row)
    for some in alike.values():
        ws, gs, *states, pairs = (list(column) for column in zip(*some, strict=True))
        if group["maximize"]:
            gs = list(torch._foreach_neg(gs))
        alphas, betas = zip(*pairs, strict=True)
        _move_many(group, ws, many(ws, gs, *states, alphas, betas))


def _rates(group: dict[str, Any], step: "Tensor", compiling: bool) -> tuple[Any, Any]:
    """Return alpha and beta of a parameter's next step: floats, or tensors where a compiled step counts."""
    bases = float(group["alpha"]), float(group["beta"])
    if group["decay_steps"] is None:
        return bases
    t: Any = step.clone() if compiling else step.item()
    return rate(t, bases[0], group["decay_steps"]), rate(t, bases[1], group["decay_steps"])


def _move(group: dict[str, Any], w: "Tensor", estimate: "Tensor") -> None:
    """Move w by ``-lr (estimate + weight_decay w)``; the estimate is used up."""
    lr = _scalar(group["lr"])
    if group["weight_decay"]:
        estimate.add_(w, alpha=group["weight_decay"])
    if isinstance(lr, float):
        w.add_(estimate, alpha=-lr)
    else:
        w.sub_(estimate.mul_(lr))


def _move_many(group: dict[str, Any], w: estimators.Tensors, estimate: estimators.Tensors) -> None:
    """Do what ``_move`` does, for parameters of one device and dtype."""
    import torch

    lr = _scalar(group["lr"])
    if group["weight_decay"]:
        torch._foreach_add_(estimate, w, alpha=group["weight_decay"])
    if isinstance(lr, float):
        torch._foreach_add_(w, estimate, alpha=-lr)
    else:
        torch._foreach_mul_(estimate, lr)
        torch._foreach_sub_(w, estimate)


def _scalar(lr: "float | Tensor") -> Any:
    """Return a number as a float, a tensor without dimensions."""
    return float(lr) if isinstance(lr, float | int) else lr.reshape(())
