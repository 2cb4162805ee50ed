"""Runs with restart stages as trials would write them: one trial that alternates, and a population of any size."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from distributed_tuner.ledger import (
    CostRow,
    EvalRow,
    EventRow,
    ExchangeRow,
    FeedbackRow,
    RestartRow,
    Row,
    RunEndRow,
    RunRow,
    ScoredText,
    StepRow,
    TrialEndRow,
    TrialRow,
)

START = 1_760_000_000.0
HOSTILE = '</pre></script><script>alert("x")</script> %{x} {{ 7 * 7 }}\n"quoted" & \'single\''
TEXTS = (
    "Decide which team should answer this message.",
    "Sort the customer's request into one of four kinds",
    "What is this customer's message about? Answer with one word",
    "Read the complaint below",
)
SEARCH, ASKED = 32, 4


def cost(queries: int) -> CostRow:
    """Return the cost of some queries on ten examples."""
    return CostRow(queries=queries, forwards=10 * queries, tokens=400 * queries, seconds=0.1 * queries)


def scored(text: str, loss: float | None, source: Any = "proposal") -> ScoredText:
    """Return a text with its loss, and a metric that goes with it."""
    return ScoredText(text=text, source=source, loss=loss, metric=None if loss is None else round(1 - loss / 3, 3))


def restart(name: str, stage: int, queries: int, **changes: Any) -> RestartRow:
    """Return a restart stage that kept the trial's own prompt, unless ``changes`` say otherwise."""
    given: dict[str, Any] = {"incumbent_loss": 1.48, "scored": [], "adopted": "none", "text": "", "reason": ""}
    paid = cost(1 + len(changes["scored"]) if changes.get("scored") else 0)  # the incumbent beside them
    return RestartRow(
        **{"time": START + queries, "trial_id": name, "stage": stage, "elapsed": 0.1 * queries, **given, **changes},
        cost=paid,
        spent=cost(queries),
    )


def exchange(name: str, stage: int, number: int = 0, **changes: Any) -> ExchangeRow:
    """Return a request with its answer."""
    given: dict[str, Any] = {
        "proposer": "local smollm2-135m",
        "instruction": "Write 3 instructions.\nFormer ones, worst first: ...",
        "answer": "1. " + "\n2. ".join(TEXTS[:3]),
        "texts": list(TEXTS[:3]),
        "input_tokens": 120,
        "output_tokens": 40,
        "seconds": 1.5,
        "usd": 0.002,
    }
    return ExchangeRow(time=START, trial_id=name, stage=stage, number=number, **{**given, **changes})


def population(size: int, rounds: int = 3, method: str = "zot+local") -> Iterator[Row]:
    """Yield the rows of a population that restarts its worst third; a trial alone restarts from its own proposals."""
    names = [f"{method}-{index:04d}" for index in range(size)]
    yield RunRow(time=START, name="maao", version="0.1.0", seed=0, methods=[method])
    for index, name in enumerate(names):
        drawn = {"stages.0.optimizer.learning_rate": 0.3 * 1.5**index}
        yield TrialRow(time=START, trial_id=name, method=method, seed=0, split_seed=0, drawn=drawn)
    losses = {name: 1.6 + 0.3 * math.sin(5.0 * index) for index, name in enumerate(names)}
    spent = dict.fromkeys(names, 0)
    for lap in range(rounds):
        for name in names:
            yield from _search(name, method, 2 * lap, spent, losses)
        if lap + 1 < rounds:
            yield from _restarts(names, 2 * lap + 1, spent, losses)
    for name in names:
        yield TrialEndRow(
            time=START + 900, trial_id=name, status="done", reason="budget: queries", wall_seconds=0.1 * spent[name]
        )
    yield RunEndRow(
        time=START + 900,
        status="done",
        wall_seconds=900.0,
        oracle_busy_seconds=700.0,
        oracle_actors=2,
        tiles=999,
        retries=0,
    )


def _search(name: str, method: str, stage: int, spent: dict[str, int], losses: dict[str, float]) -> Iterator[Row]:
    for step in range(1, SEARCH // ASKED + 1):
        spent[name] += ASKED
        losses[name] *= 0.985
        common: dict[str, Any] = {"time": START + spent[name], "trial_id": name, "stage": stage, "step": step}
        yield StepRow(
            **common,
            loss=losses[name] + 0.1,
            best_loss=losses[name],
            failed=0,
            cost=cost(ASKED),
            spent=cost(spent[name]),
            elapsed=0.1 * spent[name],
        )
    spent[name] += 2
    yield EvalRow(
        **{**common, "time": START + spent[name]},
        train_loss=losses[name],
        dev_loss=losses[name] + 0.05,
        dev_metric=round(1 - losses[name] / 3, 3),
        selected=True,
        cost=cost(2),
        spent=cost(spent[name]),
        elapsed=0.1 * spent[name],
    )


def _restarts(names: Sequence[str], stage: int, spent: dict[str, int], losses: dict[str, float]) -> Iterator[Row]:
    ranked = sorted(names, key=losses.__getitem__)
    moved = max(1, len(names) // 3) if len(names) > 1 else 0
    laggards = ranked[len(ranked) - moved :] if moved else names
    for place, name in enumerate(names):
        spent[name] += 3
        paid: dict[str, Any] = {"cost": cost(3), "spent": cost(spent[name]), "elapsed": 0.1 * spent[name]}
        said = [scored(f"answer word {stage} {n}", losses[name] + 0.1 * n, "trajectory") for n in range(3)]
        yield FeedbackRow(time=START + spent[name], trial_id=name, stage=stage, texts=said, **paid)
        if name not in laggards:
            reason = "among the leaders: goes on with its own prompt"
            yield restart(name, stage, spent[name], incumbent_loss=None, reason=reason)
            continue
        source_trial = ranked[place % moved] if moved else None
        before, level = losses[name], losses[source_trial] if source_trial else losses[name]
        wins = (place + stage) % 3 != 0
        proposals = [
            scored(text, level + (-0.12 if wins and n == 1 else 0.2 * n + 0.05)) for n, text in enumerate(TEXTS)
        ]
        shown = [scored("", level, "source_trial"), *proposals] if source_trial else proposals
        spent[name] += 1 + len(shown)
        yield exchange(name, stage)
        losses[name] = level - 0.12 if wins else level
        yield restart(
            name,
            stage,
            spent[name],
            incumbent_loss=before,
            scored=shown,
            adopted="proposal" if wins else "source_trial" if source_trial else "none",
            text=TEXTS[1] if wins else "",
            source_trial=source_trial,
            settings={"stages.0.optimizer.learning_rate": 0.47} if source_trial else {},
            reason="" if wins else "no proposal beat the prompt that it had to beat",
        )


def given_up(name: str, message: str) -> Iterator[Row]:
    """Yield the events of a trial whose proposer never had a proposal."""
    yield EventRow(time=START + 50, trial_id=name, kind="proposer", message=f"no proposal from openai m: {message}")
    yield EventRow(time=START + 80, trial_id=name, kind="proposer_given_up", message="no proposal in 2 restart stages")
