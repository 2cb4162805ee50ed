"""The race of layouts, on a tiny model and without Ray."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny_models import TEXTS, save_tiny

from distributed_tuner import oracles
from distributed_tuner.oracles.base import LossOracle
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.preflight.prepared import Prepared
from distributed_tuner.runs.layout_race import race_layouts, told
from distributed_tuner.values import Request

pytestmark = pytest.mark.model
WORDS = {"prompt": {"kind": "text"}, "stages": [{"kind": "search", "optimizer": {"kind": "token_edit"}}]}
Space = Callable[..., tuple[Prepared, LossOracle]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny(name, tmp_path_factory.mktemp(name)) for name in ("llama", "roberta")}


@pytest.fixture
def space(models: dict[str, Path], tmp_path: Path) -> Space:
    rows = [{"text": f"{text} {i}", "label": ("bad", "good")[i % 2]} for i in range(6) for text in TEXTS[:3]]

    def make(model: str = "llama", **more: Any) -> tuple[Prepared, LossOracle]:
        data = tmp_path / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tree: dict[str, Any] = {
            "name": "layouts",
            "task": {
                "kind": "file",
                "train": str(data),
                "text": "text",
                "label": "label",
                "template": "{text} It was{label_word}",
                "label_words": {"bad": " terrible", "good": " great"},
                "manual_prompt": "Classify the movie review",
                "shots": 2,
            },
            "oracle": {"kind": "transformers", "model": str(models[model]), "dtype": "float32", "threads": 1},
            "prompt": {"length": 4},
            "stages": [{"kind": "search", "optimizer": {"kind": "random_search"}}],
            "budget": {"queries": 1000},
            "head": "bias",
        }
        path = tmp_path / "space.yaml"
        path.write_text(yaml.safe_dump(tree | more))
        prepared = prepare(path, [])
        return prepared, oracles.build(prepared.experiment.oracle)

    return make


def layout_of(prepared: Prepared) -> str:
    return str(prepared.experiment.prompt.layout)  # type: ignore[union-attr]


def test_the_layout_that_reaches_the_lowest_loss_is_taken_and_paid_for(space: Space) -> None:
    prepared, oracle = space()
    assert prepared.undecided == (0,)
    notes: list[str] = []
    resolved, (row,) = race_layouts(prepared, oracle, notes.append)
    assert set(row.losses) == {"prefix", "suffix", "instruction_suffix"}
    assert row.losses[row.chosen] == min(loss for loss in row.losses.values() if loss is not None)
    assert layout_of(resolved) == row.chosen and resolved.undecided == ()
    assert row.cost.queries == sum(row.queries.values())
    assert resolved.experiment.budget.queries == 1000 - row.cost.queries
    assert notes == [told(row)] and row.chosen in notes[0]
    framed = resolved.tasks[0].train[0].text.startswith("Classify the movie review\n")
    assert framed is (row.chosen == "instruction_suffix")
    again, (same,) = race_layouts(prepared, oracle, notes.append)
    assert same.losses == row.losses and layout_of(again) == row.chosen


def test_trials_alike_share_one_race(space: Space) -> None:
    prepared, oracle = space(samples=2)
    asked: list[Request] = []
    inner = oracle.evaluate

    def counted(request: Request, timeout: float = np.inf) -> Any:
        asked.append(request)
        return inner(request)

    oracle.evaluate = counted  # type: ignore[method-assign,assignment]
    resolved, rows = race_layouts(prepared, oracle, lambda note: None)
    assert len(resolved.plans) == 2 and len(rows) == 1 and len(asked) == 3
    assert len({plan.experiment.budget.queries for plan in resolved.plans}) == 1


def test_a_budget_of_which_a_race_would_take_too_much_is_left_alone(space: Space) -> None:
    prepared, oracle = space(budget={"queries": 60})
    before = layout_of(prepared)
    resolved, rows = race_layouts(prepared, oracle, lambda note: None)
    assert rows == [] and layout_of(resolved) == before != "auto"
    assert resolved.experiment.budget.queries == 60


@pytest.mark.parametrize("more", [{"prompt": {"length": 4, "layout": "prefix"}}, WORDS])
def test_a_layout_that_is_given_is_not_raced(space: Space, more: dict[str, Any]) -> None:
    prepared, _ = space(**more)
    assert prepared.undecided == ()


def test_a_masked_model_has_its_rows_in_front(space: Space) -> None:
    prepared, _ = space("roberta")
    assert prepared.undecided == () and layout_of(prepared) == "prefix"
