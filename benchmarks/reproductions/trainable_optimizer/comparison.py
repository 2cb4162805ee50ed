"""The comparison: the Trainable Optimizer's variants, the A-off control and tuned baselines on real problems.

Problems and methods meet in ``tuning`` and ``runner``; ``conclusions`` says what follows. Here is how much is done.
"""

import os
import platform
from collections.abc import Callable, Mapping, Sequence

from benchmarks.reproductions.trainable_optimizer.conclusions import conclude
from benchmarks.reproductions.trainable_optimizer.plots import ablations, charts, duels, results
from benchmarks.reproductions.trainable_optimizer.ranking import standing
from benchmarks.reproductions.trainable_optimizer.runner import hold
from benchmarks.reproductions.trainable_optimizer.runs import Course
from benchmarks.reproductions.trainable_optimizer.tuning import Contest, Plan
from distributed_tuner.analysis.findings import Findings

NAME, TITLE = "trainable-optimizer", "The Trainable Optimizer beside SGD, momentum and Adam"
MOST_WORKERS = 4
CONVEX = (
    "logistic-breast-cancer-plain",
    "logistic-breast-cancer-penalty",
    "logistic-digits-plain",
    "logistic-digits-penalty",
)
CONVEX_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
NETWORK_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
PROMPT_RATES = (0.15, 0.6, 2.5, 10.0, 40.0)


def _harmonic(steps: int) -> Course:
    return Course(steps, "harmonic", decay_steps=steps / 20, decaying=True)


def _cosine(steps: int) -> Course:
    return Course(steps, "cosine", decay_steps=steps / 20, decaying=False)


FULL: Mapping[str, Plan] = {
    **dict.fromkeys(CONVEX, Plan(CONVEX_RATES, 4, tuning_seeds=4, seeds=20, course=_harmonic(1000), watch=60)),
    "perceptron": Plan(NETWORK_RATES, 4, tuning_seeds=2, seeds=10, course=_cosine(400), watch=30),
    "convolutional": Plan(NETWORK_RATES, 4, tuning_seeds=1, seeds=8, course=_cosine(300), watch=15),
    "prompt": Plan(PROMPT_RATES, 2, tuning_seeds=1, seeds=3, course=_cosine(24), watch=5, ablation=False),
}
QUICK: Mapping[str, Plan] = {
    **dict.fromkeys(CONVEX, Plan(CONVEX_RATES, 4, tuning_seeds=2, seeds=8, course=_harmonic(300), watch=30)),
    "perceptron": Plan(NETWORK_RATES, 2, tuning_seeds=1, seeds=5, course=_cosine(150), watch=15),
    "convolutional": Plan(NETWORK_RATES, 2, tuning_seeds=1, seeds=3, course=_cosine(60), watch=7),
}


def compare(*, quick: bool, seed: int, note: Callable[[str], None]) -> Findings:
    """Hold the contests and return what they show; ``note``: takes a line for each problem and method.

    The same numbers for the same seed, times aside, on any number of cores. ``quick`` is shorter in all and leaves
    prompt tuning out.

    Raises:
        ModelError: the language model cannot be had.
    """
    contests = hold(QUICK if quick else FULL, seed, note, workers())
    standings = [standing(contest) for contest in contests]
    ablated = ablations(contests)
    return Findings(
        name=NAME,
        title=TITLE,
        method=_method(contests, quick),
        conclusion=conclude(standings),
        charts=[chart for contest in contests for chart in charts(contest)],
        tables=[duels(standings), *([ablated] if ablated else []), *map(results, contests)],
        facts=_facts(quick, seed),
    )


def workers() -> int:
    """Return how many processes share the work."""
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)))


def _method(contests: Sequence[Contest], quick: bool) -> list[str]:
    left_out = (
        " This is the quick form: fewer seeds and steps, and no prompt tuning of a language model, which the full form"
        " has. Its conclusion is a taste of the full one's."
        if quick
        else ""
    )
    return [
        'The Trainable Optimizer (TO) of "A Trainable Optimizer" (Wang & Klabjan, arXiv 2508.01764) takes the gradient'
        " to be G_hat = A w + b, and trains A and b beside w by the squared error against the mini-batch gradient. Its"
        " updates are reconstructed from the paper's abstract and summary alone: rates, their decay, normalisation and"
        " start are choices made here, so what does not work here may work as the authors have it."
        f" {_decay(contests)}",
        f"Problems: {'; '.join(contest.about.title for contest in contests)}.{left_out}",
        "Methods: SGD; momentum (torch's, a sum); Adam; A off, which is TO with alpha = 0, so that b is an exponential"
        " mean of gradients and nothing else is trained; TO with a full, a diagonal and a rank-one A. Every parameter"
        " tensor has an estimator of its own. TO is this project's TrainableOptimizer, the others are torch's.",
        "Tuning: every method tries the same step sizes with the same number of runs, on seeds of their own. At each"
        " step size the same number of settings is tried of what else a method has (momentum; beta1 and beta2; beta;"
        " alpha and beta); SGD has nothing else and runs more seeds. The setting with the lowest mean of the final loss"
        " on all training examples is taken, and only its runs on fresh seeds are shown. The step size falls the same"
        " way for all: as 1 / (1 + t / t0), t0 a twentieth of the steps, on convex problems, as a cosine elsewhere.",
        "A seed names a start and mini-batches, which are the same for all methods, so that methods are compared run by"
        " run (paired t-test).",
        "Few seeds and small problems: a difference that is not found here may exist. Prompt tuning has the fewest"
        " steps and runs, since each costs passes through the language model, and its tuning sees one seed a setting.",
    ]


def _decay(contests: Sequence[Contest]) -> str:
    falling = [contest.about.title for contest in contests if contest.plan.course.decaying]
    constant = [contest.about.title for contest in contests if not contest.plan.course.decaying]
    parts = (("fall like the step size", falling), ("are constant", constant))
    return " ".join(f"The rates of A and b {what} on: {'; '.join(titles)}." for what, titles in parts if titles)


def _facts(quick: bool, seed: int) -> dict[str, str]:
    import torch

    return {
        "form": "quick" if quick else "full",
        "seed": str(seed),
        "processes": str(workers()),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
