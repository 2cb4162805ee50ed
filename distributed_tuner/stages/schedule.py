"""Schedule of a trial's stages: what each will do and cost. Pure arithmetic on a budget."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from distributed_tuner import optimizers
from distributed_tuner.budget import COUNTED
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.schedule import PopulationScheduleConfig
from distributed_tuner.config.stage import GradientStageConfig, RestartStageConfig, SearchStageConfig
from distributed_tuner.errors import BudgetTooSmall
from distributed_tuner.prompts.spec import NO_ROWS, unframed
from distributed_tuner.stages.prompt_space import PromptSpace
from distributed_tuner.stages.reading import head_for_costs
from distributed_tuner.stages.screen_prompts import longest_prompt, screen_queries, screened_batch, wordings
from distributed_tuner.stages.step_plan import StagePlan, fits, plan_stage
from distributed_tuner.stages.validation import batches, eval_cost, reader_of
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Batch, Cost, Request, Text

TunedStageConfig = SearchStageConfig | GradientStageConfig


class Costs(Protocol):
    """Says what a request costs: an oracle, or a tokenizer alone."""

    def cost(self, request: Request) -> Cost: ...


class StageSchedule:
    """Plans the stages of one experiment."""

    def __init__(self, experiment: Experiment, task: Task, space: PromptSpace, costs: Costs) -> None:
        self.stages = experiment.stage_schedule
        self._experiment = experiment
        self._head = head_for_costs(experiment.head)
        self._reader = reader_of(task, self._head)
        self._task = task
        self._space = space
        self._costs = costs

    def plan(self, stage: int, before: Cost | None) -> StagePlan:
        """Plan one stage from what those ``before`` it leave; None: it is the first.

        Raises:
            BudgetTooSmall: the budget does not pay for a step of the first stage and the evaluations around it. Of a
            later
                stage it may: the trial does what it can with what is left.
        """
        config = self.stages[stage]
        if isinstance(config, RestartStageConfig):
            cost = self._restart_cost(stage)
            return StagePlan(0, 0, cost if fits((before or Cost()) + cost, self._experiment.budget) else Cost(), 0)
        step, evaluation = self._step_cost(config), self._eval_cost()
        first = self._survey_cost(stage) + self._screen_cost(stage)
        limits, spent = self._share(stage, before or Cost()), (before or Cost()) + first
        plan = plan_stage(limits, step, evaluation, config.eval_every, config.steps, spent)
        if plan.steps == 0 and before is None:
            raise self._too_small(stage, None)
        return replace(plan, cost=plan.cost + first) if plan.steps else plan

    def plan_all(self) -> tuple[StagePlan, ...]:
        """Plan every stage, one after another.

        Raises:
            BudgetTooSmall: the budget does not pay for a step of every stage and the evaluations around it.
        """
        plans: list[StagePlan] = []
        for stage, config in enumerate(self.stages):
            before = _sum([plan.cost for plan in plans]) if plans else None
            plans.append(self.plan(stage, before))
            if plans[-1].steps == 0 and not isinstance(config, RestartStageConfig):
                raise self._too_small(stage, before)
        return tuple(plans)

    def horizon(self, stage: int, plan: StagePlan) -> int:
        """Return the steps that an optimizer which begins here may take in this and later rounds, for its schedule."""
        every = len(self._experiment.stages)
        return max(1, plan.steps) * len(range(stage, len(self.stages), every))

    def search_cost(self, stage: int) -> Cost:
        """Return the least that a search must have left to be worth its survey: a step, and an evaluation on either
        side."""
        config = self.stages[stage]
        assert not isinstance(config, RestartStageConfig)
        return self._eval_cost() + self._step_cost(config) + self._eval_cost()

    def batch_size(self, config: TunedStageConfig) -> int | None:
        """Return the train examples that a step of a stage is scored on; None: all of them."""
        return self._built(config).batch_size

    def validates_after(self, stage: int) -> bool:
        """Tell whether a restart stage must evaluate its prompt itself, since no stage follows that would."""
        return stage + 1 == len(self.stages) or isinstance(self.stages[stage + 1], RestartStageConfig)

    def restarts_until(self, stage: int) -> int:
        """Return how many restart stages there are up to a stage, itself included."""
        return sum(isinstance(config, RestartStageConfig) for config in self.stages[: stage + 1])

    def searches_after(self, stage: int) -> bool:
        """Tell whether a stage with an optimizer follows."""
        return any(not isinstance(config, RestartStageConfig) for config in self.stages[stage + 1 :])

    # ------------------------------------------------------------------------------------------------ parts
    def _share(self, stage: int, before: Cost) -> BudgetConfig:
        """Return the limits within which a stage must stay, so that the later ones have theirs.

        A stage with ``steps`` takes what it needs; stages without share evenly what the others leave.
        """
        config = self.stages[stage]
        later = range(stage + 1, len(self.stages))
        if isinstance(config, RestartStageConfig) or config.steps is not None or not later:
            return self._experiment.budget
        fixed = _sum([self._fixed_cost(other) for other in later])
        parts = 1 + sum(self._takes_a_share(other) for other in later)
        limits = self._experiment.budget
        shared = {
            unit: max(1, getattr(before, unit) + (limit - getattr(before, unit) - getattr(fixed, unit)) // parts)
            for unit in COUNTED
            if (limit := getattr(limits, unit)) is not None
        }
        if limits.usd is not None:
            shared["usd"] = max(1e-12, before.usd + (limits.usd - before.usd - fixed.usd) / parts)
        return limits.model_copy(update=shared)

    def _takes_a_share(self, stage: int) -> bool:
        config = self.stages[stage]
        return not isinstance(config, RestartStageConfig) and config.steps is None

    def _fixed_cost(self, stage: int) -> Cost:
        """Return what a later stage costs whatever is left: restarts and stages with ``steps``."""
        config = self.stages[stage]
        if isinstance(config, RestartStageConfig):
            return self._restart_cost(stage)
        if config.steps is None:
            return Cost()
        unlimited = BudgetConfig(queries=10**12)
        plan = plan_stage(unlimited, self._step_cost(config), self._eval_cost(), config.eval_every, config.steps)
        return plan.cost + self._survey_cost(stage)

    def _restart_cost(self, stage: int) -> Cost:
        """Return the most that a restart stage asks: its trajectory, its proposals, the incumbent and, in a population,
        and an evaluation."""
        config = self.stages[stage]
        assert isinstance(config, RestartStageConfig)
        evaluation = self._eval_cost() if self.validates_after(stage) else Cost()
        population = isinstance(self._experiment.schedule, PopulationScheduleConfig)
        if config.reproduce_paper:
            return self._cost(5 + (3 if population else 0), self._task.batch("dev")) + evaluation
        batch = self._task.batch("feedback")
        texts = max(1, config.trajectory)
        if self._task.has_targets:  # what the best of them gets wrong
            evaluation = evaluation + self._cost(1, self._task.generated_batch("feedback"))
        return self._cost(texts, batch) + self._cost(1 + population + config.proposals, batch) + evaluation

    def _step_cost(self, config: TunedStageConfig) -> Cost:
        built = self._built(config)
        return self._cost(built.queries_per_step, self._step_batch(built.batch_size), built.white_box)

    def _built(self, config: TunedStageConfig) -> optimizers.Optimizer:
        """Return a stage's optimizer, to be asked what its steps take."""
        key, stand_ins = (self._experiment.seed,), ("a", "b")
        optimizer = config.optimizer.resolved({})
        return optimizers.build(optimizer, dim=self._space.dim, key=key, steps=1, vocabulary=stand_ins)

    def _survey_cost(self, stage: int) -> Cost:
        """Return what measuring a stage's settings costs; nothing in later rounds, which have those of the first."""
        config = self.stages[stage]
        if not isinstance(config, SearchStageConfig) or stage >= len(self._experiment.stages):
            return Cost()
        key = (self._experiment.seed,)
        probe = optimizers.build_probe(config.optimizer, start=self._space.start, key=key, unit=1.0)
        if probe is None:
            return Cost()
        return self._cost(len(probe.candidates), self._step_batch(self.batch_size(config)))

    def _screen_cost(self, stage: int) -> Cost:
        """Return the most that the screen before the first stage costs, its evaluations included."""
        screen = self._experiment.screen
        if stage or screen is None:
            return Cost()
        task = unframed(self._task, self._experiment.prompt)
        queries = screen_queries(screen, task)

        def cost(wording: Task) -> Cost:
            reader, longest = reader_of(wording, self._head), Text(longest_prompt(screen, wording))
            train = Request((longest,) * queries, screened_batch(reader), NO_ROWS)
            evaluated = [Request((longest,) * screen.finalists, batch, NO_ROWS) for batch in batches(reader)]
            return _sum([self._costs.cost(request) for request in (train, *evaluated)])

        return max(map(cost, wordings(task)), key=lambda cost: (cost.usd, cost.tokens))

    def _step_batch(self, size: int | None) -> Batch:
        train = len(self._task.train)
        return self._task.batch("train", range(min(size or train, train)))

    def _eval_cost(self) -> Cost:
        return eval_cost(self._reader, self._space, self._costs.cost)

    def _cost(self, count: int, batch: Batch, gradient: bool = False) -> Cost:
        return self._costs.cost(Request((self._space.sample,) * count, batch, self._space.spec, gradient))

    def _too_small(self, stage: int, before: Cost | None) -> BudgetTooSmall:
        config, measured, screen = self.stages[stage], self._survey_cost(stage), self._screen_cost(stage)
        assert not isinstance(config, RestartStageConfig)
        needed = self.search_cost(stage) + measured + screen
        surveyed = f", the screen before it ({screen.queries} queries)" if screen.queries else ""
        surveyed += f", and the survey of its settings ({measured.queries} queries)" if measured.queries else ""
        given = self._experiment.budget.model_dump(exclude_none=True)
        taken = f", of which the stages before take {before.queries} queries" if before else ""
        shared = ", take fewer rounds or stages" if len(self.stages) > 1 else ""
        advice = "raise it" + (", limit the steps of the stages before" if before else shared)
        return BudgetTooSmall(
            f"the budget must pay for one step of {config.optimizer.kind} and an evaluation before and after"
            f" it{surveyed}: {needed.queries} queries, {needed.forwards} forwards, {needed.tokens} tokens,"
            f" {needed.usd:.6f} US dollars; but it is {given}{taken}; {advice} or shrink the step"
        )


def _sum(costs: Sequence[Cost]) -> Cost:
    return sum(costs, Cost())
