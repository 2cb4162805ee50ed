"""Runs and trials that are stopped from outside: how they end, what is written down, and who is refused."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import yaml
from object_store import ObjectStore, object_store
from typer.testing import CliRunner

import tune
from distributed_tuner.errors import ConfigError, RunDirectoryError
from distributed_tuner.ledger.reader import Ledger, read
from distributed_tuner.ledger.rows import Row, StepRow
from distributed_tuner.ledger.writer import LedgerWriter
from distributed_tuner.preflight.prepare import prepare
from distributed_tuner.runs import stopping
from distributed_tuner.runs.directory import RunDirectory, kept, write_json
from distributed_tuner.runs.local import LocalBackend
from distributed_tuner.runs.run import Finished, Run
from distributed_tuner.runs.stopping import StopRequests, request_stop

ENDLESS = 10**5  # queries: far more than it takes to stop
SHORT = 40
PLANS = {"trials": [{"trial_id": "zot-0000"}, {"trial_id": "cma-0001"}]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for requests more often than outside of tests."""
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(stopping, "LOOK_SECONDS_AT_URI", 0.1)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


class Asking:
    """Listens to a run, and does something at the first step of each trial."""

    def __init__(self, act: Callable[[str], object]) -> None:
        self.notes: list[str] = []
        self._act = act
        self._seen: set[str] = set()

    def __enter__(self) -> object:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def note(self, message: str) -> None:
        self.notes.append(message)

    def row(self, trial_id: str, row: Row) -> None:
        if isinstance(row, StepRow) and trial_id not in self._seen:
            self._seen.add(trial_id)
            self._act(trial_id)

    def update(self, trial_id: str, progress: dict[str, float]) -> None:
        """Do nothing."""

    def status(self, trial_id: str, status: str) -> None:
        """Do nothing."""


def run_here(folder: Path, act: Callable[[str], object], *queries: int) -> tuple[Finished, Ledger, Asking]:
    """Run a trial for each budget in this process; ``act`` is called at the first step of each."""
    folder.mkdir(exist_ok=True)
    rows = [{"text": f"a {word} film {n}", "label": word} for n in range(16) for word in ("good", "bad")]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    space: dict[str, Any] = {
        "name": "stopped",
        "task": {
            "kind": "file",
            "train": "train.jsonl",
            "text": "text",
            "label": "label",
            "template": "{text} It was{label_word}",
            "label_words": {"good": " great", "bad": " terrible"},
            "manual_prompt": "Classify",
            "shots": 4,
        },
        "oracle": {"kind": "analytic"},
        "prompt": {"length": 2},
        "stages": [{"kind": "search", "optimizer": {"kind": "zot"}, "eval_every": 20}],
        "budget": {"queries": "QUERIES"},
    }
    text = yaml.safe_dump(space).replace("QUERIES", f"!grid {list(queries)}")
    (folder / "space.yaml").write_text(text)
    directory, asking = RunDirectory(folder / "run"), Asking(act)
    directory.create()
    prepared = prepare(folder / "space.yaml", []).sized(1, None)
    with LedgerWriter(directory.ledger, new=True) as writer:
        done = Run(prepared, directory, LocalBackend(asking), writer, asking, command="test").go()
    return done, read(directory.ledger), asking


# ------------------------------------------------------------------------------------------------------- what ends
def test_a_run_that_is_stopped_ends_as_by_ctrl_c_and_says_who_did_it(tmp_path: Path) -> None:
    place = str(tmp_path / "run")

    def twice(trial_id: str) -> None:
        request_stop(place, by="Ada\x1b[2J on engine")
        request_stop(place, by="Ada on engine")

    done, ledger, asking = run_here(tmp_path, twice, ENDLESS)
    assert done.status == done.summary["status"] == "interrupted"
    assert done.report.is_file()
    (event,) = ledger.events
    assert event.kind == "stop" and event.message.startswith("the run was stopped by Ada")
    assert "\x1b" not in event.message and any(note.startswith("stopped by Ada") for note in asking.notes)
    (end,) = ledger.trial_ends
    assert end.status == "interrupted" and "--resume" in end.reason
    assert RunDirectory(tmp_path / "run").inbox.names() == [], "what is read is deleted, and a resumed run goes on"


