"""The rehearsal of a run's searches: the first steps of each, before anything is spent.

An optimizer is made, asked, told made-up losses, saved and restored as the trial would do it. What cannot be done here
(a package is missing, a setting does not go with another, a contract is broken) is then said by ``check``.
"""

from typing import Any

import numpy as np

from distributed_tuner import heads, optimizers
from distributed_tuner.config.first_order import FirstOrderConfig
from distributed_tuner.config.head import CustomHeadConfig
from distributed_tuner.config.optimizer import OptimizerConfig
from distributed_tuner.errors import ConfigError, HeadError, OptimizerError, PartError
from distributed_tuner.optimizers import Optimizer
from distributed_tuner.optimizers.contract import promised
from distributed_tuner.seeds import Key, generator
from distributed_tuner.stages.prompt_space import PromptSpace
from distributed_tuner.storage.serialization import decode, encode
from distributed_tuner.values import Answers, Batch, Candidate, Center, Latent, Perturbation, Point

STEPS = 2  # at least: some members of nevergrad's registry fail when they are asked for the second time
QUERIES = 12  # at least: others are portfolios, whose members take turns
LEAST, MOST = 1e-30, 1e30  # of a radius: coordinates are 32-bit floats, which end at 1e-38 and 3e38


class Rehearsal:
    """Rehearses searches, those that differ in more than real numbers once each.

    A real number, such as a step size, is drawn from a range in most spaces, and hardly decides what can be done.
    """

    def __init__(self) -> None:
        self._known: set[tuple[Any, ...]] = set()

    def take(
        self,
        config: OptimizerConfig | FirstOrderConfig,
        space: PromptSpace,
        train: Batch,
        seed: int,
        steps: int,
        has_tokenizer: bool = True,
        rounds: int = 1,
    ) -> None:
        """Take the first steps of a search of ``steps`` in a space of prompts.

        train: the examples that its steps are scored on. has_tokenizer: whether the model's is known, whose words a
        search in words may take. rounds: in how many the search goes on; one that is restored by replaying, and cannot
        be, is refused where there are several.

        Raises:
            ConfigError, ModelError, OptimizerError: they cannot be taken, or lead out of what numbers can hold.
        """
        _require_distance(config)
        whole = {name: value for name, value in config.model_dump(exclude={"name"}).items() if type(value) is not float}
        known = (repr(whole), space.dim, isinstance(space.start, str), rounds > 1, _facts(train))
        if known in self._known:
            return
        self._known.add(known)
        key: Key = (seed, "rehearsal")
        words = space.words_beforehand(has_tokenizer)
        optimizer, twin = (
            optimizers.build(
                config.resolved({}), dim=space.dim, key=key, steps=steps, start=space.start, vocabulary=words
            )
            for _ in range(2)
        )
        if optimizer.vouched_for:
            return
        finite: list[bool] = []
        with np.errstate(all="ignore"):  # what overflows is looked at
            while optimizer.steps_told < STEPS or len(finite) < QUERIES:
                finite += _take_step(optimizer, train, generator((*key, optimizer.steps_told)))
        if not any(finite[-QUERIES // 2 :]):
            raise OptimizerError(
                f"the coordinates of a prompt are finite 32-bit floats, but those that {optimizer.kind} goes on with"
                " are not; set smaller steps (rho, sigma, learning_rate, whichever it has), or choose another optimizer"
            )
        with promised(config.kind, "be recommended from, saved and restored", optimizer.steps_told):
            _go_on(optimizer, twin, rounds)


def rehearse_head(config: CustomHeadConfig, classes: int, rows: int) -> None:
    """Fit a head of the user's own to made-up answers, as many ``rows`` of each label as a trial has; read with it,
    save it and restore it.

    Raises:
        ConfigError, HeadError, PartError: it cannot be made, or does not do what its contract promises.
    """
    words = config.words or classes
    stream = generator((0, "head rehearsal"))
    answers = stream.standard_normal((rows * classes, words))
    labels = np.arange(rows * classes) % classes
    head = heads.build(config, classes)
    told = {
        "leave_one_out": head.leave_one_out(answers, labels),
        "predict": head.fit(answers, labels).predict(answers),
    }
    for name, chances in told.items():
        if not (np.all(chances > 0) and np.allclose(chances.sum(axis=1), 1.0, atol=1e-3)):
            raise PartError(
                f"a head gives probabilities, which are above 0 and sum to 1 in each row, but {name} of"
                f" {config.import_path} gave {chances[0].tolist()} for a row; divide each row by its sum, say"
            )
    try:
        again = heads.restore(config, classes, head.state_dict(), words)
        same = np.array_equal(again.predict(answers), told["predict"])
    except HeadError as error:
        raise PartError(
            f"a head that is given the state of another predicts the same, but {config.import_path} does not ({error});"
            " return all that predicting needs from _fit, and read it by self._fitted(name)"
        ) from error
    if not same:
        raise PartError(
            f"a head that is given the state of another predicts the same, but {config.import_path} predicts other"
            " probabilities; return all that predicting needs from _fit, and read it by self._fitted(name)"
        )


def _go_on(optimizer: Optimizer, twin: Optimizer, rounds: int) -> None:
    """Recommend, save, and restore as a later round or a resumed run would."""
    optimizer.recommend()
    state = optimizer.state_dict()
    try:
        state = decode(encode(state), "the state")
    except TypeError as error:
        raise OptimizerError(
            f"an optimizer's state is numbers, strings, arrays, and lists and dicts of these, but that of"
            f" {optimizer.kind} is not ({error}); return those from _save"
        ) from error
    if rounds > 1 or not optimizer.replays:
        twin.load_state_dict(state)
        twin.ask()


def _take_step(optimizer: Optimizer, train: Batch, stream: np.random.Generator) -> list[bool]:
    """Take a step on made-up losses, gradients and answers; return which of its candidates are finite."""
    asked = optimizer.ask()
    count = len(asked)
    gradients = stream.standard_normal((count, optimizer.dim), dtype=np.float32) if optimizer.white_box else None
    losses, answers = 1.0 + stream.random(count), None
    if optimizer.wants_answers:
        shape = (count, len(train.examples), len(train.label_words))
        answers = Answers(stream.standard_normal(shape, dtype=np.float32), train)
    optimizer.tell(losses, gradients, answers)
    return list(map(_is_finite, asked))


def _facts(train: Batch) -> tuple[Any, ...]:
    """Return what of the examples may decide whether a search can be taken."""
    return len(train.examples), len(train.label_words), train.question, train.loss, train.objective


def _require_distance(config: OptimizerConfig | FirstOrderConfig) -> None:
    radius = None if config.is_discrete else config.radius
    if radius is not None and not LEAST <= radius <= MOST:
        raise ConfigError(
            f"{config.radius_setting} of {config.label} must lie between {LEAST:g} and {MOST:g}, since coordinates are"
            f" 32-bit floats, but is {radius:g}; set one about as wide as the prompts that it should try"
        )


def _is_finite(candidate: Candidate) -> bool:
    match candidate:
        case Point(vector=numbers) | Latent(z=numbers) | Perturbation(center=Center(vector=numbers)):
            return bool(np.isfinite(numbers).all())
        case _:
            return True
