"""Runs at URIs: what is one, what is sent and fetched, and when the store is away or somebody else is there."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from object_store import BUCKET, ObjectStore, object_store
from typer.testing import CliRunner

from distributed_tuner.errors import RunDirectoryError, StorageError
from distributed_tuner.ledger import EventRow, LedgerWriter, read
from distributed_tuner.runs.directory import kept, opened, write_json
from distributed_tuner.storage import Lease, Mirror, Remote, Uri, delivered, is_uri, lease, mirror, staging_folder


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wait for less than outside of tests, and work in folders of the test."""
    monkeypatch.setattr(mirror, "SEND_SECONDS", 0.1)
    monkeypatch.setattr(mirror, "LAST_SECONDS", 1.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(lease, "STALE_SECONDS", 3.0)
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("temporary")))


def quiet(message: str) -> None:
    """Say nothing."""


# ------------------------------------------------------------------------------------------------------- what is one
def test_a_uri_is_told_from_a_path() -> None:
    assert is_uri("s3://bucket/run") and is_uri("file:///run")
    assert not is_uri("runs/mine") and not is_uri("/runs/s3:/mine")


def test_a_uri_is_taken_apart_and_put_together() -> None:
    text = "s3://bucket/runs/mine?endpoint_override=127.0.0.1:9000&scheme=http"
    uri = Uri.parse(text)
    assert (uri.scheme, uri.bucket, uri.path) == ("s3", "bucket", "runs/mine")
    assert str(uri) == text
    assert str(uri.inside("tune")) == text.replace("mine", "mine/tune")
    assert str(Uri.parse("gs://bucket/runs/mine/")) == "gs://bucket/runs/mine"
    assert uri.local is None


def test_a_file_uri_is_a_path() -> None:
    assert Uri.parse("file:///nfs/my%20runs/a").local == Path("/nfs/my runs/a")
    with kept("file:///nowhere/at/all", False, quiet) as directory:
        assert (directory.path, directory.mirror) == (Path("/nowhere/at/all"), None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://host/runs", "begins with one of file://, gs://, s3://"),
        ("s3:///runs/mine", "must name a bucket"),
        ("file://host/runs", "an absolute path"),
        ("file://", "an absolute path"),
        ("s3://KEY:hunter2@bucket/runs", "AWS_ACCESS_KEY_ID"),
        ("gs://token@bucket/runs", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("s3://bucket/runs?secret_key=hunter2", "'secret_key'"),
        ("s3://bucket/runs?region=eu&session_token=hunter2", "'session_token'"),
        ("gs://bucket/runs?region=eu", "endpoint_override, location, retry_limit_seconds, scheme"),
        ("s3://bucket/runs/../../other", "'..'"),
        ("s3://bucket/runs#1", "'#'"),
    ],
)
def test_what_no_run_can_be_kept_at_is_refused_without_telling_secrets(text: str, says: str) -> None:
    with pytest.raises(RunDirectoryError) as refused:
        Uri.parse(text)
    assert says in str(refused.value)
    assert "hunter2" not in str(refused.value) and "token@" not in str(refused.value)


@pytest.mark.parametrize("command", ["report", "evaluate", "export", "run"])
def test_every_command_refuses_a_bad_uri_with_one_line(command: str) -> None:
    import tune

    arguments = {"export": ["--format", "text"]}.get(command, [])
    place = ["search_spaces/debug.yaml", "--out", "s3://K:S@b/x"] if command == "run" else ["s3://K:S@b/x"]
    result = CliRunner().invoke(tune.app, [command, *place, *arguments])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: the URI of a run must hold no keys")


def test_a_bucket_that_is_not_there_and_a_store_that_is_away_are_one_error(store: ObjectStore) -> None:
    with pytest.raises(RunDirectoryError, match="bucket that is there, but s3://none is not"):
        Remote(Uri.parse(store.uri("x").replace(BUCKET, "none")))
    with pytest.raises(RunDirectoryError, match="can be reached"):
        Remote(Uri.parse(store.uri("x").replace(str(store.port), "1")))


# ----------------------------------------------------------------------------------------------- sending and fetching
def event(number: int) -> EventRow:
    return EventRow(time=1.0, kind="warning", message=f"event {number}")


def ledger_lines(store: ObjectStore, path: str) -> int:
    return store.read(f"{path}/ledger.jsonl").count(b"\n")


