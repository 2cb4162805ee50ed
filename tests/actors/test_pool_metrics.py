"""Prometheus metrics: the table and its page, the arithmetic, and a real scrape of a node's metrics port."""

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuner_runs import wait_for

from actors.metrics import ALL, BUSY_FRACTION, POOL, WINDOW_SECONDS, Occupancy, PoolMetrics, TrialMetrics, run_of
from distributed_tuner.config.oracle import AnalyticOracleConfig, Tile
from distributed_tuner.values import Batch, Cost, Example, Point, PromptSpec, Request

CONFIG = AnalyticOracleConfig(kind="analytic", width=4, actors=2, threads=1, tile=Tile(candidates=2, examples=3))
PAGE = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def test_names_are_of_one_family_and_each_stands_once() -> None:
    names = [metric.name for metric in ALL]
    assert len(set(names)) == len(names)
    for metric in ALL:
        assert metric.name.startswith("prompt_tuner_")
        assert not metric.name.endswith(("_total", "_bucket", "_sum", "_count")), "Ray adds the ending"
        assert metric.labels[0] == "run" and set(metric.labels) <= {"run", "trial", "status", "outcome"} | {
            "adopted",
            "spent_on",
        }


def test_the_page_tells_of_every_metric_as_the_code_does() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for metric in ALL:
        name = f"ray_{metric.name}" + {"counter": "_total"}.get(metric.kind, "")
        assert f"| `{name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.meaning} |" in page
    assert page.count("| `ray_prompt_tuner_") == len(ALL)


@pytest.mark.parametrize(
    ("dispatcher", "run"),
    [("mine-7-42/0/dispatcher", "mine-7-42"), ("mine-7-42/11/dispatcher", "mine-7-42"), ("mine/dispatcher", "mine")],
)
def test_a_run_is_told_by_its_dispatchers_name(dispatcher: str, run: str) -> None:
    assert run_of(dispatcher) == run


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_busy_fraction_is_the_share_of_the_time_that_actors_were_up() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    assert occupancy.now(0, 2) is None
    clock.now += 2.0  # nobody has anything to do
    assert occupancy.now(1, 2) is None
    clock.now += 4.0  # one of two
    assert occupancy.now(2, 2) is None
    clock.now += 6.0  # both
    assert occupancy.now(2, 2) == pytest.approx((4 * 1 + 6 * 2) / (12 * 2))
    clock.now += WINDOW_SECONDS
    assert occupancy.now(0, 2) == 1.0, "a window begins where the last one ended"


def test_without_an_actor_that_is_up_there_is_no_busy_fraction() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    clock.now += 3 * WINDOW_SECONDS
    assert occupancy.now(0, 1) is None
    clock.now += WINDOW_SECONDS
    assert occupancy.now(0, 1) == 0.0


def test_an_actor_that_has_died_with_tiles_is_not_busy_for_more_than_it_is_up() -> None:
    clock = Clock()
    occupancy = Occupancy(clock)
    occupancy.now(2, 1)  # the tiles of the one that died are not back yet
    clock.now += WINDOW_SECONDS
    assert occupancy.now(2, 1) == 1.0


