"""Drawing trials: grids, samples, draws, and checks of both ends of every range."""

import json
from typing import Any

import pytest

from distributed_tuner.config.load import parse
from distributed_tuner.config.optimizer import CmaConfig
from distributed_tuner.config.space import TrialPlan, draw_trials, expand, validate
from distributed_tuner.config.stage import SearchStageConfig
from distributed_tuner.errors import ConfigError


def tree(optimizer: str = "{kind: zot}", more: str = "") -> Any:
    """Return a space around an optimizer."""
    return parse(
        f"name: some\ntask: {{kind: demo}}\noracle: {{kind: analytic}}\n"
        f"stages:\n  - {{kind: search, optimizer: {optimizer}}}\n{more}\n"
    )


def drawn(plans: list[TrialPlan], path: str) -> list[Any]:
    return [plan.drawn.get(path) for plan in plans]


def test_constants_alone_make_one_trial() -> None:
    (plan,) = draw_trials(tree())
    assert (plan.trial_id, plan.index, plan.method, plan.drawn) == ("zot-0000", 0, "zot", {})


def test_grids_multiply_and_the_first_written_changes_slowest() -> None:
    plans = draw_trials(tree("{kind: zot, rho: !grid [0.1, 0.2]}", "seed: !grid [0, 1, 2]"))
    rho, seed = "stages.0.optimizer.rho", "seed"
    assert list(zip(drawn(plans, rho), drawn(plans, seed), strict=True)) == [
        (0.1, 0), (0.1, 1), (0.1, 2), (0.2, 0), (0.2, 1), (0.2, 2),
    ]  # fmt: skip
    assert [plan.experiment.seed for plan in plans] == [0, 1, 2, 0, 1, 2]
    assert [plan.trial_id for plan in plans] == [f"zot-000{i}" for i in range(6)]


def test_a_grid_inside_an_option_multiplies_only_that_option() -> None:
    plans = draw_trials(tree("!grid [{kind: zot, rho: !grid [0.1, 0.2]}, {kind: cma}]"))
    assert [(plan.method, plan.drawn.get("stages.0.optimizer.rho")) for plan in plans] == [
        ("zot", 0.1), ("zot", 0.2), ("cma", None),
    ]  # fmt: skip
    assert [plan.trial_id for plan in plans] == ["zot-0000", "zot-0001", "cma-0002"]


def test_samples_are_draws_of_the_random_values_for_each_combination() -> None:
    plans = draw_trials(tree("{kind: zot, rho: !uniform [0.1, 1]}", "seed: !grid [0, 1]\nsamples: 3"))
    assert [plan.experiment.seed for plan in plans] == [0, 0, 0, 1, 1, 1]
    rhos = drawn(plans, "stages.0.optimizer.rho")
    assert len(set(rhos)) == 6
    assert [plan.experiment.stages[0].optimizer.rho for plan in plans] == rhos  # type: ignore[union-attr]


def test_the_same_space_draws_the_same_and_another_seed_another() -> None:
    random = "{kind: zot, rho: !loguniform [0.01, 1], points: !randint [1, 90]}"
    first, again = draw_trials(tree(random, "seed: 1")), draw_trials(tree(random, "seed: 1"))
    assert first == again
    assert first[0].drawn != draw_trials(tree(random, "seed: 2"))[0].drawn
    assert set(first[0].drawn) == {"stages.0.optimizer.rho", "stages.0.optimizer.points"}


def test_more_samples_keep_the_first_trials() -> None:
    random = "{kind: zot, rho: !uniform [0.1, 1]}"
    few, many = draw_trials(tree(random, "samples: 2")), draw_trials(tree(random, "samples: 5"))
    assert drawn(few, "stages.0.optimizer.rho") == drawn(many, "stages.0.optimizer.rho")[:2]


def test_values_inside_a_drawn_option_are_drawn_and_told() -> None:
    plans = draw_trials(tree("!choice [{kind: zot, rho: !uniform [0.1, 1]}, {kind: cma}]", "samples: 20"))
    assert {plan.method for plan in plans} == {"zot", "cma"}
    for plan in plans:
        assert plan.drawn["stages.0.optimizer.kind"] == plan.method
        assert ("stages.0.optimizer.rho" in plan.drawn) == (plan.method == "zot")


def test_options_of_one_kind_are_told_apart() -> None:
    plans = draw_trials(
        tree("!grid [{kind: zot, name: a, rho: !uniform [0.1, 1]}, {kind: zot, name: b, clip: !uniform [1, 2]}]")
    )
    assert [set(plan.drawn) for plan in plans] == [
        {f"stages.0.optimizer.{key}" for key in keys} for keys in (("kind", "name", "rho"), ("kind", "name", "clip"))
    ]
    assert drawn(plans, "stages.0.optimizer.name") == ["a", "b"] == [plan.method for plan in plans]


def test_an_option_without_a_kind_is_told_as_a_whole() -> None:
    plans = draw_trials(tree(more="budget: !grid [{queries: 100}, {queries: 200}]"))
    assert drawn(plans, "budget") == [{"queries": 100}, {"queries": 200}]


