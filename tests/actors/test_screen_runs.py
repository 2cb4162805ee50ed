"""A whole run with a screen: the same as alone, and what it leaves has the wording that was found."""

import json
from pathlib import Path
from typing import Any

import pytest
from tuner_runs import CMA, numbers, run_alone, run_space, space, write_space

from distributed_tuner.prompts.ensemble_export import ENSEMBLE, read_ensemble
from distributed_tuner.runs.evaluation import evaluate

pytestmark = pytest.mark.ray

SCREEN = {
    "kind": "screen",
    "templates": ["{text} Verdict:{label_word}"],
    "verbalizers": [{"0": " terrible", "1": " great"}, {"0": " bad", "1": " good"}],
    "proposer": {"kind": "random"},
    "demonstrations": [2],
    "orders": 1,
}


def test_a_run_goes_on_in_the_wording_that_its_screen_has_found(
    ray_cluster: None, llama: dict[str, Any], reviews: Path, tmp_path: Path
) -> None:
    search = {"kind": "search", "optimizer": CMA, "eval_every": 20}
    task = space({}, [])["task"] | {"label_words": {"0": " plot", "1": " story"}}
    more = {"head": "label_words", "significance": None, "task": task, "stages": [SCREEN, search]}
    more |= {"ensemble": {"size": 4}, "budget": {"queries": 100}}
    path = write_space(space(llama, [], **more), reviews, "screened.yaml")
    done = run_space(path, tmp_path / "run")
    assert done.status == "done" and numbers(done.ledger) == numbers(run_alone(path))
    (screen,), (exchange,) = done.ledger.screens, done.ledger.exchanges
    assert exchange.screen and exchange.proposer == "random" and any(one.proposed for one in screen.texts)
    best = done.summary["best"]
    assert (best["template"] or "", best["label_words"] or []) == (screen.template, screen.label_words)
    assert screen.template or screen.label_words, "the task's own are no good here"
    wording = json.loads((done.directory.best / "prompt.json").read_text())["template"]
    assert wording["source"] == screen.template or not screen.template
    assert wording["label_words"] == screen.label_words or not screen.label_words
    for split in ("dev", "test"):
        scores = evaluate(done.directory.path, split)  # type: ignore[arg-type]
        assert scores["accuracy"] == pytest.approx(best[f"{split}_metric"], abs=1e-12)
    shown = wording["source"].replace("\n", "\\n")
    assert f'Around it: <span class="mono">{shown}' in done.directory.report.read_text()
    together = best["ensemble"]
    assert together["members"] == len(read_ensemble(done.directory.path / ENSEMBLE)) > 1
    for split in ("dev", "test"):
        scores = evaluate(done.directory.path, split, ensemble=True)  # type: ignore[arg-type]
        assert scores["accuracy"] == pytest.approx(together[f"{split}_metric"], abs=1e-12)
        assert scores["loss"] == pytest.approx(together[f"{split}_loss"], abs=1e-12)
    assert together["a_row"]["forwards"] == together["members"] and together["single"]["forwards"] == 1
    assert f"{together['members']} prompts together" in done.directory.report.read_text()
