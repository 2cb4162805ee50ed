"""Studies: which cells there are, what goes on from what, what is kept, and the rows. The analytic oracle is asked."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import benchmarks.study.cell as cell
from benchmarks.study.kept import Kept
from benchmarks.study.plan import UNTUNED, Job, jobs_of, said_of
from benchmarks.study.rows import Row
from benchmarks.study.settings import Study, read_study
from benchmarks.study.untuned import ask_untuned
from benchmarks.study.workers import ANSWERS, JOBS, carry_out, done_rows, resolve
from distributed_tuner import optimizers, oracles
from distributed_tuner.config.first_order import AdamWConfig, SgdConfig, TrainableConfig
from distributed_tuner.config.optimizer import CmaConfig, RandomSearchConfig, ZotConfig
from distributed_tuner.errors import ConfigError, ModelError
from distributed_tuner.oracles.wrappers.tiled import TiledOracle
from distributed_tuner.storage.serialization import encode
from distributed_tuner.values import Evaluation, Request

CMA = {"kind": "search", "eval_every": 10, "optimizer": {"kind": "cma", "intrinsic_dim": 4, "popsize": 5}}
ZOT = {"kind": "search", "optimizer": {"kind": "zot"}}
ADAMW = {"kind": "gradient", "optimizer": {"kind": "adamw", "schedule": "constant"}}
TREE: dict[str, Any] = {
    "name": "small",
    "oracle": {"kind": "analytic", "width": 3, "features": 64, "tile": {"candidates": 2}},
    "tasks": ["demo"],
    "shots": [4],
    "splits": [0, 1],
    "budgets": [30, 60],
    "test_limit": 16,
    "experiment": {"prompt": {"length": 3, "init": "zeros", "layout": "prefix"}, "head": "bias"},
    "methods": {"cma": {"stages": [CMA]}, "zot": {"stages": [ZOT]}},
}


def study_of(**changes: Any) -> Study:
    return Study.model_validate(copy.deepcopy({**TREE, **changes}))


def jobs(**changes: Any) -> dict[str, Job]:
    found = jobs_of(study_of(**changes), None, Path())
    return {job.name: job.with_oracle(resolve(job.oracle)) for job in found}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "study.yaml"
        tree = {name: value for name, value in {**TREE, **changes}.items() if value is not None}
        path.write_text(yaml.safe_dump(tree))
        return path

    return write


# ------------------------------------------------------------------------------------------------------ what is asked
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": None}, "budgets is required, but is missing"),
        ({"budgets": [0]}, "budgets.0: input should be greater than or equal to 1, but got 0"),
        ({"budget": [30]}, "budget is not a known setting of a study"),
        ({"experiment": {"budget": {"queries": 3}}}, "the study sets budget for all methods alike, but experiment"),
        ({"methods": {"one": {"task": {"kind": "demo"}}}}, "the study sets task for all methods alike, but one"),
        ({"methods": {"manual": {"stages": [CMA]}}}, "manual is in every study by itself"),
    ],
)
def test_what_is_wrong_with_a_study_is_said(
    written: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as found:
        read_study(written(**changes))
    assert message in str(found.value)


def test_a_setting_that_is_left_free_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(TREE).replace("name: small", "name: small\nseed: !grid [0, 1]"))
    with pytest.raises(ConfigError, match="a method of a study is one setting, but seed is left free"):
        read_study(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["trec"]}, "tasks: a task has a kind, or is one of demo, sst2"),
        ({"tasks": ["sst2"]}, "tasks: sst2 needs its data; name their folder by --data"),
        ({"budgets": [5]}, "cma on demo with 4 shots: the budget must pay for one step"),
        ({"experiment": {"prompt": {"layout": "prefix", "lenth": 3}}}, "did you mean 'length'?"),
        ({"methods": {"odd": {"stages": [CMA], "budgets": [40], "rouns": 2}}}, "did you mean 'rounds'?"),
        (
            {"methods": {"odd": {"stages": [{**CMA, "optimizer": {"kind": "cma", "popsize": 5, "sigma": -1}}]}}},
            "odd on",
        ),
    ],
)
def test_a_cell_that_cannot_be_run_is_said_before_anything_is(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError if "budgets" not in changes else ValueError) as found:
        jobs(**changes)
    assert message in str(found.value)


def test_a_method_that_does_not_plan_ahead_is_one_job_for_all_budgets() -> None:
    found = {name: job.budgets for name, job in jobs(splits=[0]).items()}
    assert found == {
        "demo-cma-4-0": (30, 60),
        "demo-zot-4-0-30": (30,),
        "demo-zot-4-0-60": (60,),
        "demo-untuned-4-0": (),
    }


@pytest.mark.parametrize(
    ("stages", "more", "shared"),
    [
        ([CMA], {}, True),
        ([{**ZOT, "optimizer": {"kind": "zot", "schedule": "constant"}}], {}, True),
        ([ADAMW], {}, True),
        ([{**ADAMW, "optimizer": {"kind": "adamw"}}], {}, False),
        ([{**CMA, "steps": 2}, ADAMW], {}, True),
        ([{**ZOT, "steps": 3}, CMA], {}, True),
        ([CMA, ADAMW], {}, False),
        ([CMA], {"rounds": 2}, False),
        ([{"kind": "search", "optimizer": {"kind": "nevergrad", "intrinsic_dim": 4}}], {}, False),
    ],
)
def test_whether_budgets_are_shared_follows_from_the_stages(stages: Any, more: Any, shared: bool) -> None:
    found = jobs(splits=[0], methods={"one": {"stages": stages, **more}}, budgets=[60, 90])
    assert sorted(job.budgets for job in found.values() if job.method == "one") == (
        [(60, 90)] if shared else [(60,), (90,)]
    )


def test_long_jobs_come_first_and_a_method_may_have_its_own_budgets() -> None:
    found = jobs(methods={"short": {"stages": [CMA], "budgets": [20]}, "long": {"stages": [CMA]}}, splits=[0])
    assert [job.method for job in found.values()] == ["long", "short", UNTUNED]
    assert said_of(list(found.values())).startswith("6 cells by 3 jobs: about 82 queries and")


@pytest.mark.parametrize(
    "config",
    [
        RandomSearchConfig(popsize=3),
        ZotConfig(schedule="constant"),
        CmaConfig(intrinsic_dim=4, popsize=5),
        AdamWConfig(schedule="constant"),
        SgdConfig(schedule="constant"),
        TrainableConfig(schedule="constant"),
    ],
    ids=lambda config: config.kind,
)
def test_an_optimizer_that_does_not_plan_ahead_takes_the_same_steps_whatever_is_planned(config: Any) -> None:
    assert not config.plans_ahead
    short, long = (
        optimizers.build(config, dim=6, key=(0,), steps=steps, start=np.zeros(6, np.float32)) for steps in (4, 400)
    )
    for step in range(4):
        states = []
        for one in (short, long):
            asked, stream = one.ask(), np.random.default_rng(step)
            slopes = stream.standard_normal((len(asked), 6), dtype=np.float32)
            one.tell(list(stream.random(len(asked))), slopes if one.white_box else None)
            states.append(encode(one.state_dict()))
        assert states[0] == states[1], step


def test_what_is_shipped_is_sound(data: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "benchmarks" / "studies"
    for path in folder.glob("*.yaml"):
        study = read_study(path)
        for method in study.methods:
            tree = study.tree(study.task_tree(next(iter(study.tasks)), data), 16, 0, study.methods[method].parts, 100)
            assert tree["stages"], path


# ------------------------------------------------------------------------------------------------------ cells
def rows_by_hand(job: Job, folder: Path, oracle: Any = None) -> list[Row]:
    """Do a job in this process, as a worker does."""
    oracle = oracle or TiledOracle(oracles.build(job.oracle), job.oracle.tile)
    kept = Kept(folder, job.name, job.follows_from())
    return cell.tuned_rows(job, oracle, ask_untuned(job, oracle), kept)


def told(rows: list[Row]) -> list[dict[str, Any]]:
    """Return rows without what time they took."""
    return [{**asdict(row), "seconds": None} for row in rows]


@pytest.mark.parametrize(
    "stages",
    [
        [CMA],
        [{"kind": "search", "eval_every": 10, "optimizer": {"kind": "random_search", "popsize": 3}}],
        [ADAMW],
        [{**ZOT, "steps": 3, "eval_every": 4}, CMA],
        [{"kind": "screen", "demonstrations": [], "instructions_kept": 1}, CMA],
    ],
    ids=["cma", "random_search", "adamw", "zot-cma", "screen-cma"],
)
def test_a_longer_run_notes_at_a_smaller_budget_what_a_run_to_it_finds(stages: Any, tmp_path: Path) -> None:
    methods = {"one": {"stages": stages}}
    together = rows_by_hand(jobs(splits=[1], methods=methods)["demo-one-4-1"], tmp_path)
    alone = []
    for budget in (30, 60):
        (tmp_path / str(budget)).mkdir()
        job = jobs(splits=[1], methods=methods, budgets=[budget])["demo-one-4-1"]
        alone += rows_by_hand(job, tmp_path / str(budget))
    assert told(together) == told(alone)
    assert [row.queries <= row.budget for row in together] == [True, True]


class Failing:
    """An oracle that can be asked a number of times; the rest is another's."""

    def __init__(self, job: Job, asked: float) -> None:
        self._oracle = TiledOracle(oracles.build(job.oracle), job.oracle.tile)
        self.left = asked
        self.searched = 0

    def evaluate(self, request: Request, timeout: float = math.inf) -> Evaluation:
        if self.left <= 0:
            raise ModelError("it was killed")
        self.left -= 1
        self.searched += request.batch.split == "train"
        return self._oracle.evaluate(request, timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._oracle, name)


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cell, "SAVED_EVERY", -1.0)
    yield


