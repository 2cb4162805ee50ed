"""TrainableOptimizer in a PyTorch loop: its formulas, and what PyTorch's own tests ask of an optimizer's steps."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch_layers import SLOPES, assert_same, closure, give_gradients, layer, noise, parameters, states

from distributed_tuner.maths import trainable
from distributed_tuner.optimizers.trainable import TrainableOptimizer

VARIANTS = pytest.mark.parametrize("variant", ["full", "diagonal", "rank_one"])
FOREACH = pytest.mark.parametrize("foreach", [False, True])


# ------------------------------------------------------------------------------------------------------ the formulas
@VARIANTS
@FOREACH
def test_steps_are_those_of_the_formulas(variant, foreach):
    params = layer()
    optimizer = TrainableOptimizer(
        params, lr=0.1, variant=variant, alpha=0.4, beta=0.3, decay_steps=5.0, weight_decay=0.2, foreach=foreach
    )
    give_gradients(params, 0)
    optimizer.step()
    step, estimate = getattr(trainable, f"{variant}_step"), getattr(trainable, f"{variant}_estimate")
    names = [*SLOPES[variant], "intercept"]
    for t in range(1, 6):
        give_gradients(params, t)
        before = copy.deepcopy([(p, p.grad, optimizer.state[p]) for p in params])
        optimizer.step()
        alpha, beta = trainable.rate(t, 0.4, 5.0), trainable.rate(t, 0.3, 5.0)
        for p, (old, grad, state) in zip(params, before, strict=True):
            w = old.detach().numpy().reshape(-1)
            parts = [state[name].numpy() for name in names]
            parts = [part if part.shape == (w.size, w.size) else part.reshape(-1) for part in parts]
            parts = step(*parts, w, grad.numpy().reshape(-1), alpha, beta)
            moved = w * np.float32(1 - 0.1 * 0.2) - np.float32(0.1) * estimate(*parts, w)
            np.testing.assert_allclose(p.detach().numpy().reshape(-1), moved, rtol=1e-5, atol=1e-6)
            for name, part in zip(names, parts, strict=True):
                np.testing.assert_allclose(
                    optimizer.state[p][name].numpy().reshape(part.shape), part, rtol=1e-5, atol=1e-6
                )


@VARIANTS
@FOREACH
def test_without_a_slope_it_keeps_the_mean_of_gradients_that_adam_keeps(variant, foreach):
    ours, adams = layer(), layer()
    optimizer = TrainableOptimizer(ours, lr=0.1, variant=variant, alpha=0.0, beta=0.1, foreach=foreach)
    adam = torch.optim.Adam(adams, lr=0.1, betas=(1 - 0.1, 0.999))
    for t in range(20):
        give_gradients(ours, t)
        give_gradients(adams, t)
        before = [p.detach().clone() for p in ours]
        optimizer.step()
        adam.step()
        means = [adam.state[p]["exp_avg"] for p in adams]
        assert_same([optimizer.state[p]["intercept"] for p in ours], means)
        assert_same(ours, [w.add(mean, alpha=-0.1) for w, mean in zip(before, means, strict=True)])


@VARIANTS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"maximize": True, "weight_decay": 0.1},
        {"decay_steps": 3.0},
        {"lr": torch.tensor(0.1)},
        {"lr": torch.tensor([0.1]), "weight_decay": 0.1},
    ],
)
def test_multi_tensor_steps_are_those_of_the_loop(variant, options):
    """Over tensors of several shapes, layouts and dtypes, some without a gradient in some steps."""
    ends = []
    for foreach in (False, True):
        params = parameters(
            *(noise(*shape, seed=7) for shape in [(3, 4), (5,), (), (0,), (2, 3, 2)]),
            noise(4, 3, 2, seed=8)[..., 0],
            noise(4, 3, seed=9).T,
            *(noise(6, seed=10, dtype=dtype) for dtype in (torch.float64, torch.bfloat16, torch.float16)),
        )
        optimizer = TrainableOptimizer(params, **{"lr": 0.1, "variant": variant, "foreach": foreach, **options})
        for t in range(5):
            give_gradients(params, t)
            params[t].grad = None
            optimizer.step()
        ends.append([*params, *states(optimizer)])
    assert_same(*ends, tolerance=1e-6)


# ------------------------------------------------------------------------------------------------- in a training loop
SCHEDULERS: list[Callable[..., Any] | None] = [
    None,
    lambda o: torch.optim.lr_scheduler.StepLR(o, gamma=0.9, step_size=10),
    lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20),
    lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=0.4, total_iters=4),
    lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
]


@VARIANTS
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("lr", [0.01, torch.tensor(0.01)])
@pytest.mark.parametrize("maximize", [False, True])
def test_it_goes_the_right_way_under_any_schedule(variant, scheduler, lr, maximize):
    weight, bias = noise(10, 5, 2, seed=1)[..., 0].requires_grad_(), noise(10, 2, seed=2)[..., 0].requires_grad_()
    optimizer = TrainableOptimizer([weight, bias], lr=copy.deepcopy(lr), variant=variant, maximize=maximize)
    schedule = scheduler(optimizer) if scheduler else None
    compute = closure([weight, bias])
    start = float(compute().detach())
    for _ in range(20):
        loss = optimizer.step(compute).detach()
        if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            schedule.step(loss)
        elif schedule is not None:
            schedule.step()
    assert (float(compute().detach()) > start) == maximize


def test_a_closure_computes_gradients_and_its_loss_is_returned():
    params = layer()
    optimizer = TrainableOptimizer(params)
    assert optimizer.step() is None
    expected = closure(params)().detach()
    assert torch.equal(optimizer.step(closure(params)).detach(), expected)


def test_groups_are_optimizers_of_their_own():
    together, apart = layer(), layer()
    one = TrainableOptimizer(
        [{"params": [together[0]], "lr": 0.1, "weight_decay": 0.3}, {"params": [together[1]], "variant": "full"}],
        lr=0.02,
    )
    others = [
        TrainableOptimizer([apart[0]], lr=0.1, weight_decay=0.3),
        TrainableOptimizer([apart[1]], lr=0.02, variant="full"),
    ]
    for t in range(4):
        for params, optimizers in ((together, [one]), (apart, others)):
            give_gradients(params, t)
            for optimizer in optimizers:
                optimizer.step()
    assert_same(together, apart)


@VARIANTS
@FOREACH
def test_parameters_without_gradients_stay_and_have_no_state(variant, foreach):
    params = layer()
    optimizer = TrainableOptimizer(params, lr=0.1, variant=variant, weight_decay=0.1, foreach=foreach)
    optimizer.step()
    params[0].grad = noise(10, 5)
    optimizer.step()
    assert torch.equal(params[1], layer()[1]) and not torch.equal(params[0], layer()[0])
    assert list(optimizer.state) == [params[0]]


@VARIANTS
@FOREACH
def test_gradients_of_zero_move_nothing_at_the_start(variant, foreach):
    params = layer()
    optimizer = TrainableOptimizer(params, lr=0.1, variant=variant, foreach=foreach)
    for _ in range(2):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert_same(params, layer())


def test_parameters_may_be_added_later():
    params = layer()
    optimizer = TrainableOptimizer(params[:1], lr=0.1)
    give_gradients(params, 0)
    optimizer.step()
    optimizer.add_param_group({"params": params[1:], "variant": "rank_one", "foreach": True})
    optimizer.step()
    assert [int(optimizer.state[p]["step"]) for p in params] == [2, 1]
    assert optimizer.param_groups[1]["lr"] == 0.1
    assert not torch.equal(params[1], layer()[1])


def test_hooks_are_called_around_a_step():
    calls = []
    optimizer = TrainableOptimizer(layer())
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.step()
    assert calls == ["before", "after"]


def test_a_gradient_scaler_skips_steps_that_overflow():
    params = layer()
    optimizer = TrainableOptimizer(params, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor, moves in ((float("inf"), False), (1.0, True)):
        optimizer.zero_grad()
        scaler.scale(params[0].sum() * factor + params[1].sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(params[0], layer()[0]) != moves


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@VARIANTS
def test_half_precision_neither_overflows_nor_stands_still(variant, dtype):
    (w,) = parameters(noise(400, dtype=dtype) * 300)
    start = w.detach().clone()
    optimizer = TrainableOptimizer([w], lr=1.0, variant=variant)
    for t in range(20):
        w.grad = noise(400, seed=t, dtype=dtype) * 10
        optimizer.step()
    assert w.isfinite().all() and not torch.equal(w, start)
    assert all(value.isfinite().all() for value in states(optimizer))
