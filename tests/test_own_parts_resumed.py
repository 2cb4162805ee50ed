"""Parts of the user's own in a trial that is interrupted and continues from another copy of their modules."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from distributed_tuner import oracles
from distributed_tuner.ledger.rows import Row
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.stages.state_classes import STATE_CLASSES
from distributed_tuner.stages.trial import Trial
from distributed_tuner.storage.serialization import decode, encode

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODULES = ("own_optimizer", "own_head", "own_oracle", "own_task")


def own(module: str, name: str, **settings: Any) -> dict[str, Any]:
    return {"kind": "custom", "import_path": f"resumed_{module}:{name}", "settings": settings}


def upload(folder: Path) -> Path:
    """Lay out a search space with its modules beside it, as the working directory of a job has them."""
    folder.mkdir()
    for module in MODULES:
        shutil.copy(EXAMPLES / f"{module}.py", folder / f"resumed_{module}.py")
    wording = {"text": "text", "label": "even", "template": "{text} is{label_word}", "manual_prompt": "Is it even?"}
    words = {"true": " even", "false": " odd"}
    optimizer = own("own_optimizer", "EvolutionStrategy", sigma=0.5, children=3)
    space = {
        "name": "own",
        "task": own("own_task", "Parity", limit=60) | wording | {"label_words": words, "shots": 8},
        "oracle": own("own_oracle", "HashedWords", width=8),
        "head": own("own_head", "CentredHead", temperature=2.0),
        "prompt": {"length": 2, "init": "zeros", "scale": "paper", "layout": "prefix"},
        "stages": [{"kind": "search", "optimizer": optimizer, "eval_every": 20}],
        "budget": {"queries": 80},
    }
    (folder / "space.yaml").write_text(json.dumps(space))  # YAML holds JSON
    return folder / "space.yaml"


def trial_of(space: Path) -> Trial:
    prepared = prepare(space, [])
    (plan,), (task,) = prepared.plans, prepared.tasks
    return Trial(plan.trial_id, plan.experiment, task, oracles.build(plan.experiment.oracle))


def to_the_end(trial: Trial) -> list[dict[str, Any]]:
    rows: list[Row] = []
    while not trial.done:
        rows += trial.advance()
    return [row.model_dump(exclude={"time", "elapsed", "cost", "spent", "paid"}) for row in rows]


def test_a_trial_of_own_parts_goes_on_from_another_upload_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    first = upload(tmp_path / "first")
    alone = to_the_end(trial_of(first))
    trial = trial_of(first)
    before = [row for _ in range(9) for row in trial.advance()]
    state = encode(trial.state_dict(), STATE_CLASSES)

    shutil.rmtree(first.parent)
    for module in MODULES:
        del sys.modules[f"resumed_{module}"]
    again = trial_of(upload(tmp_path / "second"))
    assert str(sys.modules["resumed_own_optimizer"].__file__).startswith(str(tmp_path / "second"))
    again.load_state_dict(decode(state, "the state", STATE_CLASSES))
    after = to_the_end(again)
    assert before and after and len(before) + len(after) == len(alone)
    assert after == alone[len(before) :]