@pytest.mark.parametrize("asked", [8, 12, 17])
@pytest.mark.parametrize("name", ["demo-cma-4-0", "demo-zot-4-0-60"])
@pytest.mark.usefixtures("always_saved")
def test_a_job_goes_on_from_where_it_was_killed(name: str, asked: int, tmp_path: Path) -> None:
    job = jobs()[name]
    (tmp_path / "whole").mkdir()
    once = Failing(job, math.inf)
    whole = rows_by_hand(job, tmp_path / "whole", once)
    first, second = Failing(job, asked), Failing(job, math.inf)
    with pytest.raises(ModelError):
        rows_by_hand(job, tmp_path, first)
    assert told(rows_by_hand(job, tmp_path, second)) == told(whole)
    assert second.searched < once.searched, "what was done is not done again"


def test_larger_budgets_that_are_asked_for_later_go_on_as_well(tmp_path: Path) -> None:
    name = "demo-cma-4-0"
    rows_by_hand(jobs(budgets=[30])[name], tmp_path)
    job = jobs()[name]
    later, once = Failing(job, math.inf), Failing(job, math.inf)
    (tmp_path / "whole").mkdir()
    assert told(rows_by_hand(job, tmp_path, later)) == told(rows_by_hand(job, tmp_path / "whole", once))
    assert later.searched < once.searched


