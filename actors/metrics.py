"""Prometheus metrics of a run: names and meanings in one table, and the recorders.

Ray exports them at the metrics port of every node as ``ray_<name>``. The dispatcher records what its pool does
(``PoolMetrics``), the driver what the trials do (``TrialMetrics``). Labels are few and bounded: Ray adds one for the
process already, so the run's name, which is that of its actors, makes no more series of them. Ray drops a gauge that
was not set for two of its intervals (20 s), so gauges are set again and again while they hold.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ray.util import metrics as ray_metrics

from distributed_tuner.values import Cost

WINDOW_SECONDS = 10.0  # the least that the busy fraction is taken over
LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # seconds
STATUSES = ("pending", "running", "paused", "terminated", "error")  # Tune's own words


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``meaning`` tells the unit; ``labels`` are those that Ray does not add itself."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ("run",)

    @property
    def exported(self) -> tuple[str, ...]:
        """The names of its series at the metrics port."""
        endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
        return tuple(f"ray_{self.name}{ending}" for ending in endings[self.kind])


QUERIES = Metric("prompt_tuner_queries", "counter", "Queries answered: candidates scored on a batch of examples.")
FORWARDS = Metric("prompt_tuner_forwards", "counter", "Forwards computed: candidates on single examples.")
TOKENS = Metric("prompt_tuner_tokens", "counter", "Prompt and text tokens of these forwards.")
USD = Metric(
    "prompt_tuner_usd",
    "counter",
    "US dollars spent, on queries or on proposals, at the given prices.",
    ("run", "spent_on"),
)
TILE_LATENCY = Metric(
    "prompt_tuner_tile_latency_seconds",
    "histogram",
    "Seconds from when a tile was first sent to an oracle until it was answered, losses and duplicates included.",
)
QUEUE_DEPTH = Metric("prompt_tuner_queue_depth", "gauge", "Tiles that wait for an oracle.")
BUSY_SECONDS = Metric(
    "prompt_tuner_busy_seconds", "counter", "Device seconds in which oracles computed tiles that were counted."
)
BUSY_FRACTION = Metric(
    "prompt_tuner_busy_fraction",
    "gauge",
    f"Share of the time that the oracles are up in which they have a tile, over the last {WINDOW_SECONDS:g} s or more.",
)
RETRIES = Metric("prompt_tuner_retries", "counter", "Tiles that were lost with an oracle and sent again.")
DUPLICATES = Metric("prompt_tuner_duplicates", "counter", "Tiles that took long and were given to another oracle too.")
ORACLES_UP = Metric("prompt_tuner_oracles_up", "gauge", "Oracle actors that have loaded their model and answer.")
ORACLE_RESTARTS = Metric("prompt_tuner_oracle_restarts", "counter", "Oracle actors that died and were started again.")
TRIALS = Metric("prompt_tuner_trials", "gauge", f"Trials by status: {', '.join(STATUSES)}.", ("run", "status"))
DEV_LOSS = Metric("prompt_tuner_trial_dev_loss", "gauge", "Dev loss of a trial's selected prompt.", ("run", "trial"))
DEV_METRIC = Metric(
    "prompt_tuner_trial_dev_metric", "gauge", "Dev metric of a trial's selected prompt.", ("run", "trial")
)
BUDGET_USED = Metric(
    "prompt_tuner_trial_budget_used",
    "gauge",
    "Share of a trial's budget that is spent: of the limit that it is nearest to.",
    ("run", "trial"),
)
PROPOSER_CALLS = Metric(
    "prompt_tuner_proposer_calls",
    "counter",
    "Requests to proposers whose answers could be used (outcome: used), or could not (none).",
    ("run", "outcome"),
)
RESTARTS = Metric(
    "prompt_tuner_restarts",
    "counter",
    "Restart stages by what was adopted: a proposal, a source trial's prompt, or none.",
    ("run", "adopted"),
)

POOL = (
    *(QUERIES, FORWARDS, TOKENS, USD, TILE_LATENCY, QUEUE_DEPTH, BUSY_SECONDS, BUSY_FRACTION),
    *(RETRIES, DUPLICATES, ORACLES_UP, ORACLE_RESTARTS),
)
TRIAL = (USD, TRIALS, DEV_LOSS, DEV_METRIC, BUDGET_USED, PROPOSER_CALLS, RESTARTS)
ALL = tuple(dict.fromkeys((*POOL, *TRIAL)))


def run_of(dispatcher: str) -> str:
    """Return the run by the name of its dispatcher: "mine-7-42" of "mine-7-42/0/dispatcher". The number counts pools,
    of which a run may start more than one."""
    pool = dispatcher.rpartition("/")[0]
    run, _, number = pool.rpartition("/")
    return run if run and number.isdigit() else pool


class Occupancy:
    """Busy fraction of the workers. Pure, except for the clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._last = clock()
        self._busy = self._up = 0  # actors now
        self._busy_seconds = self._up_seconds = 0.0

    def now(self, busy: int, up: int) -> float | None:
        """Say how many actors are busy and how many are up from here on.

        Returns:
            The share of the window that has ended with this, None while it has not, or no oracle was up.
        """
        time_now = self._clock()
        passed, self._last = time_now - self._last, time_now
        self._busy_seconds += passed * min(self._busy, self._up)
        self._up_seconds += passed * self._up
        self._busy, self._up = busy, up
        if time_now - self._began < WINDOW_SECONDS:
            return None
        share = self._busy_seconds / self._up_seconds if self._up_seconds > 0 else None
        self._began, self._busy_seconds, self._up_seconds = time_now, 0.0, 0.0
        return share


