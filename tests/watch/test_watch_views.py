"""What the page shows, as plain data: the list, one run, several runs."""

import json
from pathlib import Path

import pytest
from made_runs import HOSTILE, beat, begun, config, evaluation, noted, restarted, step, whole, write

from distributed_tuner.runs.recorded_config import RecordedBudget
from distributed_tuner.watch.cards import card, trial_share
from distributed_tuner.watch.comparison import comparison
from distributed_tuner.watch.listed import ListedTrial
from distributed_tuner.watch.places import LocalPlace
from distributed_tuner.watch.run_page import MOST_TRIALS, SPARKS, run_page
from distributed_tuner.watch.watched_run import Seen, WatchedRun


def seen(folder: Path) -> Seen:
    return WatchedRun(LocalPlace(folder), "").look(60, whole=True)


def running(folder: Path) -> Path:
    rows = [*begun("zot-0"), *(step("zot-0", number) for number in range(1, 20)), evaluation("zot-0", 20, 0.75)]
    write(folder, *rows, *restarted("zot-0"), noted("a worker was lost"))
    beat(folder)
    return folder


# ---------------------------------------------------------------------------------------------------------------- list
def test_the_line_of_a_run_says_how_good_how_far_and_how_sure(tmp_path: Path) -> None:
    line = card(seen(running(tmp_path / "mine")))
    assert (line["title"], line["state"], line["metric"]) == ("mine", "running", "accuracy")
    assert line["dev"] == {"value": "75.0 %", "interval": "57.9 to 86.7"}
    assert line["test"] == {"value": "—", "interval": ""}
    assert line["share"] == 0.6 and line["trials"] == "0 of 1 ended, 1 under way"


def test_the_time_that_is_left_is_told_of_running_runs_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0", at=100.0), step("zot-0", 10, at=130.0))
    beat(folder)
    assert card(seen(folder))["left"] == "2 min 0 s"  # 20 of 100 queries in 30 s
    assert card(seen(whole(tmp_path / "ended")))["left"] == ""


@pytest.mark.parametrize(
    ("trial", "budget", "share"),
    [
        (ListedTrial(status="unfinished", queries=30, tokens=900), RecordedBudget(queries=100, tokens=1000), 0.9),
        (ListedTrial(status="stopped", queries=30), RecordedBudget(queries=100), 1.0),
        (ListedTrial(status="unfinished", queries=300), RecordedBudget(queries=100), 1.0),
        (ListedTrial(status="pending"), None, 0.0),
    ],
)
def test_the_share_of_a_budget_is_that_of_the_limit_that_is_nearest(
    trial: ListedTrial, budget: RecordedBudget | None, share: float
) -> None:
    assert trial_share(trial, budget) == share


# ----------------------------------------------------------------------------------------------------------------- run
def test_a_page_of_a_run_has_curves_trials_restarts_words_and_lines(tmp_path: Path) -> None:
    page = run_page(seen(running(tmp_path / "run")))
    assert (page["head"]["workers"], page["head"]["busy"], page["head"]["waiting"]) == (2, 1, 3)
    assert [plot["id"] for plot in page["curves"]["plots"]] == ["dev", "loss", "time", "candidates"]
    assert "at most 512 points" in page["curves"]["rule"]
    (trial,) = page["trials"]["lines"]
    assert (trial["trial"], trial["status"], trial["dev"], trial["best"]) == ("zot-0", "running", "75.0", True)
    assert page["restarts"][0]["text"] == "Sort the messages" and page["restarts"][0]["adopted"] == "proposal"
    assert page["answers"][0]["answer"] == "1. Sort the messages"
    assert page["log"][0]["text"] == "a worker was lost"
    json.dumps(page, allow_nan=False)


def test_a_page_before_the_first_evaluation_has_no_holes(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", *begun("zot-0"), settings=config("run", trials=("zot-0", "zot-1")))
    page = run_page(seen(folder))
    assert page["curves"]["plots"] == [] and page["head"]["dev"]["value"] == "—"
    assert [line["status"] for line in page["trials"]["lines"]] == ["running", "pending"]
    json.dumps(page, allow_nan=False)


def test_what_is_much_is_cut_and_counted(tmp_path: Path) -> None:
    names = tuple(f"zot-{number}" for number in range(MOST_TRIALS + 7))
    evaluations = [evaluation("zot-0", number, 0.5) for number in range(1, 5 * SPARKS)]
    long = restarted("zot-0", text=HOSTILE * 50, answer=HOSTILE * 500)
    page = run_page(
        seen(write(tmp_path / "run", *begun(*names), *evaluations, *long, settings=config("run", trials=names)))
    )
    assert len(page["trials"]["lines"]) == MOST_TRIALS and page["trials"]["left_out"] == 7
    spark = next(line["spark"] for line in page["trials"]["lines"] if line["trial"] == "zot-0")
    assert len(spark) <= SPARKS and spark[-1][0] == 2 * (5 * SPARKS - 1)
    assert page["answers"][0]["cut"] > 0 and len(page["restarts"][0]["text"]) <= 300


# ---------------------------------------------------------------------------------------------------------- comparison
def test_runs_are_compared_on_the_same_axes_with_the_settings_that_differ(tmp_path: Path) -> None:
    whole(tmp_path / "a", metric=0.7, rho=0.1)
    whole(tmp_path / "b", metric=0.8, rho=0.2)
    place = LocalPlace(tmp_path)
    page = comparison([WatchedRun(place, name).look(60, whole=True) for name in ("a", "b")])
    assert [(run["run"], run["dev"]["value"]) for run in page["runs"]] == [("a", "70.0 %"), ("b", "80.0 %")]
    assert page["settings"]["lines"] == [{"name": "stages.0.optimizer.rho", "values": ["0.1", "0.2"]}]
    (dev, loss) = page["curves"]["plots"]
    assert [line["name"] for line in dev["lines"]] == ["a", "b"] and dev["lines"][1]["y"] == [80.0]
    assert loss["lines"][0]["x"] == [80.0]
    assert [dot["metric"] for dot in page["costs"]["dots"]] == [70.0, 80.0]
    assert page["costs"]["y_title"].startswith("dev ")  # none has been tested
    json.dumps(page, allow_nan=False)


def test_queries_of_a_run_are_those_of_all_its_trials_in_the_order_of_time(tmp_path: Path) -> None:
    names = ("zot-0", "zot-1")
    rows = [
        step("zot-0", 10, at=1.0),
        step("zot-1", 20, at=2.0),
        evaluation("zot-0", 15, 0.5, at=3.0),
        evaluation("zot-1", 30, 0.75, at=4.0),
    ]
    folder = write(tmp_path / "run", *begun(*names, at=0.5), *rows, settings=config("run", trials=names))
    (line,) = comparison([seen(folder)])["curves"]["plots"][0]["lines"]
    assert line["x"] == [30 + 40, 30 + 60] and line["y"] == [50.0, 75.0]


def test_nothing_that_can_be_compared_is_an_empty_page() -> None:
    page = comparison([])
    assert page["runs"] == [] and page["curves"]["plots"] == [] and page["costs"] is None