def test_a_job_that_is_done_is_read_and_an_edited_one_is_done_anew(tmp_path: Path) -> None:
    (tmp_path / JOBS).mkdir()
    job = jobs()["demo-cma-4-0"]
    assert done_rows(job, tmp_path) is None
    rows = carry_out(job, tmp_path)
    assert done_rows(job, tmp_path) == rows
    smaller = jobs(budgets=[60])["demo-cma-4-0"]
    assert done_rows(smaller, tmp_path) == rows[1:]
    for edited in ({"seed": 1}, {"test_limit": 8}, {"experiment": {**TREE["experiment"], "significance": None}}):
        assert done_rows(jobs(**edited)["demo-cma-4-0"], tmp_path) is None, edited


def test_what_is_below_has_rows_of_its_own(tmp_path: Path) -> None:
    (tmp_path / JOBS).mkdir()
    job = jobs()["demo-untuned-4-0"]
    rows = {row.method: row for row in carry_out(job, tmp_path)}
    assert set(rows) == {"manual", "manual_head", "bag_of_words"}
    assert (rows["manual"].queries, rows["manual_head"].queries, rows["bag_of_words"].tokens) == (0, 2, 0)
    assert rows["manual_head"].score is not None and rows["manual_head"].forwards == 2 * 16
    assert rows["manual"].test_metric == rows["manual_head"].test_label_words
    assert done_rows(job, tmp_path) == list(rows.values())
    assert any((tmp_path / ANSWERS).iterdir()), "workers share what untuned prompts were answered"


