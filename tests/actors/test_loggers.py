"""Loggers beside the ledger: what they are told, that they cannot hurt a run, and the libraries that are reached."""

import importlib.machinery
import importlib.util
import math
import os
import re
import struct
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tuner_runs import ZOT, run_space, space, wait_for, write_space

from actors.monitoring import loggers as module
from actors.monitoring.loggers import Meter, TrialLogger, _build, budget_used, build_loggers, flat, parameters
from distributed_tuner.config.budget import BudgetConfig
from distributed_tuner.config.load import parse
from distributed_tuner.config.logger import MlflowLoggerConfig, TensorboardLoggerConfig, WandbLoggerConfig, holds_key
from distributed_tuner.config.space import TrialPlan, draw_trials
from distributed_tuner.config.validation import experiment_of
from distributed_tuner.errors import ConfigError
from distributed_tuner.preflight.prepare import prepare

SPACE = """
name: mine
task: {kind: demo, manual_prompt: !grid ["Which team?"]}
oracle: {kind: analytic}
stages: [{kind: search, optimizer: {kind: zot, rho: !grid [0.1, 0.2], schedule: !grid [cosine], clip: !grid [0]}}]
budget: {queries: 100, usd: 2.0}
"""
BEGAN = 1_790_000_000.125
Sent = list[tuple[str, ...]]


@pytest.fixture
def plans() -> list[TrialPlan]:
    return draw_trials(parse(SPACE))


def tune_trial(index: int = 0, finished: bool = True) -> Any:
    return SimpleNamespace(config={"trial": index, "restart": {"place": "words:secret prompt"}}, status="RUNNING")


def step(loss: float | None = 0.7, usd: float = 0.5) -> dict[str, Any]:
    spent = {"queries": 40, "forwards": 320, "tokens": 6400, "seconds": 1.0, "usd": usd}
    row = {"type": "step", "trial_id": "zot-0000", "stage": 0, "step": 3, "loss": loss, "best_loss": 0.6}
    return {**row, "failed": 0, "cost": spent, "spent": spent, "elapsed": 2.0, "metrics": {"learning_rate": 0.01}}


def report(*rows: dict[str, Any], queries: int = 40, dev_loss: float = 0.65) -> dict[str, Any]:
    progress = {"queries": queries, "forwards": 320, "tokens": 6400, "elapsed": 2.0, "train_loss": float("nan")}
    progress |= {"dev_loss": dev_loss, "dev_metric": 0.75}
    more = {"prompt": "a prompt in words", "place": "words:a prompt", "scored": [{"text": "words"}], "reason": "spent"}
    return {"progress": progress, "rows": list(rows), "dev_loss": dev_loss, "done": False, **more}


# --------------------------------------------------------------------------------------------------------- reports
def test_a_report_becomes_flat_finite_numbers_and_no_text() -> None:
    evaluation = {"type": "evaluation", "text": "a prompt in words", "spent": {"usd": 0.75}}
    measure = {"type": "measure", "split": "test", "loss": 0.5, "metric": 0.875}
    told = flat(report(step(), evaluation, measure))
    assert told == {
        **{"queries": 40.0, "forwards": 320.0, "tokens": 6400.0, "elapsed": 2.0, "usd": 0.75},
        **{"dev_loss": 0.65, "dev_metric": 0.75, "test_loss": 0.5, "test_metric": 0.875},
        **{"stage": 0.0, "step_loss": 0.7, "step_best_loss": 0.6, "optimizer/learning_rate": 0.01},
        "training_iteration": 40,
    }


def test_before_the_first_look_there_is_no_loss_to_tell_of() -> None:
    told = flat(report(step(loss=None), dev_loss=math.inf))
    assert {"dev_loss", "train_loss", "step_loss"}.isdisjoint(told)


def test_a_trials_settings_are_its_drawn_numbers_and_names_never_texts(plans: list[TrialPlan]) -> None:
    assert parameters(plans[1]) == {
        **{"method": "zot", "seed": 0, "split_seed": 0},
        **{"stages.0.optimizer.rho": 0.2, "stages.0.optimizer.schedule": "cosine", "stages.0.optimizer.clip": 0},
    }
    assert plans[1].drawn["task.manual_prompt"] == "Which team?"


