"""Number of steps and evaluations that a budget pays for."""

from hypothesis import given
from hypothesis import strategies as st

from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.stages.step_plan import MOST_STEPS, UNLIMITED_STEPS, StagePlan, fits, plan_stage
from distributed_tuner.values import Cost

STEP, LOOK = Cost(queries=4, forwards=40, tokens=400, usd=0.5), Cost(queries=2, forwards=16, tokens=160, usd=0.25)


def limits(**given: float) -> BudgetConfig:
    return BudgetConfig.model_validate({"queries": None, **given})


def test_a_budget_pays_for_a_look_steps_with_looks_between_and_a_look() -> None:
    # look 2, step 4 + 4 and evaluation 2, step 4 + 4 and evaluation 2
    assert plan_stage(limits(queries=22), STEP, LOOK, eval_every=8) == StagePlan(
        4, 3, Cost(22, 208, 2080, usd=2.75), MOST_STEPS, STEP.queries
    )


def test_one_query_less_costs_a_step() -> None:
    assert plan_stage(limits(queries=21), STEP, LOOK, eval_every=8).steps == 3


def test_the_scarcest_unit_decides() -> None:
    assert plan_stage(limits(queries=1000, forwards=72), STEP, LOOK, 1000).steps == 1
    assert plan_stage(limits(tokens=720), STEP, LOOK, 1000).steps == 1
    assert plan_stage(limits(usd=1.51), STEP, LOOK, 1000).steps == 2


def test_too_little_pays_for_no_step() -> None:
    assert plan_stage(limits(queries=7), STEP, LOOK, 1000).steps == 0
    assert plan_stage(limits(queries=8), STEP, LOOK, 1000).steps == 1


def test_steps_can_be_limited_and_the_last_look_is_not_doubled() -> None:
    assert plan_stage(limits(queries=1000), STEP, LOOK, eval_every=4, most=3) == StagePlan(
        3, 4, Cost(20, 184, 1840, usd=2.5), most=3, candidates=STEP.queries
    )


def test_time_alone_plans_the_steps_of_the_paper() -> None:
    assert plan_stage(limits(seconds=60), STEP, LOOK, 100).steps == UNLIMITED_STEPS
    assert (
        plan_stage(limits(usd=1), Cost(queries=4), Cost(queries=2), 100).steps == UNLIMITED_STEPS
    )  # nothing is priced


def test_what_earlier_stages_took_is_not_there_any_more() -> None:
    before = Cost(queries=12)
    late = plan_stage(limits(queries=34), STEP, LOOK, eval_every=8, before=before)
    assert late == plan_stage(limits(queries=22), STEP, LOOK, eval_every=8)


@given(
    budget=st.integers(1, 400),
    step=st.integers(1, 30),
    evaluation=st.integers(1, 5),
    eval_every=st.integers(1, 60),
    before=st.integers(0, 50),
)
def test_a_plan_never_exceeds_the_budget_and_leaves_no_step_unused(
    budget: int, step: int, evaluation: int, eval_every: int, before: int
) -> None:
    allowed = limits(queries=budget)
    plan = plan_stage(allowed, Cost(queries=step), Cost(queries=evaluation), eval_every, before=Cost(queries=before))
    assert plan.cost.queries == plan.steps * step + plan.evaluations * evaluation
    if plan.steps == 0:
        assert before + evaluation + step + evaluation > budget
        return
    assert fits(Cost(queries=before) + plan.cost, allowed)
    assert plan.evaluations >= 2
    due = -(-eval_every // step)  # steps from one evaluation to the next
    assert plan.evaluations == 1 + -(-plan.steps // due)
    more = (
        0 if plan.steps % due else evaluation
    )  # the last evaluation is moved behind the next step, or another one follows it
    assert before + plan.cost.queries + step + more > budget