def test_the_untuned_prompt_is_returned_where_tuning_is_not_shown_to_help(tmp_path: Path) -> None:
    for level, returned in ((1 - 1e-9, "tuned"), (1e-9, "manual")):
        experiment = {**TREE["experiment"], "significance": level}
        (tmp_path / returned).mkdir()
        job = jobs(experiment=experiment, splits=[0])["demo-cma-4-0"]
        oracle = TiledOracle(oracles.build(job.oracle), job.oracle.tile)
        row = rows_by_hand(job, tmp_path / returned)[0]
        assert row.returned == returned and row.p_value is not None
        expected = row.test_metric if returned == "tuned" else ask_untuned(job, oracle).test_metric
        assert row.returned_metric == expected


def test_a_method_with_an_ensemble_has_a_second_row_of_it(tmp_path: Path) -> None:
    methods = {"cma": {"stages": [{**CMA, "eval_every": 5}], "ensemble": {"size": 4}}}
    (tmp_path / JOBS).mkdir()
    job = jobs(methods=methods, splits=[1])["demo-cma-4-1"]
    rows = carry_out(job, tmp_path)
    assert [(row.budget, row.method) for row in rows] == [
        (30, "cma"),
        (30, "cma_ensemble"),
        (60, "cma"),
        (60, "cma_ensemble"),
    ]
    assert done_rows(job, tmp_path) == rows
    for alone, together in zip(rows[::2], rows[1::2], strict=True):
        assert (alone.members, alone.queries) == (1, together.queries)
        assert 1 <= together.members <= 4
        if together.members == 1:
            assert together.test_metric == alone.test_metric
        else:
            assert together.p_value is None and together.returned_metric == together.test_metric
    assert max(row.members for row in rows) > 1, "some prompts are read together"


def test_the_rows_of_an_ensemble_take_no_other_methods_name() -> None:
    with pytest.raises(ValueError, match="the rows of the ensemble of cma are called cma_ensemble"):
        study_of(methods={"cma": {"stages": [CMA], "ensemble": {"size": 3}}, "cma_ensemble": {"stages": [CMA]}})


def test_a_method_that_dev_alone_selects_returns_what_it_found(tmp_path: Path) -> None:
    methods = {"as_published": {"head": "label_words", "stages": [{**CMA, "select": "dev"}]}}
    row = rows_by_hand(jobs(methods=methods, splits=[0])["demo-as_published-4-0"], tmp_path)[0]
    assert (row.returned, row.p_value, row.returned_metric) == ("tuned", None, row.test_metric)


def test_a_file_that_no_study_wrote_is_told_of(tmp_path: Path) -> None:
    (tmp_path / JOBS).mkdir()
    job = jobs()["demo-cma-4-0"]
    (tmp_path / JOBS / "demo-cma-4-0.json").write_text(json.dumps({"follows_from": "x", "rows": [{"task": 3}]}))
    with pytest.raises(Exception, match="must be as a run has written it"):
        done_rows(job, tmp_path)
    (tmp_path / JOBS / "demo-cma-4-0.json").unlink()
    (tmp_path / JOBS / "demo-cma-4-0.state").write_bytes(b"torn")
    assert carry_out(job, tmp_path) == done_rows(replace(job), tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "sst2"
    folder.mkdir()
    rows = [{"text": f"{label} {i}", "label": label} for label in ("negative", "positive") for i in range(40)]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path
