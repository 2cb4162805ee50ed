"""Conclusions in words, made from the numbers of the optimizers' runs."""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.reproductions.trainable_optimizer.methods import RIVALS, VARIANTS
from benchmarks.reproductions.trainable_optimizer.ranking import Cells, Standing, against, comparisons
from distributed_tuner.values import Array64

NAMES = {"a_off": "the A-off control", "sgd": "SGD", "momentum": "tuned momentum", "adam": "Adam"}
VARIANT_NAMES = {"full": "full", "diagonal": "diagonal", "rank_one": "rank one"}
CLEAR = 1.25
"""A factor from which on an error is said to have changed."""


def conclude(standings: Sequence[Standing]) -> list[str]:
    """Return the conclusion, sentence by sentence, of one contest or more; a variant may be missing, no rival may."""
    return [
        _headline(standings),
        *(_rival(standings, rival) for rival in RIVALS),
        *_variants(standings),
        _spreads(standings),
        *_errors(standings),
        *_causes(standings),
        _edges(standings),
    ]


def _headline(standings: Sequence[Standing]) -> str:
    outcomes = [against(one, "a_off") for one in standings]
    count, better, worse = len(outcomes), outcomes.count("better"), outcomes.count("worse")
    by_variant = [
        sum(name in one.losses and comparisons(one, "a_off")[name].outcome == "better" for one in standings)
        for name in VARIANTS
    ]
    if better == 0:
        verdict = "Training A did not help" + (": it did harm" if 2 * worse > count else "")
    elif 2 * max(by_variant) > count:
        verdict = "Training A helped on most problems"
    else:
        verdict = "Training A helped on some problems, but no variant on most"
    return (
        f"{verdict}: some variant of the Trainable Optimizer ended with a significantly lower training loss than the"
        f" A-off control on {better} of {count} problems (no single one on more than {max(by_variant)}), and every"
        f" variant with a higher one on {worse}."
    )


def _rival(standings: Sequence[Standing], rival: str) -> str:
    parts = []
    for outcome, words in (("better", "better with some variant"), ("worse", "worse with every variant")):
        titles = [one.title for one in standings if against(one, rival) == outcome]
        parts.append(f"{words} on {len(titles)} of {len(standings)}" + (f" ({'; '.join(titles)})" if titles else ""))
    return f"Against {NAMES[rival]} it is significantly {', '.join(parts)}, and no clear difference elsewhere."


def _variants(standings: Sequence[Standing]) -> list[str]:
    sentences = []
    for name in VARIANTS:
        found = [comparisons(one, "a_off")[name] for one in standings if name in one.losses]
        if not found:
            continue
        outcomes = [comparison.outcome for comparison in found]
        changes = [comparison.change for comparison in found if math.isfinite(comparison.change)]
        median = f", by {float(np.median(changes)):+.1%} in the median" if changes else ""
        sentences.append(
            f"The {VARIANT_NAMES[name]} variant against the A-off control: better on {outcomes.count('better')}, worse"
            f" on {outcomes.count('worse')}, no clear difference on {outcomes.count('tie')} of {len(found)}{median}."
        )
    return sentences


def _spreads(standings: Sequence[Standing]) -> str:
    wins = 0
    for one in standings:
        with np.errstate(all="ignore"):
            spreads = {name: float(np.std(losses)) for name, losses in one.losses.items()}
        finite = {name: value for name, value in spreads.items() if math.isfinite(value)}
        wins += bool(finite) and min(finite, key=lambda name: finite[name]) in VARIANTS
    return f"The final loss varies least over seeds with one of its variants on {wins} of {len(standings)} problems."


def _errors(standings: Sequence[Standing]) -> list[str]:
    """Say how far the estimates are from the full gradient, next to the mini-batch gradients that SGD takes."""
    parts = []
    for name in ("a_off", *VARIANTS, "momentum"):
        ratio = _geometric_mean(
            [_quotient(one.errors["sgd"], one.errors[name]) for one in standings if name in one.errors]
        )
        if math.isfinite(ratio):
            parts.append(f"{ratio:.3g} with {_label(name)}")
    if not parts:
        return []
    return [
        "Over the last fifth of the steps, an estimate's squared error against the full gradient was that of"
        f" SGD's mini-batch gradients divided by {', '.join(parts)} (geometric means over problems)."
    ]


def _causes(standings: Sequence[Standing]) -> list[str]:
    """Say what lowers the error where everything but one switch stays as it was, and what that does to the loss."""
    sentences = []
    for decaying in (True, False):
        tables = [one.ablation for one in standings if len(one.ablation) == 4 and one.decaying == decaying]
        if tables:
            sentences.append(_cause(tables, decaying))
    return sentences


def _cause(tables: Sequence[Cells], decaying: bool) -> str:
    """Compare cells of tables that were tuned with rates that decay, or not."""
    switches = {"the decaying rates": ((True, True), (True, False)), "A": ((True, decaying), (False, decaying))}
    loss, error = (
        {
            name: _geometric_mean([_quotient(table[on][what], table[off][what]) for table in tables])
            for name, (on, off) in switches.items()
        }
        for what in (0, 1)
    )
    lower = sorted((name for name in switches if error[name] < 1.0 / CLEAR), key=lambda name: error[name])
    if len(lower) == 2:
        cause = f"Both lower the error, {lower[0]} more"
    elif lower:
        cause = f"What lowers the error is {lower[0]}, not {next(name for name in switches if name not in lower)}"
    else:
        cause = "Neither lowers the error clearly: what falls against SGD is due to the mean that b keeps"
    told = {
        name: f"{loss[name]:.3g}"
        + (f" ({'a' if loss[name] < 1.0 else 'no'} lower loss came with the smaller error)" if name in lower else "")
        for name in switches
    }
    return (
        f"On problems tuned with {'decaying' if decaying else 'constant'} rates ({len(tables)}), switched one at a time"
        " in the diagonal variant's settings: rates that decay instead of staying constant multiply the error by"
        f" {error['the decaying rates']:.3g}, and training A instead of keeping A = 0 by {error['A']:.3g} (geometric"
        f" means). {cause}. The same switches multiply the final loss by {told['the decaying rates']} for the decaying"
        f" rates and by {told['A']} for A."
    )


def _edges(standings: Sequence[Standing]) -> str:
    found = [f"{label} ({one.title})" for one in standings for label in one.edges]
    total = sum(len(one.losses) for one in standings)
    if not found:
        return f"None of the {total} chosen step sizes lies at an end of those that were tried."
    return (
        f"{len(found)} of {total} chosen step sizes lie at an end of those that were tried, so that more might be had:"
        f" {'; '.join(found)}."
    )


def _label(name: str) -> str:
    return {"a_off": "A off", "momentum": "momentum"}.get(name) or f"the {VARIANT_NAMES[name]} variant"


def _quotient(above: Array64, below: Array64) -> float:
    with np.errstate(all="ignore"):
        return float(above.mean() / below.mean())


def _geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of those values that are finite and above 0; NaN of none."""
    sound = [value for value in values if 0.0 < value < math.inf]
    return math.exp(float(np.mean(np.log(sound)))) if sound else math.nan
