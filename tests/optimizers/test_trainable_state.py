"""TrainableOptimizer's state, its options, and ways to it: saved, copied, compiled, refused, imported."""

import copy
import io
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_layers import SLOPES, assert_same, closure, give_gradients, layer, noise, parameters, states

from distributed_tuner.errors import ConfigError
from distributed_tuner.optimizers.trainable import FULL_LIMIT, TrainableOptimizer

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = pytest.mark.parametrize("variant", ["full", "diagonal", "rank_one"])


# ---------------------------------------------------------------------------------------------------------- the state
@VARIANTS
@pytest.mark.parametrize("travel", [copy.deepcopy, lambda state: saved(state)], ids=["copied", "saved"])
def test_a_loaded_state_goes_on_to_the_last_bit(variant, travel):
    params = layer()
    optimizer = TrainableOptimizer(params, lr=0.01, variant=variant, decay_steps=7.0)
    for _ in range(5):
        optimizer.step(closure(params))
    state = travel(optimizer.state_dict())
    others = parameters(*(p.detach() for p in params))
    resumed = TrainableOptimizer(others, lr=99.0, variant="diagonal")
    resumed.load_state_dict(state)
    for _ in range(5):
        optimizer.step(closure(params))
        resumed.step(closure(others))
    assert_same(params, others)
    assert_same(states(optimizer), states(resumed))
    assert resumed.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def saved(state: Any) -> Any:
    """Return a state after a way through a file that holds no code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@VARIANTS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_state_takes_the_dtype_of_the_parameters_that_it_is_loaded_for(variant, dtype):
    params = layer()
    optimizer = TrainableOptimizer(params, variant=variant)
    optimizer.step(closure(params))
    others = parameters(*(p.detach().to(dtype) for p in params))
    resumed = TrainableOptimizer(others, variant=variant)
    resumed.load_state_dict(optimizer.state_dict())
    resumed.step(closure(others))
    for p in others:
        assert {name: value.dtype for name, value in resumed.state[p].items()} == {
            "step": torch.float32,
            **dict.fromkeys([*SLOPES[variant], "intercept"], dtype),
        }
        assert int(resumed.state[p]["step"]) == 2


def test_states_saved_without_an_option_or_with_numbers_for_steps_still_load():
    params = layer()
    optimizer = TrainableOptimizer(params, lr=0.1)
    optimizer.step(closure(params))
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["maximize"], group["foreach"], group["seed"]
    for kept in state["state"].values():
        kept["step"] = kept["step"].item()
    optimizer.load_state_dict(state)
    optimizer.step(closure(params))
    assert [int(optimizer.state[p]["step"]) for p in params] == [2, 2]


@pytest.mark.parametrize(
    "travel", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copied", "pickled"]
)
def test_the_optimizer_itself_can_be_copied(travel):
    params = layer()
    optimizer = TrainableOptimizer(params, lr=0.1, variant="rank_one")
    optimizer.step(closure(params))
    other = travel(optimizer)
    assert type(other) is TrainableOptimizer and repr(other) == repr(optimizer)
    others = other.param_groups[0]["params"]
    optimizer.step(closure(params))
    other.step(closure(others))
    assert_same(params, others)
    assert_same(states(optimizer), states(other))


def test_the_seed_names_the_start_of_a_rank_one_slope():
    def start(seed: int) -> list[torch.Tensor]:
        params = layer()
        optimizer = TrainableOptimizer(params, variant="rank_one", seed=seed, alpha=0.0)
        optimizer.step(closure(params))
        return [optimizer.state[p]["slope_v"] for p in params]

    torch.manual_seed(0)
    first = start(0)
    torch.manual_seed(1)
    assert_same(first, start(0))
    assert not torch.equal(first[0], start(1)[0])
    assert not torch.equal(first[0].flatten()[:10], first[1])
    assert float(first[0].norm()) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(("variant", "numbers"), [("diagonal", lambda d: 2 * d), ("rank_one", lambda d: 3 * d)])
def test_the_small_variants_keep_a_few_numbers_for_each_coordinate(variant, numbers):
    (w,) = parameters(noise(300, 1000))
    optimizer = TrainableOptimizer([w], variant=variant)
    w.grad = noise(300, 1000, seed=1)
    optimizer.step()
    assert sum(value.numel() for value in states(optimizer)) == numbers(w.numel()) + 1  # and the count of steps
    assert all(value.dtype == torch.float32 for value in states(optimizer))


# ----------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1e-2}, "lr of TrainableOptimizer is 0 or more; got -0.01"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": torch.ones(2)}, "a tensor of one element"),
        ({"variant": "dense"}, "full, diagonal, rank_one; got 'dense'"),
        ({"alpha": 1.5}, "alpha of TrainableOptimizer is a rate between 0 and 1; got 1.5"),
        ({"beta": -0.1}, "beta"),
        ({"decay_steps": 0.0}, "decay_steps"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_options_out_of_range_are_value_errors(options, said):
    with pytest.raises(ValueError, match=said) as error:
        TrainableOptimizer(layer(), **options)
    assert isinstance(error.value, ConfigError)
    optimizer = TrainableOptimizer(layer()[:1])
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group({"params": layer()[1:], **options})
    assert len(optimizer.param_groups) == 1


def test_no_parameters_are_a_value_error_as_torch_has_it():
    with pytest.raises(ValueError, match="empty parameter list"):
        TrainableOptimizer([])


def test_a_tensor_too_large_for_a_full_slope_says_how_much_it_would_take():
    large = parameters(torch.zeros(FULL_LIMIT + 1))
    with pytest.raises(ConfigError, match=r"d = 4097, which would take 0\.0625 GiB: use diagonal or rank_one"):
        TrainableOptimizer(large, variant="full")
    TrainableOptimizer([{"params": large, "variant": "diagonal"}, {"params": layer()}], variant="full")


def test_complex_parameters_are_refused():
    with pytest.raises(ConfigError, match=r"torch\.complex64 .*view_as_real"):
        TrainableOptimizer(parameters(torch.zeros(3, dtype=torch.complex64)))


def test_sparse_gradients_are_refused_before_anything_moves():
    table = torch.nn.Embedding(5, 3, sparse=True)
    before = table.weight.detach().clone()
    optimizer = TrainableOptimizer(table.parameters(), lr=0.1)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ConfigError, match=r"sparse_coo .* sparse=False"):
        optimizer.step()
    assert torch.equal(table.weight, before)


# ---------------------------------------------------------------------------------------------- compiled, and imported
def compiled_beside_eager(variant: str, backend: Any, **options: Any) -> None:
    """Take steps with a compiled step and with a plain one, under a schedule where lr is a tensor, and compare."""
    pairs = []
    for _ in range(2):
        params = layer()
        optimizer = TrainableOptimizer(params, **{"lr": 0.1, **copy.deepcopy(options)}, variant=variant)
        give_gradients(params, 0)
        pairs.append((params, optimizer))
    (params, optimizer), (others, plain) = pairs
    step = torch.compile(optimizer.step, backend=backend, fullgraph=True)
    gamma = 0.5 if "lr" in options else 1.0
    schedules = [torch.optim.lr_scheduler.ExponentialLR(one, gamma) for one in (optimizer, plain)]
    for _ in range(5):
        step()
        plain.step()
        for schedule in schedules:
            schedule.step()
    assert_same(params, others, tolerance=1e-6)
    assert_same(states(optimizer), states(plain), tolerance=1e-6)


@VARIANTS
@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"decay_steps": 4.0, "lr": torch.tensor(0.1)}])
@pytest.mark.filterwarnings("ignore:Detected call of")  # the schedule counts steps of the plain method
def test_a_step_is_traced_once_and_whole(variant, options):
    torch._dynamo.reset()
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    compiled_beside_eager(variant, counter, foreach=True, **options)
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize(  # all three are traced above; one of them is compiled for the others
    "variant", ["full", *(pytest.param(name, marks=pytest.mark.extended) for name in ("diagonal", "rank_one"))]
)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler for the CPU")
@pytest.mark.filterwarnings("ignore:Detected call of")  # the schedule counts steps of the plain method
def test_a_compiled_step_is_the_plain_one(variant):
    torch._dynamo.reset()
    compiled_beside_eager(variant, "inductor", decay_steps=4.0)


def test_the_package_has_it_and_loads_torch_only_then():
    code = (
        "import sys, distributed_tuner.optimizers as o\n"
        "assert 'torch' not in sys.modules\n"
        "from distributed_tuner.optimizers.trainable import TrainableOptimizer\n"
        "assert o.TrainableOptimizer is TrainableOptimizer and 'torch' in sys.modules\n"
        "assert not hasattr(o, 'NoOptimizer')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_of_its_page_runs(capsys):
    page = (ROOT / "docs" / "trainable_optimizer.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        exec(example, names)
    assert names["losses"][-1] < names["losses"][0] / 100
    assert capsys.readouterr().out.startswith("loss ")
