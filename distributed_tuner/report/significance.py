"""Claims that a run supports: the best prompt against the manual one, read in the same way. No HTML here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from distributed_tuner.report import formatting
from distributed_tuner.runs.recorded_config import Recorded

NOTHING_LEFT = 1e-3  # of a loss

Outcome: TypeAlias = Literal["better", "tie", "worse", "unmeasured"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The best prompt's test metric minus that of what it is weighed ``against``, and what that is worth.

    ``difference`` is None when either was not measured. ``error`` is the standard error of the difference of two
    binomial shares of ``examples`` each, taken as independent; None when the metric is not an accuracy or the size of
    the test set is unknown. ``outcome`` is "tie" when the difference is not beyond that error.
    """

    outcome: Outcome
    difference: float | None
    error: float | None
    examples: int | None
    against: str = "the manual prompt"


def reference(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return what a tuned prompt is weighed against: its name, and its line in the summary's baseline.

    That is the manual prompt read by the same head, so that the head's gain is not taken for the search's; the manual
    prompt as it is where label words are read.
    """
    baseline = summary["baseline"]
    with_head = baseline.get("manual_prompt_with_head") or {}
    if summary["best"].get("head", "label_words") != "label_words" and with_head.get("dev_metric") is not None:
        return "the manual prompt with the same head", with_head
    return "the manual prompt", baseline["manual_prompt"]


def weigh(summary: Mapping[str, Any], config: Recorded) -> Verdict:
    """Compare the best tuned prompt of ``summary`` with the manual prompt on the test set, whichever is returned."""
    tuned = (summary["best"].get("tuned") or summary["best"])["test_metric"]
    against, line = reference(summary)
    manual = line["test_metric"]
    examples = config.task.test
    if tuned is None or manual is None:
        return Verdict("unmeasured", None, None, examples, against)
    error = None
    if formatting.MetricWords(summary["best"]["metric"]).is_accuracy and examples:
        error = binomial_error(tuned, manual, examples)
    difference = tuned - manual
    return Verdict(_outcome(difference, error or 0.0), difference, error, examples, against)


def nothing_learnt(summary: Mapping[str, Any]) -> str:
    """Say so where the searches met nothing to go by: prompts that all have one loss, or none. Else empty."""
    searched = [trial for trial in summary["trials"] if trial["queries"] and trial["status"] != "failed"]
    tied = [trial.get("tied_loss") for trial in searched]
    if tied and None not in tied:
        losses = " or ".join(dict.fromkeys(formatting.loss(loss) for loss in tied))
        why = (
            "nothing is left to gain on train."
            if max(loss for loss in tied if loss is not None) < NOTHING_LEFT
            else "the answers do not depend on the prompt, or do not show it; see what they are (events, counts), or"
            " take more examples."
        )
        return f"The search learned nothing: every prompt that it scored had the same loss ({losses}), so {why}"
    failed = summary["totals"]["failed_candidates"]
    if searched and summary["best"]["trial_id"] is None and failed:
        return (
            f"The search learned nothing: {formatting.count(failed)} candidates had no finite loss, and no prompt could"
            " be selected; see why their answers could not be read (events, counts)."
        )
    return ""


def binomial_error(first: float, second: float, examples: int) -> float:
    """Return the standard error of ``first - second``, two shares of ``examples`` independent draws each.

    sqrt((p1 (1 - p1) + p2 (1 - p2)) / n). Prompts scored on the same examples mostly agree, so this errs upwards.
    """
    return math.sqrt((first * (1 - first) + second * (1 - second)) / examples)


def _outcome(difference: float, error: float) -> Outcome:
    if abs(difference) <= error:
        return "tie"
    return "better" if difference > 0 else "worse"


def sentence(verdict: Verdict, metric: formatting.MetricWords) -> str:
    """Say the verdict in words, with the number of test examples."""
    if verdict.difference is None:
        return (
            f"The test set has not been scored for both the best prompt and {verdict.against}, so nothing is claimed."
        )
    gap = metric.difference(verdict.difference)
    size = f" on {verdict.examples:,} test examples" if verdict.examples else ""
    if verdict.error is None:
        word = {"better": f"{gap} above", "worse": f"{gap} below", "tie": "equal to"}[verdict.outcome]
        unsure = f"No standard error is known for {metric.name}" if size else "The size of the test set is unknown"
        return f"The best prompt is {word} {verdict.against}{size}. {unsure}, so take the difference with care."
    error = metric.difference(verdict.error)
    match verdict.outcome:
        case "tie":
            return (
                f"That is no difference: {gap}{size} do not go beyond one standard error (± {error}), "
                f"so the best prompt is not shown to beat {verdict.against}."
            )
        case "worse":
            return (
                f"The best prompt does not beat {verdict.against}: it is {gap} below{size} (standard error ± {error})."
            )
        case _:
            strength = (
                "more than two standard errors" if verdict.difference > 2 * verdict.error else "one to two errors"
            )
            return f"The best prompt is {gap} above {verdict.against}{size}: {strength} (± {error})."
