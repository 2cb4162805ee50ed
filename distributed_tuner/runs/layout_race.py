"""Layout race: a short comparison of layouts by the loss they reach on train, where ``layout`` is auto.

Each layout gets about as many tokens. Its start and prompts around it are scored, and the layout with the lowest loss
is that of all trials alike. What it takes is taken from their budgets.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from distributed_tuner.budget import COUNTED
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.experiment import Experiment
from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.ledger.rows import CostRow, LayoutRow
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.stages.reading import read_by
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Candidate, Center, Cost, Perturbation, Point, Request

LEAST, MOST = 4, 12  # prompts of a layout
RADIUS = 0.3  # of the prompts around a start, in standard deviations of the embeddings
SHARE = 0.1  # of a budget that a race may take; without it the layout with fewer tokens is taken


def race_layouts(
    prepared: Prepared, oracle: LossOracle, note: Callable[[str], None]
) -> tuple[Prepared, list[LayoutRow]]:
    """Return the same trials with their layouts, and what was found."""
    rows: list[LayoutRow] = []
    known: dict[tuple[object, ...], LayoutRow] = {}
    for index in prepared.undecided:
        plan, task = prepared.plans[index], prepared.plain_task(prepared.plans[index])
        prompt = plan.experiment.prompt
        assert isinstance(prompt, SoftPromptConfig)
        asked = {name: _request(plan.experiment, task, name, oracle) for name in _layouts(prompt, task)}
        cost = sum((oracle.cost(request) for request in asked.values()), Cost())
        if not _can_be_paid(cost, plan.experiment.budget):
            continue
        key = (plan.experiment.task.split_seed, task, prompt, plan.experiment.objective)
        if key not in known:
            known[key] = _raced(asked, plan.experiment.task.split_seed, oracle)
            rows.append(known[key])
            note(told(known[key]))
        budget = _less(plan.experiment.budget, known[key].cost.value())
        resolved = prompt.model_copy(update={"layout": known[key].chosen})
        prepared = prepared.with_prompt(index, resolved, budget)
    return replace(prepared, undecided=()), rows


def told(row: LayoutRow) -> str:
    """Return a row in words."""
    losses = ", ".join(f"{name} {'failed' if loss is None else f'{loss:.4f}'}" for name, loss in row.losses.items())
    return f"layout {row.chosen}, by the lowest train loss of {sum(row.queries.values())} prompts: {losses}"


def _layouts(prompt: SoftPromptConfig, task: Task) -> list[str]:
    instruction = prompt.instruction if prompt.instruction is not None else task.manual_prompt
    return ["prefix", "suffix", *(["instruction_suffix"] if instruction else [])]


def _request(experiment: Experiment, task: Task, layout: str, oracle: LossOracle) -> Request:
    """Return what one layout is asked: as many prompts as cost about what LEAST of the layout prefix do."""
    request = _of(experiment, task, layout, oracle, 1)
    dear = oracle.cost(_of(experiment, task, "prefix", oracle, LEAST)).tokens
    count = min(MOST, max(LEAST, dear // max(1, oracle.cost(request).tokens)))
    return _of(experiment, task, layout, oracle, count)


def _of(experiment: Experiment, task: Task, layout: str, oracle: LossOracle, count: int) -> Request:
    prompt = experiment.prompt.model_copy(update={"layout": layout})
    seen = read_by(task, experiment.model_copy(update={"prompt": prompt}))
    spec = prompt_spec(prompt, seen)
    size = spec.length * oracle.info.width
    start = np.zeros(size, dtype=np.float32)
    center = Center(f"layout/{layout}/{experiment.task.split_seed}", start)
    unit = 1.0 if spec.scale == "embedding" else oracle.info.embedding_std
    around: Sequence[Candidate] = [
        Perturbation(center, (experiment.seed, "layout", number), 1, RADIUS * unit) for number in range(count - 1)
    ]
    return Request((Point(start), *around), seen.batch("train"), spec)


def _raced(asked: dict[str, Request], split_seed: int, oracle: LossOracle) -> LayoutRow:
    losses: dict[str, float | None] = {}
    cost, tokens = Cost(), dict[str, float]()
    for name, request in asked.items():
        answer = oracle.evaluate(request)
        finite = answer.losses[np.isfinite(answer.losses)]
        losses[name] = float(finite.min()) if len(finite) else None
        tokens[name] = answer.cost.tokens / len(request.candidates)
        cost = cost + answer.cost
    best = min(losses, key=lambda name: (np.inf if (loss := losses[name]) is None else loss, tokens[name]))
    queries = {name: len(request.candidates) for name, request in asked.items()}
    return LayoutRow(split_seed=split_seed, chosen=best, losses=losses, queries=queries, cost=CostRow.of(cost))


def _can_be_paid(cost: Cost, budget: BudgetConfig) -> bool:
    limits = [(getattr(cost, unit), getattr(budget, unit)) for unit in (*COUNTED, "usd")]
    return all(limit is None or asked <= SHARE * limit for asked, limit in limits)


def _less(budget: BudgetConfig, cost: Cost) -> BudgetConfig:
    left = {
        unit: limit - getattr(cost, unit) for unit in (*COUNTED, "usd") if (limit := getattr(budget, unit)) is not None
    }
    return budget.model_copy(update=left)