@pytest.mark.parametrize(
    ("limits", "share"),
    [
        ({"queries": 100}, 0.4),
        ({"queries": 100, "usd": 1.0}, 0.5),
        ({"queries": None, "seconds": 8.0}, 0.25),
        ({"queries": None, "forwards": 640, "tokens": 64000}, 0.5),
        ({"queries": None}, 0.0),
    ],
)
def test_the_budget_is_used_as_far_as_the_limit_that_is_nearest(limits: dict[str, Any], share: float) -> None:
    assert budget_used(BudgetConfig(**limits), report()["progress"], 0.5) == share


class Recording:
    """Stands for ``TrialMetrics``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *given: self.calls.append((name, *given))


def test_prometheus_is_told_of_trials_proposers_and_restarts(plans: list[TrialPlan]) -> None:
    metrics: Any = Recording()
    meter = Meter(plans, metrics)
    asked = {"type": "exchange", "problem": "", "usd": 0.25}
    meter.on_trial_result(1, [], tune_trial(), report(dev_loss=math.inf))
    meter.on_trial_result(
        2, [], tune_trial(1), report(step(usd=1.0), asked, {"type": "restart", "adopted": "source_trial"})
    )
    meter.on_experiment_end([tune_trial()])
    assert metrics.calls == [
        ("budget_used", "zot-0000", 0.4),
        ("proposer_call", True, 0.25),
        ("restart", "source_trial"),
        ("best", "zot-0001", 0.65, 0.75),
        ("budget_used", "zot-0001", 0.5),
        ("update", {"running": 1, "pending": 1}),
    ]


# ---------------------------------------------------------------------------------------------------- no harm
class FakeLogger:
    """One of Ray's logger callbacks; ``fails`` names the calls that fail."""

    def __init__(self) -> None:
        self.sent: Sent = []
        self.fails: set[str] = set()
        self.hang: threading.Event | None = None

    def _call(self, *what: str) -> None:
        if self.hang is not None:
            self.hang.wait(60)
        if what[0] in self.fails:
            raise ConnectionError("no route to http://me:secret@server/api\nsecond line")
        self.sent.append(what)

    def setup(self) -> None:
        self._call("setup")

    def log_trial_start(self, trial: Any) -> None:
        self._call("start", str(trial))

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, float]) -> None:
        self._call("result", str(trial), f"{result['queries']:.0f}")

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._call("end", str(trial), str(failed))

    def on_experiment_end(self, trials: list[Any]) -> None:
        self._call("close")


class Beside:
    """A fake logger behind the adapter, and what was said of it."""

    def __init__(self, plans: list[TrialPlan], directory: Path, most: int = 1000) -> None:
        self.fake = FakeLogger()
        self.said: list[tuple[str | None, str, str]] = []
        trials = _build(TensorboardLoggerConfig(kind="tensorboard"), plans, directory, BEGAN, False, self.say)._trials
        self.logger = TrialLogger("fake", lambda: self.fake, trials, self.say, most)

    def say(self, trial_id: str | None, kind: str, message: str) -> None:
        self.said.append((trial_id, kind, message))

    def start(self, index: int = 0) -> None:
        self.logger.on_trial_start(0, [], tune_trial(index))

    def result(self, index: int = 0, queries: int = 40) -> None:
        self.logger.on_trial_result(0, [], tune_trial(index), report(queries=queries))

    def step(self) -> None:
        self.logger.on_step_end(0, [])

    def end(self) -> None:
        self.logger.on_experiment_end([])


@pytest.fixture
def beside(plans: list[TrialPlan], tmp_path: Path) -> Beside:
    return Beside(plans, tmp_path)


def test_a_logger_hears_of_every_trial_in_order(beside: Beside) -> None:
    beside.start()
    beside.result(queries=20)
    beside.start(1)
    beside.start()  # it was paused at a sync point, or died and is tried again
    beside.result(queries=40)
    beside.logger.on_trial_complete(0, [], tune_trial())
    beside.logger.on_trial_error(0, [], tune_trial(1))
    beside.end()
    assert beside.fake.sent == [
        *(("setup",), ("start", "zot-0000"), ("result", "zot-0000", "20"), ("start", "zot-0001")),
        *(("result", "zot-0000", "40"), ("end", "zot-0000", "False"), ("end", "zot-0001", "True"), ("close",)),
    ]
    assert beside.said == []


