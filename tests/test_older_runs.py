"""Runs of older versions: a stored run, whose config.json and ledger have former names, is read as it was."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.trials.checkpoints import Saved
from distributed_tuner.config.renamed import RENAMED
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.ledger.digest import digest
from distributed_tuner.ledger.reader import read
from distributed_tuner.ledger.rows import ROW, RestartRow
from distributed_tuner.prompts.pool import PooledText
from distributed_tuner.report.html import write_report
from distributed_tuner.report.summary import summarize
from distributed_tuner.runs.directory import RunDirectory
from distributed_tuner.runs.evaluation import evaluate
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.runs.resuming import require_unedited, trials_of
from distributed_tuner.schedule.decisions import Decisions
from distributed_tuner.stages.exploit import Exploit
from distributed_tuner.stages.restart import Adopted
from distributed_tuner.storage.serialization import decode, encode

STORED = Path(__file__).parent / "stored_run"
SPACE = """
name: debug
seed: !grid [0, 1]
task: {kind: demo, shots: 8, test_limit: 100}
oracle: {kind: analytic, function: logistic, width: 8, threads: 1, actors: 2}
prompt: {length: 8, init: zeros}
stages:
  - kind: search
    optimizer: !grid
      - {kind: random_search}
      - {kind: cma, intrinsic_dim: 20, popsize: 10}
      - {kind: nevergrad, optimizer: OnePlusOne, intrinsic_dim: 20, num_workers: 4}
      - {kind: zot, points: 2, learning_rate: !loguniform [0.3, 3.0]}
    eval_every: 50
