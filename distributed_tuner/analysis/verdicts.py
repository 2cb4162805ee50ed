"""What follows from how contests ended: sentences that are made of their numbers."""

import math
from collections.abc import Sequence

import numpy as np

from distributed_tuner.analysis.methods import RIVALS, VARIANTS
from distributed_tuner.analysis.standings import Cells, Standing, against, comparisons
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
    for decaying, words in ((True, "decaying"), (False, "constant")):
        tables = [one.ablation for one in standings if len(one.ablation) == 4 and one.decaying == decaying]
        if tables:
            sentences.append(_cause(tables, words))
    return sentences


def _cause(tables: Sequence[Cells], tuned: str) -> str:
    decay, slope = (_switched(tables, 1, switch) for switch in ("decay", "slope"))
    lower = {name: factor for name, factor in (("the decaying rates", decay), ("A", slope)) if factor < 1.0 / CLEAR}
    if len(lower) == 2:
        cause = f"Both lower the error, {min(lower, key=lambda name: lower[name])} more"
    elif lower:
        other = "A" if "A" not in lower else "the decaying rates"
        cause = f"What lowers the error is {next(iter(lower))}, not {other}"
    else:
        cause = "Neither lowers the error clearly: what falls against SGD is due to the mean that b keeps"
    return (
        f"On problems tuned with {tuned} rates ({len(tables)}), the diagonal variant's settings held fixed: letting the"
        f" rates decay instead of staying constant multiplies the error by {decay:.3g}, and training A instead of"
        f" keeping A = 0 by {slope:.3g} (geometric means). {cause}. The same switches multiply the final loss by"
        f" {_told(tables, 'decay', decay)} for the decaying rates and by {_told(tables, 'slope', slope)} for A."
    )


def _told(tables: Sequence[Cells], switch: str, error: float) -> str:
    """Say by what a switch multiplies the loss, and how that goes with the error where it falls."""
    loss = _switched(tables, 0, switch)
    if error > 1.0 / CLEAR:
        return f"{loss:.3g}"
    return f"{loss:.3g} ({'a lower loss came with' if loss < 1.0 else 'no lower loss came with'} the smaller error)"


def _switched(tables: Sequence[Cells], what: int, switch: str) -> float:
    """Return what turning a switch on multiplies losses (0) or errors (1) by: a geometric mean over problems, and over
    both positions of the other switch."""
    if switch == "decay":
        pairs = [((other, True), (other, False)) for other in (True, False)]
    else:
        pairs = [((True, other), (False, other)) for other in (True, False)]
    return _geometric_mean([_quotient(table[on][what], table[off][what]) for table in tables for on, off in pairs])


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
