"""The search of a run that names none."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from distributed_tuner.config.default_search import ENSEMBLE, SCREEN, SMALL_SCREEN, with_default_search
from distributed_tuner.errors import ConfigError
from distributed_tuner.preflight.prepare import prepare


@pytest.mark.parametrize(
    ("budget", "screen"),
    [({"queries": 60}, SCREEN), ({"queries": 59}, SMALL_SCREEN), ({"usd": 1.0}, SCREEN), (None, SCREEN)],
)
def test_it_is_a_screen_that_the_budget_pays_for_and_an_ensemble(budget: Any, screen: dict[str, Any]) -> None:
    found = with_default_search({"budget": budget})
    assert (found["stages"][0], found["ensemble"]) == (screen, ENSEMBLE)
    assert found["stages"][1]["optimizer"]["kind"] == "random_search"
    in_words = with_default_search({"budget": budget, "prompt": {"kind": "text"}})
    assert in_words["stages"][1]["optimizer"]["kind"] == "token_edit"


def test_what_a_space_says_stays() -> None:
    given = {"stages": [{"kind": "search"}], "budget": {"queries": 500}}
    assert with_default_search(given) == given
    assert with_default_search({"ensemble": None})["ensemble"] is None
    for task in ({"kind": "file", "target": "answer"}, {"kind": "extract"}, {"kind": "given", "metric": ["chrf"]}):
        assert with_default_search({"task": task}) == {"task": task}, "of tasks with targets it was not measured"
    assert "stages" in with_default_search({"task": {"kind": "given", "label_words": {"0": " no", "1": " yes"}}})


@pytest.mark.parametrize("prompt", ["soft", "text"])
@pytest.mark.parametrize("queries", [32, 60])
def test_the_budget_that_it_asks_for_is_enough(prompt: str, queries: int, tmp_path: Path) -> None:
    space = {
        "name": "none_named",
        "task": {"kind": "demo", "shots": 8},
        "oracle": {"kind": "analytic"},
        "prompt": {"kind": prompt},
        "budget": {"queries": queries},
    }
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(space))
    plan = prepare(path, []).plans[0]
    assert plan.method == "screen" and plan.experiment.screen is not None
    with pytest.raises(ConfigError, match="stages is required"):
        prepare(path, ["budget.queries=31"])
