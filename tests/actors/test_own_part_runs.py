"""A whole run with parts of the user's own, whose modules lie beside the search space and nowhere else."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tuner_runs import ROOT, numbers, run_alone, run_space, space, write_reviews, write_space

from distributed_tuner.preflight.prepare import prepare_again
from distributed_tuner.report.html import write_report
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.runs.prediction import predict

pytestmark = pytest.mark.ray

MODULES = ("own_optimizer", "own_head", "own_oracle", "own_proposer", "own_task")


def own(module: str, name: str, **settings: Any) -> dict[str, Any]:
    """Return the settings of a part."""
    return {"kind": "custom", "import_path": f"{module}:{name}", "settings": settings}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with data and modules; afterwards nobody finds these any more."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_reviews(tmp_path)
    for module in MODULES:
        shutil.copy(ROOT / "examples" / f"{module}.py", tmp_path / f"run_{module}.py")
    return tmp_path


def test_parts_of_ones_own_run_on_a_pool_and_are_found_again(
    ray_cluster: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposer = own("run_own_proposer", "FromAList", instructions=["Judge the review.", "Is it good?", "Say the mood."])
    search = {
        "kind": "search",
        "optimizer": own("run_own_optimizer", "EvolutionStrategy", sigma=0.5, children=3),
        "eval_every": 20,
    }
    tree = space({}, [], head=own("run_own_head", "CentredHead", temperature=2.0), budget={"queries": 60})
    tree["oracle"] = own("run_own_oracle", "HashedWords", width=8) | {"actors": 2}
    wording = {"text": "text", "label": "even", "template": "{text} is{label_word}", "manual_prompt": "Is it even?"}
    words = {"true": " even", "false": " odd"}
    tree["task"] = own("run_own_task", "Parity", limit=60) | wording | {"label_words": words, "shots": 8}
    tree["prompt"] = {"length": 2, "init": "zeros", "scale": "paper", "layout": "prefix"}
    tree["stages"] = [{"kind": "screen", "proposer": proposer, "patterns": False, "demonstrations": []}, search]
    tree["significance"] = None
    path = write_space(tree, place)
    done = run_space(path, place / "run")
    assert done.status == "done"
    assert numbers(done.ledger) == numbers(run_alone(path))
    (exchange,) = done.ledger.exchanges
    assert (exchange.proposer, done.summary["best"]["method"]) == ("custom list", "EvolutionStrategy")

    monkeypatch.chdir("/")  # whoever reads the run is elsewhere, and has not imported the modules
    for name in MODULES:
        del sys.modules[f"run_{name}"]
    write_report(done.directory.path)
    assert not [name for name in sys.modules if name.startswith("run_own")], "a report imports no code of the user's"
    best = done.summary["best"]
    assert evaluate(done.directory.path, "dev")["accuracy"] == pytest.approx(best["dev_metric"])
    assert predict(done.directory.path, place / "test.jsonl", place / "labelled.csv") == 30
    assert prepare_again(done.directory, place).experiment.head.kind == "custom"
