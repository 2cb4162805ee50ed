"""Costs of what a run measures before its first trial: manual prompts, precision, the sanity check."""

import numpy as np

from distributed_tuner.oracles.cost_model import Counter
from distributed_tuner.preflight.parity_cases import parity_cases
from distributed_tuner.preflight.precision_cases import ASKS, QUERIES, cases
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.preflight.projection import timed
from distributed_tuner.prompts.spec import NO_ROWS
from distributed_tuner.stages.reading import head_for_costs
from distributed_tuner.stages.validation import batches, reader_of
from distributed_tuner.values import Cost, Point, Request, Text


def baseline_cost(prepared: Prepared, counter: Counter) -> Cost:
    total = Cost()
    head = head_for_costs(prepared.experiment.head)
    asked = []
    for _, task in prepared.baselines():
        reader = reader_of(task, head)
        tested = reader.measured("test") if task.test else []
        asked += [(task.manual_prompt, batch) for batch in (*batches(reader), *tested)]
    for text, batch in dict.fromkeys(asked):  # a test set that several split seeds share is scored once
        request = Request((Text(text),), batch, NO_ROWS)
        total = total + timed(counter.cost(request), counter.seconds(request), prepared.experiment)
    return total


def calibration_cost(prepared: Prepared, counter: Counter) -> Cost:
    if not counter.rounds:
        return Cost()
    total = Cost()
    for case in cases([plan.experiment for plan in prepared.plans], prepared.tasks):
        dim = case.prompt.length * counter.width
        points = (Point(np.zeros(dim, dtype=np.float32)),) * (ASKS * QUERIES)
        request = Request(points, case.batch(dim), case.prompt)
        total = total + timed(counter.cost(request), counter.seconds(request), prepared.experiment)
    return total


def parity_cost(prepared: Prepared, counter: Counter) -> Cost:
    total = Cost()
    for case in parity_cases([plan.experiment for plan in prepared.plans], prepared.tasks):
        for request in case.requests(counter.width):
            total = total + timed(counter.cost(request), counter.seconds(request), prepared.experiment)
    return total
