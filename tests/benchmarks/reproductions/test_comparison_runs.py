"""Runs side by side, and tuning: each run as it would go alone, estimates as optimizers have them, the best setting."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from noisy_bowl import NoisyBowl

from benchmarks.reproductions.trainable_optimizer.methods import Method, is_discrete, methods
from benchmarks.reproductions.trainable_optimizer.problems import batches
from benchmarks.reproductions.trainable_optimizer.runs import Course, Runs, Setting, run, spread, watched
from benchmarks.reproductions.trainable_optimizer.tuning import Plan, enter, tune
from distributed_tuner.maths.trainable import rate

METHODS = {method.name: method for method in methods()}
COURSE = Course(6, "harmonic", 3.0, decaying=True)
CONSTANT = Course(25, "harmonic", 1e9, decaying=False)
KEY = (0, "bowl", "fresh", 0)


def gone(name: str, course: Course = COURSE, watch: Any = (), learning_rate: float = 0.3, **options: Any) -> Runs:
    setting = Setting(learning_rate, options or METHODS[name].options[0])
    return run(NoisyBowl(), METHODS[name], [(setting, [KEY])], course, watch)


@pytest.mark.parametrize("decaying", [True, False])
def test_a_off_is_an_exponential_mean(decaying: bool) -> None:
    bowl, beta, course = NoisyBowl(), 0.4, replace(COURSE, decaying=decaying)
    w, b, errors = bowl.start(KEY), np.zeros(7), []
    for t, picks in enumerate(batches(KEY, 6, 12, 3)):
        now = rate(t, beta, 3.0) if decaying else beta
        b = (1 - now) * b + now * bowl.gradients(w[None], picks[None])[0]
        errors.append(((b - bowl.losses_and_gradients(w[None])[1][0]) ** 2).sum())
        w = w - 0.3 / (1 + t / 3.0) * b
    runs = gone("a_off", course, range(6), alpha=0.0, beta=beta)
    np.testing.assert_allclose(runs.w[0], w, atol=1e-5)
    np.testing.assert_allclose(runs.errors[:, 0], errors, rtol=1e-4)
    np.testing.assert_allclose(runs.final, bowl.losses(w[None].astype(np.float32)), rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "a_off", "full", "diagonal", "rank_one"])
def test_an_estimate_is_what_the_step_went_along(name: str) -> None:
    before, after = gone(name, replace(COURSE, steps=5)), gone(name, watch=[5])
    moved = (before.w - after.w) / np.float32(0.3 / (1 + 5 / 3.0))
    exact = NoisyBowl().losses_and_gradients(before.w)[1]
    np.testing.assert_allclose(after.errors[0], ((moved - exact) ** 2).sum(axis=1), rtol=1e-3)
    np.testing.assert_allclose(after.losses[0], NoisyBowl().losses(before.w))


def test_momentums_estimate_is_the_mean_that_it_goes_along() -> None:
    before, after = gone("momentum", replace(COURSE, steps=5)), gone("momentum", watch=[5])
    moved = (1 - 0.9) * (before.w - after.w) / np.float32(0.3 / (1 + 5 / 3.0))
    exact = NoisyBowl().losses_and_gradients(before.w)[1]
    np.testing.assert_allclose(after.errors[0], ((moved - exact) ** 2).sum(axis=1), rtol=1e-3)


def test_adams_estimate_is_its_corrected_first_moment() -> None:
    bowl = NoisyBowl()
    w, g = bowl.start(KEY)[None], bowl.gradients(bowl.start(KEY)[None], batches(KEY, 1, 12, 3))
    runs = gone("adam", replace(COURSE, steps=1), [0])
    np.testing.assert_allclose(runs.errors[0], ((g - bowl.losses_and_gradients(w)[1]) ** 2).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_runs_side_by_side_go_as_they_would_alone(name: str) -> None:
    options = METHODS[name].options
    jobs = [(Setting(0.1, options[0]), [(0,), (1,)]), (Setting(0.3, options[-1]), [(1,), (2,)])]
    together = run(NoisyBowl(), METHODS[name], jobs, COURSE, [0, 5])
    assert together.w.shape == (4, 7) and together.errors.shape == (2, 4)
    alone = run(NoisyBowl(), METHODS[name], [(jobs[0][0], [(0,)])], COURSE, [0, 5])
    np.testing.assert_allclose(alone.w[0], together.w[0], rtol=1e-6)
    if name != "rank_one":  # v is drawn anew for each tensor of an optimizer
        last = run(NoisyBowl(), METHODS[name], [(jobs[1][0], [(2,)])], COURSE, [0, 5])
        np.testing.assert_allclose(last.w[0], together.w[3], rtol=1e-6)
        np.testing.assert_allclose(last.errors[:, 0], together.errors[:, 3], rtol=1e-4)
    again = run(NoisyBowl(), METHODS[name], jobs, COURSE, [0, 5])
    np.testing.assert_array_equal(again.w, together.w)
    np.testing.assert_array_equal(again.errors, together.errors)


def test_a_run_that_diverges_harms_no_other() -> None:
    jobs = [(Setting(1e30, {}), [(0,)]), (Setting(0.1, {}), [(0,)])]
    runs = run(NoisyBowl(), METHODS["sgd"], jobs, COURSE, [5])
    assert not np.isfinite(runs.final[0]) and np.isfinite(runs.final[1])


def test_step_sizes_fall() -> None:
    assert [Course(4, "harmonic", 2.0, True).factor(t) for t in (0, 2, 4)] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert [Course(4, "cosine", 2.0, True).factor(t) for t in (0, 2, 4)] == [1.0, pytest.approx(0.5), pytest.approx(0)]


def test_late_errors_are_of_the_last_fifth() -> None:
    errors = np.array([[9.0], [9.0], [1.0], [3.0]])
    runs = Runs(np.zeros((1, 1)), np.zeros(1), np.array([0.0, 70.0, 80.0, 99.0]), errors, errors, 0.0, 0.0)
    assert runs.late_errors.tolist() == [2.0]
    assert np.isnan(gone("sgd").late_errors).all()


def test_watched_steps_hold_both_ends() -> None:
    assert watched(100, 3) == [0, 50, 99]  # 49.5 is rounded to even
    assert watched(3, 10) == [0, 1, 2]
    assert np.isnan(spread(np.array([1.0]))) and spread(np.array([1.0, 3.0])) == pytest.approx(2**0.5)


# --------------------------------------------------------------------------------------------------------------- tuning
def plan(rates: tuple[float, ...], **more: Any) -> Plan:
    return replace(Plan(rates, 1, tuning_seeds=1, seeds=2, course=CONSTANT, watch=5), **more)


def test_tuning_finds_the_best_step_size_of_a_bowl() -> None:
    exact = NoisyBowl(noise=0.0)  # the best constant step size is 2 / (0.5 + 1.0)
    assert tune(exact, METHODS["sgd"], plan((0.1, 0.5, 4 / 3, 1.9, 50.0)), 0).learning_rate == 4 / 3


def test_tuning_finds_the_best_of_other_settings() -> None:
    averages = replace(METHODS["a_off"], options=tuple({"alpha": 0.0, "beta": beta} for beta in (0.0, 0.9, 0.01)))
    found = tune(NoisyBowl(noise=0.0), averages, plan((1e-3, 0.5), options=3), 0)
    assert found.learning_rate == 0.5 and found.options["beta"] == 0.9


def test_every_method_has_as_many_tuning_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.reproductions.trainable_optimizer import tuning

    counts = []

    def counted(problem: Any, method: Method, jobs: Any, *rest: Any) -> Runs:
        counts.append(sum(len(keys) for _, keys in jobs))
        return run(problem, method, jobs, *rest)

    monkeypatch.setattr(tuning, "run", counted)
    spent = plan((0.1, 0.3), options=4, tuning_seeds=2, course=COURSE)
    for method in METHODS.values():
        tune(NoisyBowl(), method, spent, 0)
    assert counts == [spent.tuning_runs] * 7 == [16] * 7


def test_an_entry_says_when_the_grid_ends() -> None:
    inside, outside = plan((0.1, 1.0, 50.0)), plan((0.1, 1.0))
    assert not enter(NoisyBowl(noise=0.0), METHODS["sgd"], inside, 0).edge
    assert enter(NoisyBowl(noise=0.0), METHODS["sgd"], outside, 0).edge


def test_the_ablation_switches_one_thing_at_a_time() -> None:
    entry = enter(NoisyBowl(), METHODS["diagonal"], plan((0.3,), course=COURSE), 0)
    assert set(entry.ablation) == {(True, True), (True, False), (False, True), (False, False)}
    assert entry.ablation[True, True] is entry.runs
    control = replace(METHODS["a_off"], options=({**entry.setting.options, "alpha": 0.0},))
    off = enter(NoisyBowl(), control, plan((0.3,), course=COURSE), 0)
    np.testing.assert_array_equal(entry.ablation[False, True].final, off.runs.final)
    assert enter(NoisyBowl(), METHODS["full"], plan((0.3,), course=COURSE), 0).ablation == {}


def test_a_full_slope_is_left_out_where_a_tensor_is_too_large() -> None:
    large = NoisyBowl(shapes=((65, 64), (3,)))
    assert METHODS["full"].left_out(large) == "a tensor of 4,160 coordinates is beyond the 4,096 of a full A"
    assert METHODS["full"].left_out(NoisyBowl()) == METHODS["diagonal"].left_out(large) == ""


def test_settings_in_words() -> None:
    assert is_discrete({}) == "-"
    assert is_discrete({"betas": (0.9, 0.99)}) == "beta1 0.9, beta2 0.99"
    assert is_discrete({"alpha": 0.0, "beta": 0.1, "decay_steps": 3.0}) == "beta 0.1"
