"""Runs as they are watched: found in folders and buckets, read as they grow, alive, silent or ended."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import beat, begun, config, ended, evaluation, noted, step, whole, write
from object_store import ObjectStore, object_store

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.watch.hub import Hub
from distributed_tuner.watch.places import LocalPlace, watched_place
from distributed_tuner.watch.story import LINES, Story
from distributed_tuner.watch.watched_run import SILENT_SECONDS, Seen, WatchedRun


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as started:
        yield started


def seen(folder: Path, *, whole: bool = True) -> Seen:
    return WatchedRun(LocalPlace(folder), "").look(60, whole=whole)


# -------------------------------------------------------------------------------------------------------------- places
def test_runs_are_found_in_folders_of_folders_and_not_within_runs_or_through_links(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "a")
    write(tmp_path / "runs" / "study" / "b")
    write(tmp_path / "runs" / "a" / "old")
    write(tmp_path / "elsewhere")
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "fake").mkdir()
    (tmp_path / "runs" / "fake" / "ledger.jsonl").symlink_to("/etc/passwd")
    place = watched_place(str(tmp_path / "runs"))
    assert place.runs() == ["a", "study/b"]
    assert watched_place(str(tmp_path / "runs" / "a")).runs() == [""]
    assert place.address("study/b") == str(tmp_path / "runs" / "study" / "b")


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_where_no_run_is_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirectoryError) as refused:
        watched_place(place)
    assert "\n" not in str(refused.value) and place in str(refused.value)


def test_a_file_of_a_run_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0"))
    (folder / "heartbeat.json").symlink_to("/etc/passwd")
    assert "heartbeat" in seen(folder).problem or seen(folder).problem.startswith("it cannot be read")


def test_a_run_at_a_uri_is_followed_and_only_what_is_new_is_fetched(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send() -> None:
        for name in ("config.json", "ledger.jsonl"):
            store.write(f"runs/mine/{name}", (folder / name).read_bytes())

    folder = write(tmp_path / "mine", *begun("zot-0"), *(step("zot-0", number) for number in range(1, 30)))
    send()
    place = watched_place(store.uri("runs"))
    monkeypatch.setattr(place, "look_seconds", 0.0)
    assert place.runs() == ["mine"] and watched_place(store.uri("runs/mine")).runs() == [""]
    run = WatchedRun(place, "mine")
    assert run.look(60, whole=True).summary["totals"]["queries"] == 58
    file, fetched = run._file, []
    monkeypatch.setattr(file, "read", lambda start, most, read=file.read: fetched.append(start) or read(start, most))
    before = (folder / "ledger.jsonl").stat().st_size
    write(folder, step("zot-0", 30))
    send()
    assert run.look(60, whole=True).summary["totals"]["queries"] == 60
    assert set(fetched) <= {0, before}
    store.clear("runs/mine")


def test_a_bucket_that_is_not_there_is_one_line(store: ObjectStore) -> None:
    with pytest.raises(RunDirectoryError, match="must name a bucket that is there") as refused:
        watched_place(store.uri("runs").replace("s3://bucket", "s3://another"))
    assert "\n" not in str(refused.value)


# -------------------------------------------------------------------------------------------------------------- states
def test_a_run_with_a_heartbeat_runs_and_says_how_its_oracles_stand(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0", at=1.0), step("zot-0", 1, at=2.0))
    beat(folder)
    found = seen(folder)
    assert found.state == "running" and found.beat is not None
    assert (found.beat.workers, found.beat.busy, found.beat.waiting) == (2, 1, 3)


def test_a_run_that_is_not_heard_of_is_silent_and_one_that_beats_again_runs(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0"))
    beat(folder, time=time.time() - 2 * SILENT_SECONDS)
    run = WatchedRun(LocalPlace(folder), "")
    found = run.look(60, whole=True)
    assert found.state == "silent" and found.quiet is not None and found.quiet > SILENT_SECONDS
    beat(folder, time=time.time() - SILENT_SECONDS - 1)  # of a clock that is behind, but it has moved
    run.place.look_seconds = 0.0
    run._next_look = 0.0
    assert run.look(60, whole=True).state == "running"


@pytest.mark.parametrize(("age", "state"), [(5.0, "running"), (5000.0, "silent")])
def test_a_run_of_before_there_were_heartbeats_is_known_by_its_last_row(tmp_path: Path, age: float, state: str) -> None:
    folder = write(tmp_path / "run", *begun("zot-0", at=time.time() - age))
    assert seen(folder).state == state


@pytest.mark.parametrize(("status", "state"), [("done", "done"), ("interrupted", "stopped"), ("failed", "failed")])
def test_a_run_that_has_ended(tmp_path: Path, status: str, state: str) -> None:
    assert seen(write(tmp_path / "run", *begun("zot-0"), *ended("zot-0", status=status))).state == state
    write(tmp_path / "run", *begun(resumed=True))
    assert seen(tmp_path / "run").state == "running"


def test_a_run_without_a_row_is_starting(tmp_path: Path) -> None:
    assert seen(write(tmp_path / "run")).state == "starting"


def test_of_a_run_that_has_ended_a_list_reads_the_summary_alone(tmp_path: Path) -> None:
    folder = whole(tmp_path / "run", metric=0.75)
    run = WatchedRun(LocalPlace(folder), "")
    listed = run.look(60, whole=False)
    assert (listed.state, listed.story, listed.listed.found.dev_metric) == ("done", None, 0.75)
    assert run.position == 0
    opened = run.look(60, whole=True)
    assert opened.story is not None and opened.summary["totals"]["queries"] == 80
    (folder / "summary.json").write_text("{}")  # of somebody else
    assert WatchedRun(LocalPlace(folder), "").look(60, whole=False).story is not None


# ------------------------------------------------------------------------------------------------------------- reading
def test_a_ledger_that_breaks_a_rule_is_shown_as_far_as_it_was_good(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0", version="99.0"), step("zot-0", 1))
    run = WatchedRun(LocalPlace(folder), "")
    run.place.look_seconds = 0.0
    assert run.look(60, whole=True).problem == ""
    with (folder / "ledger.jsonl").open("a") as file:
        file.write('{"type":"planet"}\n')
    for _ in range(2):
        found = run.look(60, whole=True)
        assert "written by version 99.0" in found.problem and "\n" not in found.problem
        assert found.summary["totals"]["queries"] == 2
    lines = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_text("".join(lines[:-1]))
    assert run.look(60, whole=True).problem == ""


def test_settings_that_nobody_wrote_are_a_problem_and_no_end(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0"), evaluation("zot-0", 3, 0.5))
    (folder / "config.json").write_text('{"trials": 7}')
    found = seen(folder)
    assert "config.json" in found.problem and found.summary["best"]["dev_metric"] == 0.5


def test_of_a_long_ledger_a_page_hears_how_much_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0"), step("zot-0", 1))
    run = WatchedRun(LocalPlace(folder), "")
    assert run.look(0, whole=True).share == 0
    assert run.look(60, whole=True).share == 1


def test_a_story_keeps_the_latest_lines(tmp_path: Path) -> None:
    story = Story()
    story.extend([*begun("zot-0"), *(noted(str(number)) for number in range(LINES + 5)), evaluation("zot-0", 1, 0.5)])
    lines = story.lines("accuracy")
    assert len(lines) == LINES and lines[-2].text == str(LINES + 4)
    assert lines[-1].text == "2 queries  train loss 0.5000  dev loss 0.5000  dev accuracy 0.5000  <- selected"


def test_new_runs_are_seen_and_those_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    write(tmp_path / "a", *begun("zot-0"))
    hub = Hub(LocalPlace(tmp_path))
    assert hub.names() == ["a"]
    write(tmp_path / "b", *begun("zot-0"), settings=config("other"))
    hub._next_list = 0.0
    assert hub.names() == ["a", "b"]
    assert [one["title"] for one in hub.cards()["runs"]] == ["a", "other"]
    with pytest.raises(RunDirectoryError, match="one of the list"):
        hub.page("../elsewhere")