def test_trials_that_are_interrupted_are_ended_with_the_run(beside: Beside) -> None:
    beside.start()
    beside.result()
    beside.end()
    assert beside.fake.sent[-2:] == [("end", "zot-0000", "True"), ("close",)]


@pytest.mark.parametrize("call", ["setup", "start", "result", "end", "close"])
def test_what_fails_is_said_once_without_its_secrets_and_goes_on(beside: Beside, call: str) -> None:
    beside.fake.fails = {call}
    beside.start()
    for queries in (20, 40, 60):
        beside.result(queries=queries)
    beside.logger.on_trial_complete(0, [], tune_trial())
    beside.end()
    (_, kind, first), (_, _, last) = beside.said
    assert kind == "logger"
    assert first.startswith("fake accepts no reports (ConnectionError: no route to http://server/api second line)")
    assert re.fullmatch(r"fake: \d reports are missing there; the ledger has everything", last)


def test_a_server_that_comes_back_is_told_what_is_new(beside: Beside) -> None:
    beside.fake.fails = {"setup"}
    beside.start()
    beside.result(queries=20)
    wait_for(lambda: beside.logger._outbox.lost == 2)
    beside.fake.fails = set()
    beside.result(queries=40)
    beside.logger.on_trial_complete(0, [], tune_trial())
    beside.end()
    kept = [("setup",), ("start", "zot-0000"), ("result", "zot-0000", "40"), ("end", "zot-0000", "False"), ("close",)]
    assert beside.fake.sent == kept


def test_what_went_wrong_is_said_in_tunes_own_thread(beside: Beside) -> None:
    beside.fake.fails = {"result"}
    beside.start()
    beside.result()
    wait_for(lambda: beside.logger._outbox.lost == 1)
    assert beside.said == []
    beside.step()
    assert len(beside.said) == 1


def test_a_library_that_cannot_be_imported_costs_the_run_nothing(plans: list[TrialPlan], tmp_path: Path) -> None:
    beside = Beside(plans, tmp_path)

    def broken() -> Any:
        raise ImportError("libcuda.so.1")

    beside.logger = TrialLogger("fake", broken, beside.logger._trials, beside.say)
    beside.start()
    beside.result()
    beside.end()
    assert "ImportError: libcuda.so.1" in beside.said[0][2]


