"""Nevergrad's optimizers: names, workers, generations that do not fit the workers, replay."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from distributed_tuner.config.optimizer import NevergradConfig
from distributed_tuner.errors import ConfigError, OptimizerError
from distributed_tuner.optimizers import Optimizer, build
from distributed_tuner.optimizers.nevergrad_import import PACKAGES, PARALLEL
from distributed_tuner.preflight.rehearsal import Rehearsal
from distributed_tuner.stages.prompt_space import SoftSpace
from distributed_tuner.storage.serialization import decode, encode
from distributed_tuner.values import Batch, Latent, Point, PromptSpec

KEY = (7, "trial-a", 0)
TRAIN = Batch((), ("no", "yes"), "train")


@pytest.mark.parametrize("name", ["NGOptt", "ngopt"])
def test_an_unknown_name_is_answered_with_near_ones(name):
    with pytest.raises(ConfigError, match="did you mean NGOpt"):
        build(NevergradConfig(optimizer=name), dim=40, key=KEY, steps=5)


def test_a_sequential_method_refuses_several_workers():
    with pytest.raises(ConfigError, match="set 1"):
        build(NevergradConfig(optimizer="Powell", num_workers=2), dim=40, key=KEY, steps=5)


@pytest.mark.parametrize("name", sorted(PARALLEL))
def test_a_member_that_is_known_without_nevergrad_is_in_its_registry_and_takes_any_number_of_workers(name: str) -> None:
    import nevergrad

    assert not nevergrad.optimizers.registry[name].no_parallelization
    optimizer = build(NevergradConfig(optimizer=name, num_workers=30), dim=40, key=KEY, steps=1)
    assert len(optimizer.ask()) == optimizer.queries_per_step == 30


def test_a_plan_does_without_nevergrad() -> None:
    code = (
        "import sys\nfrom distributed_tuner.config.optimizer import NevergradConfig\n"
        "from distributed_tuner.optimizers import build\n"
        "search = build(NevergradConfig(optimizer='OnePlusOne', num_workers=4), dim=40, key=(1,), steps=1)\n"
        "assert search.queries_per_step == 4 and search.batch_size is None and not search.white_box\n"
        "assert 'nevergrad' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_nevergrad_imports_for_others_comes_when_it_is_wanted() -> None:
    code = (
        "import sys\nfrom distributed_tuner.config.optimizer import NevergradConfig\n"
        "from distributed_tuner.optimizers import build\n"
        "def ask(name):\n"
        "    config = NevergradConfig(optimizer=name, num_workers=1, intrinsic_dim=2)\n"
        "    search = build(config, dim=40, key=(1,), steps=3)\n"
        "    search.tell([float(i) for i, _ in enumerate(search.ask())])\n"
        "    return search.ask()\n"
        "ask('OnePlusOne')\n"
        "assert {'bayes_opt', 'sklearn', 'pandas', 'pytest'}.isdisjoint(sys.modules)\n"
        "assert ask('BO') and 'bayes_opt' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_large_generations_wait_for_their_losses():
    """22 candidates a generation in 500 dimensions and 8 workers: steps of 6 close generations, nothing breaks."""
    optimizer = build(NevergradConfig(optimizer="CMA", num_workers=8), dim=40, key=KEY, steps=250)
    sizes = []
    for _ in range(20):
        asked = optimizer.ask()
        sizes.append(len(asked))
        optimizer.tell([float(np.sum((c.z - 1) ** 2)) for c in asked if isinstance(c, Latent)])
    assert sizes[-6:] == [8, 8, 6, 8, 8, 6]


def test_the_space_decides_what_is_asked():
    full = build(
        NevergradConfig(space="full", sigma=0.1), dim=40, key=KEY, steps=5, start=np.ones(40, dtype=np.float32)
    )
    asked = full.ask()
    assert all(isinstance(candidate, Point) and candidate.vector.shape == (40,) for candidate in asked)
    spread = np.concatenate([c.vector - 1 for c in asked if isinstance(c, Point)])
    assert 0 < np.abs(spread).max() < 1
    latent = build(NevergradConfig(intrinsic_dim=5), dim=40, key=KEY, steps=5)
    assert all(isinstance(candidate, Latent) and candidate.z.shape == (5,) for candidate in latent.ask())


def test_recommending_changes_nothing():
    one, two = (build(NevergradConfig(intrinsic_dim=5, optimizer="PSO"), dim=40, key=KEY, steps=9) for _ in range(2))
    for step in range(4):
        asked, twin = one.ask(), two.ask()
        for left, right in zip(asked, twin, strict=True):
            assert isinstance(left, Latent) and isinstance(right, Latent)
            np.testing.assert_array_equal(left.z, right.z)
        losses = np.arange(len(asked)) * 0.5 + step
        one.tell(losses)
        two.tell(losses)
        for _ in range(step):
            one.recommend()


def test_a_state_fits_only_its_own_settings():
    state = build(NevergradConfig(optimizer="DE", intrinsic_dim=5), dim=40, key=KEY, steps=5).state_dict()
    with pytest.raises(ConfigError, match="optimizer=DE"):
        build(NevergradConfig(optimizer="PSO", intrinsic_dim=5), dim=40, key=KEY, steps=5).load_state_dict(state)


def test_a_waiting_thread_does_not_keep_the_process_alive():
    code = (
        "from distributed_tuner.config.optimizer import NevergradConfig\n"
        "from distributed_tuner.optimizers import build\n"
        "kept = build(NevergradConfig(optimizer='Cobyla', num_workers=1, intrinsic_dim=3), dim=9, key=(1,), steps=9)\n"
        "kept.ask()\n"
        "print('asked')\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "asked"), done.stderr


def latent_step(optimizer: Optimizer) -> list[list[float]]:
    asked = [candidate.z for candidate in optimizer.ask() if isinstance(candidate, Latent)]
    optimizer.tell([float(np.sum((z - 1) ** 2)) for z in asked])
    return [z.tolist() for z in asked]


@pytest.mark.parametrize("name", ["DE", "NGOpt", "Cobyla"])
def test_a_state_that_went_through_several_keys_is_taken_up_again(name: str) -> None:
    """As one that goes through the rounds of a trial does, with other settings at last."""
    config = NevergradConfig(optimizer=name, intrinsic_dim=5, num_workers=1 if name == "Cobyla" else 4)
    first = build(config, dim=40, key=KEY, steps=30)
    for _ in range(5):
        latent_step(first)
    second = build(config, dim=40, key=(7, "trial-a", 2), steps=30)
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        latent_step(second)
    third = build(config.model_copy(update={"sigma": 9.0}), dim=40, key=(7, "trial-a", 4), steps=30)
    third.load_state_dict(second.state_dict())
    latent_step(third)
    again = build(config, dim=40, key=(7, "trial-a", 4), steps=99)
    again.load_state_dict(decode(encode(third.state_dict()), "the state"))
    assert [latent_step(again) for _ in range(5)] == [latent_step(third) for _ in range(5)]


def test_a_state_holds_what_was_told_and_is_small() -> None:
    optimizer = build(NevergradConfig(optimizer="PSO", space="full"), dim=4000, key=KEY, steps=50)
    for _ in range(50):
        optimizer.tell(np.arange(len(optimizer.ask())))
    state = optimizer.state_dict()
    state.pop("start")
    assert len(encode(state)) < 20_000


def test_a_member_that_does_not_do_the_same_again_is_found_out() -> None:
    config = NevergradConfig(optimizer="DE", intrinsic_dim=5)
    optimizer = build(config, dim=40, key=KEY, steps=9)
    for _ in range(3):
        latent_step(optimizer)
    state = optimizer.state_dict()
    state["stretches"][0]["marks"][1] += 0.01
    with pytest.raises(ConfigError, match=r"DE must propose the same candidates again .* step 1: choose another"):
        build(config, dim=40, key=KEY, steps=9).load_state_dict(state)


# --------------------------------------------------------------------------------------- packages that are not brought
DOCS = Path(__file__).resolve().parents[2] / "docs" / "search_spaces.md"


def needs() -> dict[str, str]:
    """Return which package a name needs beside nevergrad, as docs/search_spaces.md has it."""
    rows = re.findall(r"^\| `(\w+)` \| `pip install ([\w-]+)` \| (.+) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    assert {package: pip for package, pip, _ in rows if package != pip} == PACKAGES
    return {name: package for package, _, names in rows for name in re.findall(r"`(\w+)`", names)}


def first_steps(name: str, rounds: int = 1) -> None:
    config = NevergradConfig(optimizer=name, intrinsic_dim=8, num_workers=1)
    space = SoftSpace(PromptSpec(5, "zeros", "", "prefix", "paper"), 40)
    Rehearsal().take(config, space, TRAIN, 0, 300, rounds=rounds)


@pytest.mark.parametrize("package", sorted(set(needs().values())))
def test_a_name_whose_package_is_missing_says_so_before_the_run(package: str) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    for name in sorted(name for name, needed in needs().items() if needed == package):
        with pytest.raises(ConfigError, match=f"nevergrad's {name} needs the package {package}, .* pip install "):
            first_steps(name)


@pytest.mark.extended  # every name of the registry; those of the table and of the conformance suite stand for it
def test_no_other_name_needs_a_package_or_brings_a_traceback() -> None:
    import nevergrad

    by_budget = re.findall(r"`(\w+)`", DOCS.read_text(encoding="utf-8").split("| one of these |")[1].split("\n")[0])
    missing, infinite, others = {}, [], set()
    for name in sorted(set(nevergrad.optimizers.registry) - set(by_budget)):
        try:
            first_steps(name, rounds=2)
        except ConfigError as error:
            if (package := str(error).partition("needs the package ")[2].partition(",")[0]) != "":
                missing[name] = package
            else:
                assert "must propose the same candidates again" in str(error)
                others.add(name)
        except OptimizerError as error:
            assert "finite 32-bit floats" in str(error)
            infinite.append(name)
    assert len(nevergrad.optimizers.registry) == 542
    assert len(by_budget) == 4
    told = DOCS.read_text(encoding="utf-8").split("A trial of ")[1].split("cannot be resumed")[0]
    assert others <= set(re.findall(r"`(\w+)`", told))  # some differ now and then only
    assert [f"`{name}` proposes infinite coordinates" in DOCS.read_text() for name in infinite] == [True]
    assert missing == {name: package for name, package in needs().items() if find_spec(package) is None}


def test_a_search_that_cannot_be_replayed_is_refused_in_several_rounds() -> None:
    first_steps("CmaFmin2")
    with pytest.raises(ConfigError, match="CmaFmin2 must propose the same candidates again to be resumed"):
        first_steps("CmaFmin2", rounds=2)


@pytest.mark.parametrize(("name", "workers"), [("BAR4", 4), ("DS9", 4), ("MultiDS", 4)])
def test_what_a_member_raises_is_told_in_one_line(name: str, workers: int) -> None:
    optimizer = build(NevergradConfig(optimizer=name, intrinsic_dim=8, num_workers=workers), dim=40, key=KEY, steps=3)
    with pytest.raises(ConfigError, match=rf"{name} gave up in step \d: \w+Error: .*Choose another optimizer, num_w"):
        for _ in range(3):
            optimizer.tell([float(i) for i, _ in enumerate(optimizer.ask())])


@pytest.mark.parametrize(("name", "workers"), [("Cobyla", 1), ("DS9", 4)])
def test_nothing_of_pythons_own_is_on_the_screen(name: str, workers: int) -> None:
    """Neither warnings of a thread that goes on by itself, nor what a destructor of nevergrad's trips over."""
    code = (
        "import time\n"
        "from distributed_tuner.config.optimizer import NevergradConfig\n"
        "from distributed_tuner.errors import ConfigError\n"
        "from distributed_tuner.optimizers import build\n"
        f"config = NevergradConfig(optimizer={name!r}, num_workers={workers}, intrinsic_dim=8)\n"
        "search = build(config, dim=40, key=(1,), steps=12)\n"
        "try:\n"
        "    for i in range(12):\n"
        "        search.tell([float(i)] * len(search.ask()))\n"
        "except ConfigError:\n"
        "    pass\n"
        "time.sleep(0.2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_search_in_one_dimension_is_rehearsed_since_its_cma_needs_another_package() -> None:
    config = NevergradConfig(optimizer="CMA", space="words", num_workers=4)
    one, two = (build(config, dim=dim, key=KEY, steps=9, vocabulary=("a", "b")) for dim in (1, 2))
    assert (one.vouched_for, two.vouched_for) == (False, True)