def test_what_is_known_of_a_trial_is_told_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray forgets gauges that are not set again, and a trial may take minutes between two reports."""
    told: list[tuple[str, str | None, float]] = []
    monkeypatch.setattr(
        "actors.metrics._Recorded.set",
        lambda self, metric, value, **labels: told.append((metric.name, labels.get("trial"), value)),
    )
    trials = TrialMetrics("mine")
    trials.best("zot-0001", 0.5, 0.75)
    trials.budget_used("zot-0001", 0.25)
    first = [entry for entry in told if entry[1]]
    assert len(first) == 3
    for _ in range(2):
        told.clear()
        trials.update({})
        assert [entry for entry in told if entry[1]] == first
    told.clear()
    clock = Clock()
    pool = PoolMetrics("mine", clock)
    for _ in range(3):
        pool.update(up=1, busy=1, waiting=0, retries=0, duplicates=0, restarts=0)
        clock.now += WINDOW_SECONDS * 0.75
    assert [value for name, _, value in told if name == BUSY_FRACTION.name] == [1.0]
    pool.update(up=1, busy=1, waiting=0, retries=0, duplicates=0, restarts=0)
    assert [value for name, _, value in told if name == BUSY_FRACTION.name] == [1.0, 1.0], "before a window's end, too"


# ---------------------------------------------------------------------------------------------------- a real scrape
def scrape() -> Samples:
    """Return what the first node's metrics port shows of ours, without the labels that Ray adds."""
    import ray
    from prometheus_client.parser import text_string_to_metric_families

    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        text = answer.read().decode()
    kept = {"run", "trial", "status", "outcome", "adopted", "spent_on", "le"}
    return {
        (sample.name, frozenset((name, value) for name, value in sample.labels.items() if name in kept)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("ray_prompt_tuner_")
    }


def value_of(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def seen(names: set[str], run: str) -> Callable[[], Samples | None]:
    """Return a condition: all these names are there for a run."""

    def there() -> Samples | None:
        samples = scrape()
        shown = {name for name, labels in samples if ("run", run) in labels}
        return samples if names <= shown else None

    return there


@pytest.fixture
def told_here() -> None:
    """Record every metric once in this process."""
    clock = Clock()
    pool = PoolMetrics("here", clock)
    pool.update(up=3, busy=1, waiting=0, retries=10, duplicates=10, restarts=10)  # of a dispatcher before this one
    clock.now += WINDOW_SECONDS
    pool.update(up=3, busy=1, waiting=7, retries=13, duplicates=12, restarts=11)
    pool.tile_done(Cost(2, 16, 320, 0.25, 0.125), 0.3)
    pool.request_done(2)
    trials = TrialMetrics("here")
    trials.best("zot-0001", 0.5, 0.75)
    trials.update({"running": 2, "terminated": 1})
    trials.budget_used("zot-0001", 0.25)
    trials.proposer_call(True, 0.5)
    trials.proposer_call(False, 0.0)
    trials.restart("source_trial")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster", "told_here")
def test_every_metric_appears_at_the_metrics_port_under_the_name_that_is_promised() -> None:
    names = {name for metric in ALL for name in metric.exported}
    samples: Samples = wait_for(seen(names, "here"))
    assert value_of(samples, "ray_prompt_tuner_oracles_up", run="here") == 3
    assert value_of(samples, "ray_prompt_tuner_queue_depth", run="here") == 7
    assert value_of(samples, "ray_prompt_tuner_retries_total", run="here") == 3
    assert value_of(samples, "ray_prompt_tuner_duplicates_total", run="here") == 2
    assert value_of(samples, "ray_prompt_tuner_oracle_restarts_total", run="here") == 1
    assert value_of(samples, "ray_prompt_tuner_forwards_total", run="here") == 16
    assert value_of(samples, "ray_prompt_tuner_busy_seconds_total", run="here") == 0.25
    assert value_of(samples, "ray_prompt_tuner_busy_fraction", run="here") == pytest.approx(1 / 3)
    assert value_of(samples, "ray_prompt_tuner_usd_total", run="here", spent_on="queries") == 0.125
    assert value_of(samples, "ray_prompt_tuner_usd_total", run="here", spent_on="proposals") == 0.5
    assert value_of(samples, "ray_prompt_tuner_tile_latency_seconds_count", run="here") == 1
    assert value_of(samples, "ray_prompt_tuner_tile_latency_seconds_bucket", run="here", le="0.5") == 1
    assert value_of(samples, "ray_prompt_tuner_tile_latency_seconds_bucket", run="here", le="0.2") == 0
    assert value_of(samples, "ray_prompt_tuner_trials", run="here", status="running") == 2
    assert value_of(samples, "ray_prompt_tuner_trials", run="here", status="error") == 0
    assert value_of(samples, "ray_prompt_tuner_trial_dev_metric", run="here", trial="zot-0001") == 0.75
    assert value_of(samples, "ray_prompt_tuner_proposer_calls_total", run="here", outcome="none") == 1
    assert value_of(samples, "ray_prompt_tuner_restarts_total", run="here", adopted="source_trial") == 1


@pytest.fixture
def pool(ray_cluster: None) -> Iterator[Any]:
    from actors.pool.pool import Pool

    started = Pool.start(CONFIG, "metrics/0")
    yield started
    started.stop()


def request(count: int) -> Request:
    examples = tuple(Example(f"e-{i}", f"good film {i}", " It was", i % 2) for i in range(6))
    candidates = tuple(Point(np.full(8, 0.1 * i, dtype=np.float32)) for i in range(count))
    return Request(
        candidates, Batch(examples, (" bad", " good"), "train"), PromptSpec(2, "zeros", "", "prefix", "paper")
    )


@pytest.mark.ray
def test_a_pool_tells_what_it_did(pool: Any) -> None:
    answered = [pool.oracle.evaluate(request(count)).cost for count in (4, 6)]
    cost = sum(answered, Cost())
    always = {name for metric in POOL for name in metric.exported} - {
        *("ray_prompt_tuner_usd_total", "ray_prompt_tuner_retries_total", "ray_prompt_tuner_duplicates_total"),
        "ray_prompt_tuner_oracle_restarts_total",
    }
    samples: Samples = wait_for(seen(always, "metrics"))
    assert value_of(samples, "ray_prompt_tuner_queries_total", run="metrics") == 10 == cost.queries
    assert value_of(samples, "ray_prompt_tuner_forwards_total", run="metrics") == 60 == cost.forwards
    assert value_of(samples, "ray_prompt_tuner_tokens_total", run="metrics") == cost.tokens
    assert value_of(samples, "ray_prompt_tuner_queue_depth", run="metrics") == 0
    tiles = pool.statistics().tiles
    assert value_of(samples, "ray_prompt_tuner_tile_latency_seconds_count", run="metrics") == tiles
    assert wait_for(lambda: value_of(scrape(), "ray_prompt_tuner_oracles_up", run="metrics") == 2)
    assert 0 <= samples["ray_prompt_tuner_busy_fraction", frozenset({("run", "metrics")})] <= 1


@pytest.mark.ray
def test_actors_are_called_by_what_they_are(pool: Any) -> None:
    """Ray takes an actor's repr, as it is when its constructor has ended, for log lines and its dashboard."""
    import ray

    actors = [ray.get_actor(f"metrics/0/{name}") for name in ("oracle-0", "oracle-1", "dispatcher")]
    said = [ray.get(actor.__ray_call__.remote(lambda self: repr(self))) for actor in actors]
    assert said == ["oracle-0(analytic-logistic on cpu)", "oracle-1(analytic-logistic on cpu)", "dispatcher"]
