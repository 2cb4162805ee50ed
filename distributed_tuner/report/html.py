"""``report.html``: one file that needs neither network nor server. Numbers, tables and ink are left to the others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, model_validator

from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.ledger.digest import Digest, digest
from distributed_tuner.ledger.rows import Score
from distributed_tuner.report import figure_data, figures, formatting, lineage_figure, tables
from distributed_tuner.report.answers import answers
from distributed_tuner.report.lineage import lineage_data
from distributed_tuner.report.plotly_script import packed_plotly
from distributed_tuner.report.restarts import restarts
from distributed_tuner.report.shown_trials import IN_TABLE
from distributed_tuner.report.summary import summarize, write_summary
from distributed_tuner.runs.recorded_config import Recorded
from distributed_tuner.storage.files import write_text
from distributed_tuner.storage.json_files import M, Told, read_told

if TYPE_CHECKING:
    import plotly.graph_objects as go

_HERE = Path(__file__).parent
_MOST_EVENTS = 200


class Plot(NamedTuple):
    """A figure with its place in the page; ``caption`` says how to read it."""

    id: str
    title: str
    caption: str
    figure: "go.Figure"
    wide: bool = False


class Token(Told):
    """The vocabulary entry nearest to a prompt row, and its cosine with it if known."""

    token: str
    cosine: Score = None

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        match value:
            case str():
                return {"token": value}
            case [token, cosine]:
                return {"token": token, "cosine": cosine}
        return value


class ShownDecoding(Told):
    """How answers are generated."""

    max_new_tokens: int | None = None


class ShownWording(Told):
    """Text around a prompt and its example."""

    source: str = ""
    label_words: tuple[str, ...] = ()
    decoding: ShownDecoding | None = None


class ShownPrompt(Told):
    """Content of ``best/prompt.json`` for the page; empty if the run has none.

    Nearest tokens are strings, [token, cosine] pairs or objects of these; ``cosines`` may stand beside strings.
    """

    trial_id: str = ""
    text: str | None = None
    words: str | None = None
    length: int = 0
    layout: str = ""
    model: str = ""
    template: ShownWording = Field(default_factory=ShownWording)
    nearest_tokens: tuple[Token, ...] = ()
    cosines: tuple[Score, ...] = ()

    @property
    def tokens(self) -> list[Token]:
        """The nearest tokens with what is known of their cosines."""
        beside = [*self.cosines, *[None] * len(self.nearest_tokens)]
        return [
            one if one.cosine is not None else one.model_copy(update={"cosine": cosine})
            for one, cosine in zip(self.nearest_tokens, beside, strict=False)
        ]


def write_report(run_dir: Path | str, found: Digest | None = None) -> Path:
    """Write ``report.html`` and ``summary.json`` of the run in ``run_dir`` from what it wrote down; return the page.

    Reads ``ledger.jsonl`` unless ``found`` is what it comes to, and ``config.json`` and ``best/prompt.json`` where they
    exist.

    Raises:
        RunDirectoryError: there is no ledger, or one of the JSON files is not as a run writes it.
        LedgerError: the ledger is malformed.
    """
    run_dir = Path(run_dir)
    path = run_dir / "ledger.jsonl"
    if not path.is_file():
        raise RunDirectoryError(f"A run directory holds a ledger.jsonl, found none in {run_dir}. Give another folder.")
    found = found or digest(path)
    config = _read(run_dir / "config.json", Recorded)
    summary = summarize(found, config)
    write_summary(run_dir / "summary.json", summary)
    return _write_page(run_dir, found, config, summary, "")


def write_working_report(run_dir: Path, found: Digest, now: float) -> Path:
    """Write ``report.html`` alone, of a run that is working; return it. ``now``: in unix seconds.

    Raises:
        RunDirectoryError: a JSON file is not as a run writes it.
    """
    config = _read(run_dir / "config.json", Recorded)
    return _write_page(run_dir, found, config, summarize(found, config), _day(now))


def _write_page(run_dir: Path, found: Digest, config: Recorded, summary: Mapping[str, Any], as_of: str) -> Path:
    prompt = _read(run_dir / "best" / "prompt.json", ShownPrompt)
    page = run_dir / "report.html"
    write_text(page, render(found, config, prompt, summary, run_dir, as_of))
    return page


def render(
    digest: Digest,
    config: Recorded,
    prompt: ShownPrompt,
    summary: Mapping[str, Any],
    run_dir: Path,
    as_of: str = "",
) -> str:
    """Return the page. ``prompt`` is ``best/prompt.json``, empty when the run has none. ``as_of``: the moment of the
    numbers of a run that is working."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    plots = _plots(digest, summary)
    lineage = _lineage(digest, summary)
    drawn = plots if lineage is None else [*plots, lineage]
    events = tables.event_lines(digest)
    return environment.get_template("template.html.j2").render(
        title=_title(digest, config),
        status="working" if as_of else summary["status"],
        as_of=as_of,
        facts=_facts(digest, config),
        headline=tables.headline(summary, config),
        tiles=tables.tiles(summary, config),
        metric=formatting.MetricWords(summary["best"]["metric"]),
        methods=tables.method_lines(summary),
        trial_columns=tables.trial_columns(summary),
        trials=tables.trial_lines(summary),
        trials_left_out=max(0, len(summary["trials"]) - IN_TABLE),
        costs=tables.cost_lines(summary, config),
        totals=summary["totals"],
        duration=formatting.duration,
        plots=plots,
        lineage=lineage,
        restarts=restarts(digest, summary),
        answers=answers(digest, summary),
        plot_json=_script_json({plot.id: json.loads(plot.figure.to_json()) for plot in drawn}),
        plotly=packed_plotly() if drawn else "",
        prompt=prompt,
        tokens=prompt.tokens,
        best_files=_best_files(run_dir),
        run_dir=str(run_dir),
        command=config.command,
        warnings=list(digest.data_warnings),
        events=events[-_MOST_EVENTS:],
        events_left_out=max(0, len(events) - _MOST_EVENTS) + digest.events_seen - len(digest.events),
        config_json=tables.pretty_json(_shortened(config.settings.tree or config.tree)),
        head=None if (name := summary["best"].get("head")) in (None, "label_words", "none") else name,
        interval=_interval(summary["best"], summary["best"]["metric"]),
        together=_together(summary),
        versions=config.versions,
        model=config.model,
    )