def test_a_trial_alone_ends_with_its_best_prompt_and_the_others_go_on(tmp_path: Path) -> None:
    place, names = str(tmp_path / "run"), ("zot-0000", "zot-0001", "zot-0002")

    def first_and_last(trial_id: str) -> None:
        if trial_id == names[0]:
            request_stop(place, names[0], by="Ada")
            request_stop(place, names[2], by="Ada")

    done, ledger, _ = run_here(tmp_path, first_and_last, ENDLESS, SHORT, SHORT)
    assert done.status == "done"
    ends = {end.trial_id: (end.status, end.reason) for end in ledger.trial_ends}
    assert ends[names[0]] == ends[names[2]] == ("stopped", "stopped by Ada")
    assert ends[names[1]][0] == "done"
    assert {row.trial_id for row in ledger.steps} == {names[0], names[1]}, "the last one had not begun, and does not"
    told = {event.trial_id: event.message for event in ledger.events if event.kind == "stop"}
    assert told == dict.fromkeys((names[0], names[2]), "shall end, as Ada has asked for")
    assert RunDirectory(tmp_path / "run").prompt_of(names[0]) is not None
    assert {trial["trial_id"]: trial["status"] for trial in done.summary["trials"]}[names[0]] == "stopped"


def test_a_trial_that_has_ended_already_is_left_as_it_is(tmp_path: Path) -> None:
    place = str(tmp_path / "run")
    order = ("zot-0000", "zot-0001")

    def late(trial_id: str) -> None:
        if trial_id == order[1]:
            for name in order:
                request_stop(place, name, by="Ada")

    done, ledger, _ = run_here(tmp_path, late, SHORT, ENDLESS)
    assert done.status == "done"
    assert {end.trial_id: end.status for end in ledger.trial_ends} == {order[0]: "done", order[1]: "stopped"}
    told = {event.trial_id: event.message for event in ledger.events if event.kind == "stop"}
    assert told[order[0]] == "shall end, as Ada has asked for, but has ended already (done)"


def test_a_request_that_is_no_json_is_somebody_s(tmp_path: Path) -> None:
    inbox = RunDirectory(tmp_path / "run").inbox
    _, ledger, _ = run_here(tmp_path, lambda _: inbox.put("stop.json", b"\xff[1"), ENDLESS)
    assert ledger.events[0].message == "the run was stopped by somebody"


# ------------------------------------------------------------------------------------------------------- who is refused
def working(folder: Path) -> LedgerWriter:
    """Return the open ledger of a run that seems to work."""
    folder.mkdir()
    write_json(folder / "config.json", PLANS)
    return LedgerWriter(folder / "ledger.jsonl")


def test_a_run_that_is_not_there_or_not_working_is_not_stopped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunDirectoryError, match="a run must be there to be stopped"):
        request_stop(str(run))
    working(run).close()
    for _ in range(2):
        with pytest.raises(RunDirectoryError, match="only a run that is working can be stopped"):
            request_stop(f"file://{run}", "zot-0000")
    assert RunDirectory(run).inbox.names() == []
    told = CliRunner().invoke(tune.app, ["stop", str(run)])
    assert told.exit_code == 2 and len(told.stderr.splitlines()) == 1


def test_a_trial_that_is_not_there_is_told_those_that_are(tmp_path: Path) -> None:
    with working(tmp_path / "run"):
        with pytest.raises(ConfigError, match="got 'zot'; there are zot-0000, cma-0001"):
            request_stop(str(tmp_path / "run"), "zot")
        with pytest.raises(ConfigError, match="there are zot-0000"):
            request_stop(str(tmp_path / "run"), "../../zot-0000")
        (tmp_path / "run" / "config.json").unlink()
        with pytest.raises(ConfigError, match="try again in a moment"):
            request_stop(str(tmp_path / "run"), "zot-0000")
    assert not (tmp_path / "run" / ".requests").exists()


def test_a_link_in_place_of_the_requests_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with working(tmp_path / "run"):
        (tmp_path / "run" / ".requests").symlink_to(elsewhere)
        with pytest.raises(RunDirectoryError, match="is a link"):
            request_stop(str(tmp_path / "run"))
    assert list(elsewhere.iterdir()) == []


def test_a_request_of_before_does_not_stop_the_run_that_goes_on(tmp_path: Path) -> None:
    with working(tmp_path / "run"):
        request_stop(str(tmp_path / "run"))
    with kept(str(tmp_path / "run"), True, print) as directory:
        assert directory.inbox.names() == []


# ------------------------------------------------------------------------------------------------------- at a URI
def test_a_run_at_a_uri_is_stopped_by_an_object(store: ObjectStore) -> None:
    place = store.uri("stopped")
    store.write("stopped/config.json", json.dumps(PLANS).encode())
    with pytest.raises(RunDirectoryError, match="only a run that is working can be stopped"):
        request_stop(place)
    assert store.names("stopped") == ["config.json"], "the request is taken back"
    with pytest.raises(ConfigError, match="there are zot-0000, cma-0001"):
        request_stop(place, "zot")
    with kept(place, True, lambda message: None) as directory:
        request_stop(place, "cma-0001", by="Ada")
        request_stop(place, by="Ada")
        asked = threading.Event()
        with StopRequests(directory, asked.set) as stops:
            assert asked.wait(60)
        assert (stops.run, stops.trials) == ("Ada", {"cma-0001": "Ada"})
        assert directory.inbox.names() == []