def test_stages_join_their_names() -> None:
    two = parse(
        "{name: some, task: {kind: demo}, oracle: {kind: analytic}, stages: [{kind: search, steps: 3, optimizer: {kind:"
        " random_search, name: warm-up}}, {kind: search, optimizer: {kind: zot}}]}"
    )
    assert draw_trials(two)[0].method == "warm-up+zot"


def test_expand_leaves_random_values_alone() -> None:
    assert list(expand(parse("{a: !grid [1, 2], b: !uniform [0, 1]}"))) == [
        parse("{a: 1, b: !uniform [0, 1]}"),
        parse("{a: 2, b: !uniform [0, 1]}"),
    ]


@pytest.mark.parametrize(
    ("optimizer", "path", "value"),
    [
        ("{kind: zot, momentum: !uniform [0.5, 1.0]}", "stages.0.optimizer.momentum", "1.0"),
        ("{kind: zot, momentum: !uniform [-0.001, 0.9]}", "stages.0.optimizer.momentum", "-0.001"),
        ("{kind: zot, floor: !loguniform [0.1, 1.001]}", "stages.0.optimizer.floor", "1.001"),
        ("{kind: zot, points: !randint [0, 1000]}", "stages.0.optimizer.points", "0"),
        ("{kind: zot, points: !choice [1, 2, 3, 4, 5, 6, 7, 8, 9, -4]}", "stages.0.optimizer.points", "-4"),
        ("!choice [{kind: cma}, {kind: zot, momentum: !uniform [0.5, 1]}]", "stages.0.optimizer.momentum", "1.0"),
        ("!grid [{kind: cma}, {kind: zot, rho: !uniform [0, 1]}]", "stages.0.optimizer.rho", "0.0"),
    ],
)
def test_a_range_is_checked_at_both_ends_whatever_is_drawn(optimizer: str, path: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validate(tree(optimizer))
    assert path in str(refused.value)
    assert f"but got {value}" in str(refused.value)


def test_the_open_end_of_an_integer_range_is_not_held_against_it() -> None:
    validate(tree("{kind: zot, points: !randint [1, 5]}"))
    validate(tree("{kind: zot, momentum: !uniform [0, 0.99], rho: !loguniform [1e-3, 1]}"))


def test_a_resolved_trial_survives_json() -> None:
    from distributed_tuner.config.validation import experiment_of

    space = tree(
        "!grid [{kind: zot, rho: !uniform [0.1, 1]}, {kind: cma}, {kind: nevergrad}, {kind: random_search}]",
        "budget: {queries: 77, usd: 0.1}\nschedule: {kind: asha}\nprompt: {length: 3, layout: suffix}",
    )
    for plan in draw_trials(space):
        resolved = json.loads(json.dumps(plan.experiment.model_dump(mode="json")))
        assert experiment_of(resolved) == plan.experiment


def test_a_variant_draws_together_what_belongs_together() -> None:
    tree = parse(
        """
        name: both
        task: {kind: demo}
        oracle: {kind: analytic}
        budget: {queries: 50}
        variant: !grid
          - prompt: {length: 4}
            stages: [{kind: search, optimizer: {kind: zot, rho: !uniform [0.1, 0.2]}}]
          - prompt: {kind: text}
            stages: [{kind: search, optimizer: {kind: token_edit}}]
            rounds: 2
        """
    )
    validate(tree)
    soft, words = draw_trials(tree)
    assert (soft.method, words.method) == ("zot", "token_edit")
    assert (soft.experiment.prompt.kind, words.experiment.prompt.kind) == ("soft", "text")
    assert (soft.experiment.rounds, words.experiment.rounds) == (1, 2)
    assert list(soft.drawn) == ["variant.stages.0.optimizer.rho"] and words.drawn == {}


def test_a_variant_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(ConfigError, match="variant holds parts of the experiment"):
        draw_trials(parse("{name: a, task: {kind: demo}, oracle: {kind: analytic}, variant: 3}"))


@pytest.mark.parametrize(
    ("dim", "given", "meant"), [(299, {}, "csa"), (300, {}, "tpa"), (500, {"step_size": "csa"}, "csa")]
)
def test_a_search_recorded_before_there_was_a_choice_keeps_the_step_size_rule_of_pycma(
    dim: int, given: dict[str, str], meant: str
) -> None:
    plan = draw_trials(tree("{kind: cma}"))[0].to_json()
    stage = plan["config"]["stages"][0]
    del stage["optimizer"]["step_size"]
    stage["optimizer"] |= {"intrinsic_dim": dim, **given}
    (read,) = TrialPlan.from_json(plan).experiment.stages
    assert isinstance(read, SearchStageConfig)
    assert isinstance(read.optimizer, CmaConfig)
    assert read.optimizer.step_size == meant


def test_a_screen_recorded_before_there_were_finalists_looks_at_its_winner_alone() -> None:
    stages = "[{kind: screen}, {kind: search, optimizer: {kind: cma}}]"
    (plan,) = draw_trials(parse(f"{{name: a, task: {{kind: demo}}, oracle: {{kind: analytic}}, stages: {stages}}}"))
    written = plan.to_json()
    assert TrialPlan.from_json(written).experiment.screen == plan.experiment.screen
    del written["config"]["screen"]["finalists"]
    screen = TrialPlan.from_json(written).experiment.screen
    assert screen is not None and screen.finalists == 1