def wait_until(condition: object, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "not within time"
        time.sleep(0.05)


def test_a_run_is_sent_while_it_goes_on_and_whole_at_its_end(store: ObjectStore) -> None:
    with kept(store.uri("sent"), False, quiet) as directory:
        write_json(directory.config, {"trials": []})
        with LedgerWriter(directory.ledger) as writer:
            writer.write(event(1))
            wait_until(lambda: "ledger.jsonl" in store.names("sent"))
            assert ledger_lines(store, "sent") == 1
            writer.write(event(2))
            wait_until(lambda: ledger_lines(store, "sent") == 2)
            assert [name for name in store.names("sent") if name.startswith(".claims/")]
        directory.keep_prompt("zot-0000", "some words")
        (directory.path / "tune").mkdir()
        (directory.path / "tune" / "theirs").write_text("Tune writes there itself")
    assert store.names("sent") == ["config.json", "ledger.jsonl", "trials/zot-0000/prompt.txt"]
    assert not directory.path.exists(), "the local copy is not needed any more"


def test_a_run_is_fetched_to_be_read_and_to_go_on(store: ObjectStore) -> None:
    place = store.uri("fetched")
    with kept(place, False, quiet) as directory:
        write_json(directory.config, {"trials": []})
        with LedgerWriter(directory.ledger) as writer:
            writer.write(event(1))
    store.write("fetched/tune/trials/large", b"x")
    with opened(place) as directory:
        assert [row.message for row in read(directory.ledger).events] == ["event 1"]
        assert not directory.tune.exists(), "checkpoints are not fetched"
        assert directory.name == place
        assert directory.tune_storage("trials") == store.uri("fetched/tune/trials")
    with kept(place, True, quiet) as directory:
        assert directory.read_config() == {"trials": []}
        with LedgerWriter(directory.ledger) as writer:
            writer.write(event(2))
    assert ledger_lines(store, "fetched") == 2


def test_a_new_run_needs_a_place_of_its_own(store: ObjectStore) -> None:
    store.write("taken/config.json", b"{}")
    store.write("other/x", b"")
    for place, what in (("taken", "holds a run"), ("other", "is not empty")):
        with pytest.raises(RunDirectoryError, match=what), kept(store.uri(place), False, quiet):
            raise AssertionError
    assert store.names("taken") == ["config.json"], "no claim is left behind"
    with kept(store.uri("nothing"), True, quiet) as directory, pytest.raises(RunDirectoryError, match="must hold"):
        directory.read_config()


def test_half_a_line_is_never_sent(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b'{"whole": 1}\n{"half": ')
    Mirror(tmp_path, Remote(Uri.parse(store.uri("half")))).send()
    assert store.read("half/ledger.jsonl") == b'{"whole": 1}\n'


def test_what_has_not_changed_is_not_sent_again(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("1")
    copy = Mirror(tmp_path, Remote(Uri.parse(store.uri("again"))))
    copy.send()
    store.write("again/summary.json", b"of somebody else")
    copy.send()
    assert store.read("again/summary.json") == b"of somebody else"
    (tmp_path / "summary.json").write_text("22")
    copy.send()
    assert store.read("again/summary.json") == b"22"


def test_what_a_command_writes_is_delivered_but_not_over_something_else(store: ObjectStore) -> None:
    for _ in range(2):
        with delivered(store.uri("analysis"), "analysis.json") as place:
            place.path.mkdir()
            (place.path / "analysis.json").write_text("{}")
            assert place.shown(place.path / "a.png") == store.uri("analysis/a.png")
    store.write("precious/thesis.txt", b"")
    with pytest.raises(RunDirectoryError, match=r"thesis\.txt"), delivered(store.uri("precious"), "analysis.json"):
        raise AssertionError


# ---------------------------------------------------------------------------------------------------- when it is away
class Away:
    """A store that can be switched off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off = False
        sent = Remote.send
        wrote = Remote.write

        def send(remote: Remote, *arguments: object) -> None:
            self._check()
            sent(remote, *arguments)  # type: ignore[arg-type]

        def write(remote: Remote, *arguments: object) -> None:
            self._check()
            wrote(remote, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Remote, "send", send)
        monkeypatch.setattr(Remote, "write", write)

    def _check(self) -> None:
        if self.off:
            raise OSError("no route to host")


def test_a_store_that_is_away_for_a_while_costs_nothing_and_is_told_once(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, said = Away(monkeypatch), list[str]()
    with kept(store.uri("hiccup"), False, said.append) as directory, LedgerWriter(directory.ledger) as writer:
        writer.write(event(1))
        wait_until(lambda: "ledger.jsonl" in store.names("hiccup"))
        away.off = True
        writer.write(event(2))
        wait_until(lambda: said)
        time.sleep(0.5)
        writer.write(event(3))
        away.off = False
        wait_until(lambda: len(said) == 2)
    assert "cannot be written (no route to host)" in said[0] and "can be written again" in said[1]
    assert len(said) == 2
    assert ledger_lines(store, "hiccup") == 3


def test_an_end_that_cannot_be_sent_is_kept_here_and_gone_on_from(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, place = Away(monkeypatch), store.uri("unsent")
    with pytest.raises(StorageError, match="its files are in") as told, kept(place, False, quiet) as directory:
        write_json(directory.config, {"trials": []})
        with LedgerWriter(directory.ledger) as writer:
            writer.write(event(1))
            wait_until(lambda: "ledger.jsonl" in store.names("unsent"))
            away.off = True
            writer.write(event(2))
    assert str(directory.path) in str(told.value) and told.value.exit_code == 1
    assert ledger_lines(store, "unsent") == 1
    away.off = False
    store.clear("unsent/.claims")
    with kept(place, True, quiet) as again:
        assert [row.message for row in read(again.ledger).events] == ["event 1", "event 2"]
    assert ledger_lines(store, "unsent") == 2


def test_what_another_machine_has_gone_on_with_wins_over_what_is_left_here(store: ObjectStore) -> None:
    place = store.uri("elsewhere")
    here = staging_folder(Uri.parse(place))
    here.mkdir(parents=True)
    (here / "ledger.jsonl").write_bytes(b'{"row": 1}\n{"row": 2}\n')
    store.write("elsewhere/config.json", b'{"trials": []}')
    store.write("elsewhere/ledger.jsonl", b'{"row": 1}\n{"row": 3}\n{"row": 4}\n')
    with kept(place, True, quiet) as directory:
        assert directory.path == here
        assert directory.ledger.read_bytes() == b'{"row": 1}\n{"row": 3}\n{"row": 4}\n'


# ---------------------------------------------------------------------------------------------- when somebody is there
def test_two_runs_never_write_to_one_uri(store: ObjectStore) -> None:
    place = store.uri("two")
    with kept(place, False, quiet) as directory:
        write_json(directory.config, {"trials": []})
        for resume in (False, True):
            refused = pytest.raises(RunDirectoryError, match=r"one run at a time writes to .*the process")
            with refused, kept(place, resume, quiet):
                raise AssertionError
    assert [name for name in store.names("two") if name.startswith(".claims/")] == []


def test_of_many_that_begin_at_once_one_at_most_goes_on(store: ObjectStore) -> None:
    begin = threading.Barrier(6)

    def take() -> bool:
        one = Lease(Remote(Uri.parse(store.uri("race"))), quiet)
        begin.wait()
        try:
            one.take(patient=False)
        except RunDirectoryError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        taken = [threads.submit(take) for _ in range(6)]
        assert sum(one.result() for one in taken) <= 1


def test_what_another_deletes_at_the_same_time_is_deleted(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = Remote(Uri.parse(store.uri("gone")))
    monkeypatch.setattr(remote, "exists", lambda _: True)  # as it was when it was asked
    remote.delete("claim.json")


def test_a_dead_runs_claim_is_outlived_and_the_dead_one_does_not_come_back(store: ObjectStore) -> None:
    remote, said = Remote(Uri.parse(store.uri("dead"))), list[str]()
    store.write("dead/config.json", json.dumps({"trials": []}).encode())
    dead = Lease(remote, quiet)
    dead.take(patient=False)
    with kept(store.uri("dead"), True, said.append):
        assert len(said) == 1 and "waiting" in said[0]
        time.sleep(0.3)
        with pytest.raises(lease.LeaseLost, match="taken over"):
            dead.renew()


def test_a_run_that_was_taken_over_stops_sending_and_says_so(store: ObjectStore) -> None:
    heard = threading.Event()
    with pytest.raises(StorageError, match="another run has taken over"), kept(store.uri("over"), False, quiet) as mine:
        assert mine.mirror is not None
        mine.mirror.on_lost = heard.set
        write_json(mine.config, {"trials": []})
        wait_until(lambda: "config.json" in store.names("over"))

        def cleared() -> bool:
            """Take the claims away, once more where one was being renewed meanwhile."""
            store.clear("over/.claims")
            return heard.wait(0.5)

        wait_until(cleared, 300)  # it only ends a hang
        write_json(mine.config, {"trials": ["mine"]})
    assert store.read("over/config.json") == b'{\n "trials": []\n}\n'