def _shortened(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the hundreds of words that a head reads."""
    head = experiment.get("head")
    if not isinstance(head, Mapping) or not head.get("answer_words"):
        return dict(experiment)
    return {**experiment, "head": {**head, "answer_words": f"{len(head['answer_words'])} words: see config.json"}}


def _interval(line: Mapping[str, Any], name: str) -> tuple[str, str, str] | None:
    """Return a test accuracy with its interval, spelled; None of other metrics."""
    metric = formatting.MetricWords(name)
    if line.get("test_interval") is None:
        return None
    low, high = line["test_interval"]
    return metric.value(line["test_metric"]), metric.value(low), metric.value(high)


def _together(summary: Mapping[str, Any]) -> str:
    """Return what the best prompts come to that are read together; nothing where the best is alone."""
    line = summary["best"].get("ensemble")
    if line is None:
        return ""
    interval = _interval(line, summary["best"]["metric"])
    within = "" if interval is None else f" (95 % interval of its test accuracy: {interval[1]} to {interval[2]})"
    return (
        f'"{formatting.ensemble(line)}" are the best that the best trial has evaluated, each with its head, their'
        f" log-probabilities averaged{within}{formatting.reading(line)}."
    )


def _plots(digest: Digest, summary: Mapping[str, Any]) -> list[Plot]:
    """Draw the figures that have something to show."""
    methods = figure_data.methods_of(summary)
    metric = formatting.MetricWords(summary["best"]["metric"])
    loss = "Loss of the recommended prompt on the train examples, not of the perturbed candidates. Lower is better."
    best = "Best score of a recommended prompt so far on the dev examples, which select. Higher is better."
    seen = "Mean loss of the candidates asked for, over neighbouring steps: what the optimizer sees, not its prompt."
    curves: list[tuple[str, str, str, figure_data.Curves]] = [
        ("loss-queries", "Train loss against queries", loss, figure_data.train_loss_data(digest, summary, "queries")),
        (
            "dev-queries",
            f"Dev {metric.name} against queries",
            best,
            figure_data.dev_metric_data(digest, summary, "queries"),
        ),
        ("loss-time", "Train loss against wall clock", loss, figure_data.train_loss_data(digest, summary, "seconds")),
        (
            "dev-time",
            f"Dev {metric.name} against wall clock",
            best,
            figure_data.dev_metric_data(digest, summary, "seconds"),
        ),
        ("candidates", "Candidate losses against queries", seen, figure_data.candidate_loss_data(digest, summary)),
    ]
    plots = [
        Plot(name, title, said, figures.curve_figure(data, methods)) for name, title, said, data in curves if data.bands
    ]
    dots = figure_data.test_cost_data(summary)
    if dots.dots:
        said = "One mark a trial: what it cost from its budget and what its selected prompt scored on test, once."
        plots.append(Plot("test-cost", f"Test {metric.name} against cost", said, figures.dots_figure(dots, methods)))
    if len(plots) % 2:
        plots[-1] = plots[-1]._replace(wide=True)
    return plots


def _lineage(digest: Digest, summary: Mapping[str, Any]) -> Plot | None:
    """Draw who went on with whose prompt, where there were restarts."""
    if not digest.restarts:
        return None
    data = lineage_data(digest, summary)
    said = (
        "One line a trial. It changes its colour where the trial went on from another prompt: a proposal begins a new"
        " colour, a source trial's prompt brings its own. Grey is a trial's own start that no other took over."
    )
    if data.left_out:
        metric = formatting.MetricWords(summary["best"]["metric"])
        said += (
            f" The {len(data.lanes)} trials with the best dev {metric.name} are shown; the ledger has"
            f" {data.left_out:,} more."
        )
    if data.arrows:
        said += " Arrows lead from the trial whose settings were taken over, solid where its prompt was as well."
    return Plot("lineage", "Whose prompt each trial went on with", said, lineage_figure.lineage_figure(data))


def _title(digest: Digest, config: Recorded) -> str:
    run = next((session.run for session in digest.sessions if session.run), None)
    return run.name if run else config.settings.name or "run"


def _facts(digest: Digest, config: Recorded) -> list[tuple[str, str]]:
    """Return what was run on what, as short name-value pairs; what is unknown is left out."""
    task, model, sessions = config.task, config.model, digest.sessions
    run = next((session.run for session in sessions if session.run), None)
    sizes = [f"{split} {size:,}" for split in ("train", "dev", "test") if (size := getattr(task, split))]
    device = " · ".join(str(model[key]) for key in ("dtype", "device") if model.get(key))
    labels = task.label_words
    shown = labels.values() if isinstance(labels, dict) else labels
    pairs = [
        ("Task", task.name),
        ("Examples", " · ".join(sizes)),
        ("Label words", ", ".join(word.strip() for word in shown)),
        ("Model", model.get("model")),
        ("Computed in", device),
        ("Calibrated", tables.calibration(digest)),
        ("Seed", run.seed if run else None),
        ("Started", _day(sessions[0].first) if sessions else None),
        ("Resumed", f"{len(sessions) - 1} times" if len(sessions) > 1 else None),
    ]
    return [(name, str(value)) for name, value in pairs if value not in (None, "")]


def _day(unix: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _best_files(run_dir: Path) -> list[str]:
    best = run_dir / "best"
    return sorted(path.relative_to(run_dir).as_posix() for path in best.rglob("*") if path.is_file())


def _script_json(value: object) -> str:
    """Return JSON that may stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(path: Path, kind: type[M]) -> M:
    """Return what is in ``path``; what an empty object tells when the file is missing, as after an early death."""
    return read_told(path, kind, nan=kind is ShownPrompt) if path.is_file() else kind()
