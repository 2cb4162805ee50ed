"""Formatting of numbers for people: counts, seconds, dollars, metrics. Which are shown is left to `tables`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed_tuner.ledger.rows import ScreenRow, SurveyRow
from distributed_tuner.shown import plain as plain_text

UNKNOWN = "—"


def count(value: float | None) -> str:
    """Return a whole number with thousands separated, "1,234"."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """Return a large number to three digits with k, M or G: "20.5 M"."""
    if value is None:
        return UNKNOWN
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g} {unit}" if abs(value) < 999.5 * size else f"{value / size:,.0f} {unit}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: "0.4 s", "42 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def money(usd: float | None) -> str:
    """Return dollars: "$0", "$0.0042", "$12.30"."""
    if usd is None:
        return UNKNOWN
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 0.1 else f"${usd:.2g}"


def loss(value: float | None) -> str:
    """Return a loss to four decimals."""
    return UNKNOWN if value is None else f"{value:.4f}"


def one_line(text: str, most: int) -> str:
    """Return a text of a model's on one line of at most ``most`` characters, without those that steer a terminal."""
    line = " ".join(plain_text(text).split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."


BASELINES = {
    "manual_prompt": "manual prompt",
    "manual_prompt_with_head": "manual prompt with head",
    "bag_of_words": "bag of words, no model",
}


def survey(row: SurveyRow) -> str:
    """Return the settings that a survey chose, and its measurements."""
    settings = {name.replace("_", " "): value for name, value in row.settings.items()}
    named = (f"{name} {value:{'.0f' if value.is_integer() else '.3g'}}" for name, value in settings.items())
    chosen = f"{', '.join(named)} after {row.cost.queries} queries".lstrip()
    if row.falls:
        expected = ", ".join(f"{fall:.2g} at {radius}" for radius, fall in row.falls.items())
        return f"{chosen}; what a generation should lower the loss by: {expected}"
    if not row.note and row.trace is None:  # of a probe that is not ours
        told = "".join(f"; {name} {value:.3g}" for name, value in row.told.items())
        return f"{chosen}{told}"
    if row.trace is None or row.norm is None or row.effective_dimension is None:
        return f"{chosen}; the defaults for what is auto: {row.note}"
    unseen = row.snr is None or row.noise is None
    noise = "none" if unseen else f"{row.noise:.2g} (signal-to-noise {row.snr:.3g} at rho)"
    error = "" if row.trace_error is None else f" +- {row.trace_error:.2g}"
    return (
        f"{chosen}; noise of a loss {noise}, trace {row.trace:.3g}{error}, norm {row.norm:.3g}, effective dimension"
        f" {row.effective_dimension:.2g} or more"
    )


def screen(row: ScreenRow) -> str:
    """Return what a screen found."""
    best = next((one for one in row.texts if one.selected), row.texts[0] if row.texts else None)
    if best is None or best.loss is None:
        return f"nothing could be scored: {row.note}"
    shown = f" with {best.demonstrations} demonstrations" if best.demonstrations else ""
    shown += ", written by a proposer" if best.proposed else ""
    losses = [one.loss for one in row.texts if one.loss is not None]
    finalists = sum(one.finalist for one in row.texts)
    chosen = f"best of {finalists} finalists" if finalists > 1 else "best"
    told = f"; {one_line(row.note, 200)}" if row.note else ""
    wording = f", in the template {row.template!r}" if row.template else ""
    words = ", ".join(word.strip() for word in row.label_words)
    wording += f", with the label words {words}" if words else ""
    return (
        f"{len(row.texts)} prompts after {row.cost.queries} queries, loss {min(losses):.4f} to {max(losses):.4f};"
        f" {chosen}{shown}: {one_line(best.text, 100)!r}; the search starts from"
        f" {one_line(row.instruction, 100)!r}{wording}{told}"
    )


def ensemble(line: Mapping[str, Any]) -> str:
    """Return what the prompts of an ensemble are called."""
    return f"{line['members']} prompts together"


def reading(line: Mapping[str, Any]) -> str:
    """Return the cost of a row for an ensemble and for the single prompt; empty if it is not known."""
    many, single = line["a_row"], line["single"]
    if many is None or single is None:
        return ""
    return (
        f"; a row takes {many['forwards']:.3g} forwards and {many['tokens']:,.0f} tokens, the best prompt alone"
        f" {single['forwards']:.3g} and {single['tokens']:,.0f}"
    )


def plain(value: object) -> str:
    """Return a drawn value: numbers to four digits, anything else as it prints."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings(values: Mapping[str, object]) -> tuple[str, ...]:
    """Return settings by path as "name=value" each, the last part of the path being the name."""
    return tuple(f"{path.rsplit('.', 1)[-1]}={plain(value)}" for path, value in values.items())


SHARES = ("acc", "f1", "macro_f1", "micro_f1", "exact_match", "token_f1", "rouge_l", "chrf")


@dataclass(frozen=True, slots=True)
class MetricWords:
    """Format of a metric: shares such as accuracy and F1 in percent, others unchanged."""

    name: str

    @property
    def is_share(self) -> bool:
        """Whether the metric is a share of something, from 0 to 1."""
        return self.name.lower().startswith(SHARES)

    @property
    def is_accuracy(self) -> bool:
        """Whether the metric is a share of examples, so that binomial errors apply."""
        return self.name.lower().startswith(("acc", "exact_match"))

    @property
    def scale(self) -> float:
        """Factor of the shown value."""
        return 100.0 if self.is_share else 1.0

    @property
    def axis(self) -> str:
        """The metric with its unit, for an axis or a column."""
        return f"{self.name} (%)" if self.is_share else self.name

    def value(self, metric: float | None) -> str:
        """Return the value with its unit: "88.4 %"."""
        if metric is None:
            return UNKNOWN
        return f"{100 * metric:.1f} %" if self.is_share else f"{metric:.3f}"

    def bare(self, metric: float | None, spread: float | None = None) -> str:
        """Return the value without its unit, with its spread if there is one: "88.4 ± 1.2"."""
        if metric is None:
            return UNKNOWN
        digits = 1 if self.is_share else 3
        shown = f"{self.scale * metric:.{digits}f}"
        return shown if spread is None else f"{shown} ± {self.scale * spread:.{digits}f}"

    def difference(self, metric: float) -> str:
        """Return a difference without its sign: "3.2 points"."""
        return f"{abs(100 * metric):.1f} points" if self.is_share else f"{abs(metric):.3f}"