def test_a_server_that_hangs_stops_neither_the_run_nor_its_end(
    plans: list[TrialPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(module, "HURRY_SECONDS", 0.1)
    beside = Beside(plans, tmp_path, most=5)
    beside.fake.hang = threading.Event()
    beside.start()
    for _ in range(20):
        beside.result()
    assert beside.fake.sent == []  # all of the above came back while the first call hangs
    beside.end()
    assert beside.fake.sent == []
    assert len(beside.said) == 1 and "reports are missing there" in beside.said[0][2]
    beside.fake.hang.set()


def test_a_logger_is_pickled_with_the_experiment_and_leaves_its_thread_behind(beside: Beside) -> None:
    import pickle

    assert isinstance(pickle.loads(pickle.dumps(beside.logger)), TrialLogger)


# ---------------------------------------------------------------------------------------------------- TensorBoard
def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) by tag, of all event files in the order in which they were written."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(directory.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):  # length, its checksum, an event, its checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def tensorboard(plans: list[TrialPlan], directory: Path, resume: bool = False) -> TrialLogger:
    config = TensorboardLoggerConfig(kind="tensorboard")
    (logger,) = build_loggers([config], plans, directory, BEGAN, resume, lambda *said: pytest.fail(str(said)))
    return logger


def in_peace(logger: TrialLogger) -> None:
    """End a run, without the hurry of one that is interrupted: libraries may have yet to be imported."""
    logger._running.clear()
    logger.on_experiment_end([])


def test_tensorboard_gets_a_folder_a_trial_and_a_resumed_run_goes_on_there(
    plans: list[TrialPlan], tmp_path: Path
) -> None:
    for resume, queries in ((False, (20, 40)), (True, (60,))):
        logger = tensorboard(plans, tmp_path, resume)
        logger.on_trial_start(0, [], tune_trial(1))
        for count in queries:
            logger.on_trial_result(0, [], tune_trial(1), report(step(), queries=count))
        if resume:
            logger.on_trial_complete(0, [], tune_trial(1))
        in_peace(logger)
        ended = int(time.time())
        wait_for(lambda end=ended: time.time() >= end + 1)  # files are named by the second
    folder = tmp_path / "tensorboard" / "zot-0001"
    assert len(list(folder.iterdir())) == 2
    told = scalars(folder)
    assert told["ray/tune/dev_loss"] == [(count, pytest.approx(0.65)) for count in (20, 40, 60)]
    assert told["ray/tune/optimizer/learning_rate"][0] == (20, pytest.approx(0.01))
    assert not any("prompt" in tag or "row" in tag for tag in told)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_writes_tensorboards_files_and_a_line_a_stage(
    reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = space({"kind": "analytic"}, [ZOT], loggers=["tensorboard"])
    done = run_space(write_space(tree, reviews, "logged.yaml"), tmp_path / "run")
    assert done.status == "done"
    told = scalars(done.directory.path / "tensorboard" / "zot-0000")
    (trial,) = done.summary["trials"]
    assert told["ray/tune/queries"][-1] == (trial["queries"], trial["queries"])
    assert told["ray/tune/test_metric"][-1][1] == pytest.approx(trial["test_metric"])
    assert told["ray/tune/dev_metric"][-1][1] == pytest.approx(trial["dev_metric"])
    (stage,) = done.ledger.stages
    assert (stage.stage, stage.kind, stage.method, stage.steps) == (0, "search", "zot", len(done.ledger.steps))
    assert stage.paid == stage.spent and stage.spent.queries == trial["queries"]
    assert stage.dev_metric == trial["dev_metric"]
    said = f"zot-0000: stage 0 (search, zot) ended after {stage.steps} steps, {trial['queries']} queries, best dev acc"
    assert said in capsys.readouterr().out
    assert [event for event in done.ledger.events if event.kind == "logger"] == []


# ---------------------------------------------------------------------------------------------------- MLflow, W&B
class FakeMlflow:
    """As much of MLflow as Ray's callback and ours ask of it, in memory."""

    def __init__(self) -> None:
        self.runs: list[Any] = []
        self.experiments: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        names = ("mlflow", "mlflow.tracking", "mlflow.utils", "mlflow.utils.mlflow_tags", "mlflow.exceptions")
        modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}
        for name, one in modules.items():
            one.__spec__ = importlib.machinery.ModuleSpec(name, None)
            monkeypatch.setitem(sys.modules, name, one)
        mlflow = modules["mlflow"]
        mlflow.__version__ = "3.18.0"
        mlflow.set_tracking_uri = mlflow.set_registry_uri = mlflow.get_registry_uri = lambda uri=None: None
        mlflow.get_tracking_uri = lambda: None
        mlflow.get_experiment_by_name = lambda name: (
            SimpleNamespace(experiment_id=name) if name in self.experiments else None
        )
        mlflow.create_experiment = lambda name, artifact_location=None: self.experiments.append(name) or name
        mlflow.get_run = lambda run_id: self._of(run_id)
        mlflow.active_run = lambda: None
        mlflow.MlflowClient = modules["mlflow.tracking"].MlflowClient = lambda *uris, **named: self
        modules["mlflow.utils.mlflow_tags"].MLFLOW_RUN_NAME = "mlflow.runName"
        modules["mlflow.exceptions"].MlflowException = RuntimeError

    def _of(self, run_id: str) -> Any:
        return next(run for run in self.runs if run.info.run_id == run_id)

    def create_run(self, run_name: str, experiment_id: str, tags: dict[str, str]) -> Any:
        info = SimpleNamespace(run_id=f"r{len(self.runs)}")
        self.runs.append(SimpleNamespace(info=info, name=run_name, experiment=experiment_id, tags=tags))
        self.runs[-1].status, self.runs[-1].params, self.runs[-1].metrics = "RUNNING", {}, []
        return self.runs[-1]

    def log_param(self, run_id: str, key: str, value: Any) -> None:
        assert self._of(run_id).params.setdefault(key, value) == value

    def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
        self._of(run_id).metrics.append((key, value, step))

    def set_terminated(self, run_id: str, status: str) -> None:
        self._of(run_id).status = status

    def update_run(self, run_id: str, status: str) -> None:
        self._of(run_id).status = status

    def search_runs(self, experiment_ids: list[str], filter_string: str, max_results: int) -> list[Any]:
        wanted = dict(re.findall(r"tags\.(\w+) = '([^']*)'", filter_string))
        return [run for run in self.runs if run.experiment in experiment_ids and wanted.items() <= run.tags.items()][:1]


def mlflow_session(plans: list[TrialPlan], directory: Path, uri: str, queries: int, resume: bool) -> None:
    """Run one trial as far as so many queries; a resumed one to its end."""
    config = MlflowLoggerConfig(kind="mlflow", tracking_uri=uri)
    (logger,) = build_loggers([config], plans, directory, BEGAN, resume, lambda *said: pytest.fail(str(said)))
    logger.on_trial_start(0, [], tune_trial())
    logger.on_trial_result(0, [], tune_trial(), report(step(), queries=queries))
    if resume:
        logger.on_trial_complete(0, [], tune_trial())
    in_peace(logger)


def test_mlflow_gets_a_run_a_trial_and_a_resumed_run_goes_on_with_it(
    plans: list[TrialPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMlflow()
    fake.install(monkeypatch)
    mlflow_session(plans, tmp_path, "http://127.0.0.1:1", 20, resume=False)
    assert [run.status for run in fake.runs] == ["FAILED"], "until it is gone on with"
    mlflow_session(plans, tmp_path, "http://127.0.0.1:1", 40, resume=True)
    (run,) = fake.runs
    assert (run.name, run.experiment, run.status) == ("zot-0000", "mine", "FINISHED")
    assert run.params == parameters(plans[0])
    assert [(value, at) for key, value, at in run.metrics if key == "dev_loss"] == [(0.65, 20), (0.65, 40)]
    assert not any(isinstance(value, str) for _, value, _ in run.metrics)
    mlflow_session(plans, tmp_path, "http://127.0.0.1:1", 20, resume=False)
    assert len(fake.runs) == 2, "a new run of the same space does not"


@pytest.mark.extended  # as much of it as is asked stands for it
@pytest.mark.slow
def test_mlflow_itself_takes_it(plans: list[TrialPlan], tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    store = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow_session(plans, tmp_path, store, 20, resume=False)
    mlflow_session(plans, tmp_path, store, 40, resume=True)
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (run.info.run_name, run.info.status) == ("zot-0000", "FINISHED")
    assert run.data.params == {name: str(value) for name, value in parameters(plans[0]).items()}
    history = client.get_metric_history(run.info.run_id, "dev_loss")
    assert [(point.step, point.value) for point in history] == [(20, 0.65), (40, 0.65)]


@pytest.mark.extended  # TensorBoard stands for it
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_wandb_itself_takes_it_offline(plans: list[TrialPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 120.0)  # here its processes have yet to start
    config = WandbLoggerConfig(kind="wandb")
    (logger,) = build_loggers([config], plans, tmp_path, BEGAN, False, lambda *said: pytest.fail(str(said)))
    logger.on_trial_start(0, [], tune_trial())
    logger.on_trial_result(0, [], tune_trial(), report(step()))
    logger.on_trial_complete(0, [], tune_trial())
    logger.on_experiment_end([])
    (folder,) = (tmp_path / "wandb" / "zot-0000" / "wandb").glob("offline-run-*")
    (written,) = folder.glob("*.wandb")
    data = written.read_bytes()
    assert "mine-1790000000125-zot-0000" in written.name
    assert b"dev_loss" in data and b"stages.0.optimizer.rho" in data
    assert b"a prompt" not in data and b"secret prompt" not in data


# ---------------------------------------------------------------------------------------------------- settings
def tree(loggers: Any) -> dict[str, Any]:
    stage = {"kind": "search", "optimizer": {"kind": "zot"}}
    sound = {"name": "mine", "task": {"kind": "demo", "shots": 4, "test_limit": 20}, "oracle": {"kind": "analytic"}}
    return {**sound, "stages": [stage], "budget": {"queries": 50}, "loggers": loggers}


def test_one_line_names_loggers_by_kind_or_with_their_settings() -> None:
    loggers = experiment_of(tree(["tensorboard", {"kind": "mlflow", "experiment": "e"}, "wandb"])).loggers
    assert loggers == (
        TensorboardLoggerConfig(kind="tensorboard"),
        MlflowLoggerConfig(kind="mlflow", experiment="e"),
        WandbLoggerConfig(kind="wandb"),
    )
    assert experiment_of(tree([])).loggers == ()


@pytest.mark.parametrize(
    ("loggers", "holds"),
    [
        (["tensorbord"], ["loggers.0.kind must be one of", "'tensorbord'", "did you mean 'tensorboard'?"]),
        ([{"kind": "wandb", "api_key": "k"}], ["loggers.0.api_key is not a known setting", "project"]),
        ([{"project": "p"}], ["loggers.0.kind is required"]),
        ("tensorboard", ["loggers", "tensorboard"]),
    ],
)
def test_what_is_no_logger_is_refused(loggers: Any, holds: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        experiment_of(tree(loggers))
    assert all(part in str(refused.value) for part in holds), refused.value


def prepared(loggers: Any, directory: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...] = ()) -> None:
    """Prepare a space, as ``check`` does, where all packages but some are there."""
    real = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        if name in ("tensorboardX", "mlflow", "wandb", "sqlalchemy"):
            return None if name in missing else importlib.machinery.ModuleSpec(name, None)
        return real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    path = directory / "space.yaml"
    path.write_text(yaml.safe_dump(tree(loggers)), encoding="utf-8")
    prepare(path, [])


@pytest.mark.parametrize(
    ("kind", "package", "install"),
    [
        ("tensorboard", "tensorboardX", "pip install tensorboardX"),
        ("mlflow", "mlflow", "pip install mlflow-skinny"),
        ("wandb", "wandb", "pip install wandb"),
    ],
)
def test_a_missing_package_is_told_before_anything_begins(
    kind: str, package: str, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=rf"^loggers\.0: .*{package}.*{install}, or leave the logger out$"):
        prepared([kind], tmp_path, monkeypatch, missing=(package,))
    prepared([kind], tmp_path, monkeypatch)


@pytest.mark.parametrize("more", [{}, {"tracking_uri": "sqlite:///mlflow.db"}, {"tracking_uri": "mlruns"}])
def test_mlflow_without_a_server_needs_all_of_mlflow(
    more: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"^loggers\.0: .*sqlalchemy.* pip install mlflow, or set tracking_uri"):
        prepared([{"kind": "mlflow", **more}], tmp_path, monkeypatch, missing=("sqlalchemy",))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    if not more:
        prepared(["mlflow"], tmp_path, monkeypatch, missing=("sqlalchemy",))


@pytest.mark.parametrize(
    "uri",
    ["http://me:hunter2@server:5000", "https://hunter2@server/mlflow", "https://server?token=hunter2"],
)
def test_a_key_in_a_uri_is_refused_and_not_repeated(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as refused:
        prepared([{"kind": "mlflow", "tracking_uri": uri}], tmp_path, monkeypatch)
    assert "MLFLOW_TRACKING_TOKEN" in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "https://server/mlflow", "mlruns", "/data/me@work/mlruns", "databricks://profile"]
)
def test_other_uris_are_taken(uri: str) -> None:
    assert not holds_key(uri)


def test_trials_are_told_apart_beyond_the_run(plans: list[TrialPlan], tmp_path: Path) -> None:
    config = WandbLoggerConfig(kind="wandb")
    (logger,) = build_loggers([config], plans, tmp_path, BEGAN, False, lambda *said: None)
    (again,) = build_loggers([config], plans, tmp_path, BEGAN, True, lambda *said: None)
    (other,) = build_loggers([config], plans, tmp_path, BEGAN + 1, False, lambda *said: None)
    ids = [[trial.trial_id for trial in one._trials] for one in (logger, again, other)]
    assert ids[0] == ids[1] == ["mine-1790000000125-zot-0000", "mine-1790000000125-zot-0001"]
    assert set(ids[0]).isdisjoint(ids[2])
    assert os.path.isabs(logger._trials[0].local_path)