class _Recorded:
    """Ray's counterparts of some metrics, for one run."""

    def __init__(self, run: str, recorded: tuple[Metric, ...]) -> None:
        self._run = run
        self._of = {metric: _made(metric) for metric in recorded}

    def add(self, metric: Metric, value: float, **labels: str) -> None:
        """Add to a counter; nothing for zero, which Ray refuses."""
        if value > 0:
            self._of[metric].inc(value, tags={"run": self._run, **labels})

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._of[metric].set(value, tags={"run": self._run, **labels})

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Count a value in a histogram."""
        self._of[metric].observe(value, tags={"run": self._run, **labels})


def _made(metric: Metric) -> Any:
    match metric.kind:
        case "counter":
            return ray_metrics.Counter(metric.name, metric.meaning, metric.labels)
        case "gauge":
            return ray_metrics.Gauge(metric.name, metric.meaning, metric.labels)
        case "histogram":
            return ray_metrics.Histogram(metric.name, metric.meaning, list(LATENCIES), metric.labels)


class PoolMetrics:
    """Metrics of a dispatcher's pool. Calls cost microseconds, and never wait or fail without a scraper."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._recorded = _Recorded(run, POOL)
        self._occupancy = Occupancy(clock)
        self._share: float | None = None
        self._counted: dict[Metric, int] | None = None

    def tile_done(self, cost: Cost, latency: float) -> None:
        """A tile was answered and counted, ``latency`` seconds after it was first sent."""
        self._recorded.add(FORWARDS, cost.forwards)
        self._recorded.add(TOKENS, cost.tokens)
        self._recorded.add(USD, cost.usd, spent_on="queries")
        self._recorded.add(BUSY_SECONDS, cost.seconds)
        self._recorded.observe(TILE_LATENCY, latency)

    def request_done(self, queries: int) -> None:
        """A request was answered."""
        self._recorded.add(QUERIES, queries)

    def update(self, *, up: int, busy: int, waiting: int, retries: int, duplicates: int, restarts: int) -> None:
        """Record the state of the pool; called several times a second.

        up: oracles that answer. busy: those that have a tile. waiting: tiles that no oracle has. The others are totals;
        those before the first update are left out, since the dispatcher before this one has recorded them.
        """
        self._recorded.set(ORACLES_UP, up)
        self._recorded.set(QUEUE_DEPTH, waiting)
        share = self._occupancy.now(busy, up)
        self._share = self._share if share is None else share
        if self._share is not None:
            self._recorded.set(BUSY_FRACTION, self._share)
        totals = {RETRIES: retries, DUPLICATES: duplicates, ORACLE_RESTARTS: restarts}
        before = self._counted or totals
        for metric, total in totals.items():
            self._recorded.add(metric, total - before[metric])
        self._counted = totals


class TrialMetrics:
    """The driver's metrics of its trials."""

    def __init__(self, run: str) -> None:
        self._recorded = _Recorded(run, TRIAL)
        self._known: dict[tuple[Metric, str], float] = {}  # of which trial

    def update(self, statuses: Mapping[str, int]) -> None:
        """Say how many trials are in each status, every other second; statuses that are not named have none."""
        for status in STATUSES:
            self._recorded.set(TRIALS, statuses.get(status, 0), status=status)
        for (metric, trial), value in self._known.items():
            self._recorded.set(metric, value, trial=trial)

    def best(self, trial: str, loss: float, metric: float) -> None:
        """A trial's selected prompt scores so on dev."""
        self._set(DEV_LOSS, trial, loss)
        self._set(DEV_METRIC, trial, metric)

    def budget_used(self, trial: str, share: float) -> None:
        """A trial has spent this share of its budget."""
        self._set(BUDGET_USED, trial, share)

    def proposer_call(self, used: bool, usd: float) -> None:
        """A proposer was asked, for so many dollars."""
        self._recorded.add(PROPOSER_CALLS, 1, outcome="used" if used else "none")
        self._recorded.add(USD, usd, spent_on="proposals")

    def restart(self, adopted: str) -> None:
        """A restart stage has ended with a proposal, a source trial's prompt, or none adopted."""
        self._recorded.add(RESTARTS, 1, adopted=adopted)

    def _set(self, metric: Metric, trial: str, value: float) -> None:
        self._known[metric, trial] = value
        self._recorded.set(metric, value, trial=trial)