budget: {queries: 400}
max_concurrent_trials: 4
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the stored run, to write beside it."""
    return Path(shutil.copytree(STORED, tmp_path / "run"))


def summary_of(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return summary


def test_its_files_have_the_former_names() -> None:
    told = "".join((STORED / name).read_text(encoding="utf-8") for name in ("config.json", "ledger.jsonl"))
    assert '"look_every"' in told and '"units"' in told and '"type":"look"' in told


def test_its_ledger_has_rows_of_every_evaluation() -> None:
    ledger = read(STORED / "ledger.jsonl")
    assert [row.step for row in ledger.evaluations] == sorted({row.step for row in ledger.evaluations})
    assert {row.type for row in ledger.evaluations} == {"evaluation"} and ledger.evaluations[0].selected


def test_its_report_and_summary_are_written_again_with_the_same_numbers(run: Path) -> None:
    before = summary_of(run)
    write_report(run)
    after = summarize(digest(run / "ledger.jsonl"), Recorded.of(RunDirectory(run).read_config()))
    for part in ("best", "baseline", "totals"):
        assert {name: after[part][name] for name in before[part]} == before[part], part
    assert "zot" in (run / "report.html").read_text(encoding="utf-8")


def test_its_prompt_is_evaluated_to_the_numbers_of_its_summary(run: Path) -> None:
    best = summary_of(run)["best"]
    assert evaluate(run, "test")["accuracy"] == pytest.approx(best["test_metric"])
    assert evaluate(run, "dev")["loss"] == pytest.approx(best["dev_loss"])


def test_it_is_resumed_with_a_search_space_in_present_names(tmp_path: Path, run: Path) -> None:
    (plan,) = trials_of(RunDirectory(run).read_config(), "config.json")
    assert plan.experiment.prompt.scale == "paper"  # type: ignore[union-attr]
    assert plan.experiment.stages[0].eval_every == 20  # type: ignore[union-attr]
    space = tmp_path / "space.yaml"
    space.write_text(SPACE, encoding="utf-8")
    assert "going on with the settings" in require_unedited(RunDirectory(run), space, [])
    space.write_text(SPACE.replace("eval_every: 50", "eval_every: 51"), encoding="utf-8")
    with pytest.raises(ConfigError, match="eval_every was 50 and is 51"):
        require_unedited(RunDirectory(run), space, [])


def test_its_saved_state_is_restored(tmp_path: Path) -> None:
    saved = Saved.read(STORED)
    assert saved.state and isinstance(saved.reports, list)
    assert "sync_point" in saved.report and "boundary" not in saved.report


@dataclass(frozen=True)
class Takeover:
    """What is ``Exploit`` today."""

    id: str
    donor: str | None
    settings: dict[str, float]
    place: str | None
    pool: tuple[PooledText, ...]


def test_data_of_a_renamed_class_is_read_under_its_former_name() -> None:
    pool = (PooledText("a", 1.0, 0.5, "donor", "zot-0000", 1),)  # type: ignore[arg-type]  # its source's former name
    held = {"exploit": Takeover("a/1", "b", {"rho": 0.1}, "words", pool), "adopted": Adopted("x", "x", "donor")}  # type: ignore[arg-type]
    state = decode(encode(held, (Takeover, PooledText, Adopted)), "a state", (Exploit, PooledText, Adopted))
    exploit = state["exploit"]
    assert (exploit.settings, exploit.source_trial, exploit.pool[0].source) == ({"rho": 0.1}, "b", "source_trial")
    assert state["adopted"].source == "source_trial"


def test_a_ledger_s_restart_is_read_by_its_former_names() -> None:
    scored = [{"text": "", "source": "donor", "loss": 1.0, "metric": 0.5}]
    told = {"type": "restart", "trial_id": "a", "stage": 1, "incumbent_loss": 2.0, "scored": scored}
    told |= {"adopted": "donor", "donor": "b", "text": "", "elapsed": 1.0, "cost": {}, "spent": {}}
    row = ROW.validate_json(json.dumps(told))
    assert isinstance(row, RestartRow)
    assert (row.adopted, row.source_trial, row.scored[0].source) == ("source_trial", "b", "source_trial")
    assert ROW.validate_json(row.model_dump_json()) == row


def test_a_population_s_decisions_are_read_by_their_former_names() -> None:
    text = {"text": "a", "loss": 1.0, "metric": 0.5, "source": "donor", "trial_id": "b", "stage": 1}
    restart = {"id": "a/1", "boundary": 1, "donor": "b", "settings": {}, "place": "", "pool": [text]}
    standing = {"trial_id": "b", "boundary": 1, "loss": 0.5, "settings": {}, "ended": False}
    told = {
        "decided": {"a": {"1": {"go_on": False, "donor": "b", "settings": {}}}},
        "met": {"1": [standing]},
        "restarts": {"a": {"1": restart}},
    }
    read = Decisions.from_json(told)
    decision, restarted = read.of("a", 1), read.restart_of("a", 1)
    assert decision is not None and decision.source_trial == "b" and read.met[1][0].sync_point == 1
    assert restarted is not None and (restarted.sync_point, restarted.pool[0].source) == (1, "source_trial")
    assert Decisions.from_json(json.loads(json.dumps(read.to_json()))) == read


@pytest.mark.parametrize(("former", "present"), RENAMED.items())
def test_a_search_space_with_a_former_name_is_told_the_present_one(former: str, present: str) -> None:
    search: dict[str, Any] = {"kind": "search", "optimizer": {"kind": "zot"}}
    proposer = {"kind": "random"}
    restart: dict[str, Any] = {"kind": "restart", "proposer": proposer}
    prompt: dict[str, Any] = {"length": 4, "init": "zeros"}
    {"look_every": search, "faithful": restart, "units": prompt}[former][former] = {"units": "paper"}.get(former, 1)
    tree = {
        "name": "old",
        "task": {"kind": "demo"},
        "oracle": {"kind": "analytic"},
        "prompt": prompt,
        "stages": [search, restart],
    }
    with pytest.raises(ConfigError, match=f"{former} is called '{present}' in this version; write {present}"):
        experiment_of(tree)


def test_a_former_name_given_by_set_is_told_the_present_one() -> None:
    tree = {"name": "old", "task": {"kind": "demo"}, "oracle": {"kind": "analytic"}, "look_every": 50}
    search = {"kind": "search", "optimizer": {"kind": "zot"}}
    with pytest.raises(ConfigError, match="look_every is called 'eval_every' in this version"):
        experiment_of(tree | {"stages": [search]})
