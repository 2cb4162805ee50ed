"""Shipped search spaces: each is valid and can be drawn. No data and no model is read."""

import json
from pathlib import Path

import pytest

from distributed_tuner.config.load import load_space
from distributed_tuner.config.space import draw_trials, validate
from distributed_tuner.config.validation import experiment_of

FOLDER = Path(__file__).resolve().parents[2] / "search_spaces"
SPACES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_validates_draws_and_survives_json(path: Path) -> None:
    tree = load_space(path)
    validate(tree)
    plans = draw_trials(tree)
    assert plans[0].experiment.name == path.stem  # runs/NAME is found again by the file's name
    assert len({plan.trial_id for plan in plans}) == len(plans)
    for plan in plans:
        assert experiment_of(json.loads(plan.experiment.model_dump_json())) == plan.experiment


def test_the_spaces_that_the_command_line_names_are_there() -> None:
    assert {"quickstart", "debug"} <= {path.stem for path in SPACES}
