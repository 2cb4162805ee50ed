"""What the contract of optimizers asks of a member and of who tells it losses, checked in one place each."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from distributed_tuner.custom import raised
from distributed_tuner.errors import ConfigError, OptimizerError, TunerError
from distributed_tuner.values import Answers, Array, Candidate, Embedded, Latent, Perturbation, Point, Text


@contextmanager
def promised(kind: str, what: str, step: int = 0) -> Iterator[None]:
    """Turn whatever a member raises at what its contract promises into one line that says where."""
    try:
        yield
    except TunerError:
        raise
    except MemoryError as error:
        raise OptimizerError(
            f"a search must fit into memory, but {kind} does not ({error}); search fewer dimensions (intrinsic_dim,"
            " prompt.length), or choose an optimizer that keeps no matrix of them, such as zot"
        ) from error
    except Exception as error:
        told = raised(error).removeprefix("it ")
        raise OptimizerError(
            f"an optimizer must {what}, but in step {step} {kind} {told}; mend it there, or choose another optimizer"
        ) from error


def require_sound(kind: str, candidates: tuple[Candidate, ...], most: int, is_discrete: bool, step: int) -> None:
    """Check that a step has as many candidates as were announced, of the space that is searched."""
    if not 1 <= len(candidates) <= most:
        raise OptimizerError(
            f"a step has between 1 candidate and queries_per_step, which {kind} says is"
            f" {most}, but it proposed {len(candidates)} in step {step}; say or propose"
            " as many as there are"
        )
    for candidate in candidates:
        if not isinstance(candidate, Text if is_discrete else Perturbation | Latent | Point | Embedded):
            raise OptimizerError(
                f"an optimizer proposes {'texts (Text)' if is_discrete else 'Point, Perturbation or Latent'},"
                f" but {kind} proposed {type(candidate).__name__} in step {step}; propose those, or"
                f" say is_discrete = {not is_discrete}"
            )


def checked_gradients(kind: str, white_box: bool, gradients: Array | None, count: int, dim: int) -> Array | None:
    """Return the gradients as float32, shape (count, P); None for a black-box member."""
    if not white_box:
        if gradients is not None:
            raise ConfigError(
                f"{kind} learns from losses alone, but was told gradients of shape {np.shape(gradients)}:"
                " leave them out, or use adamw or sgd in a gradient stage"
            )
        return None
    if gradients is None or np.shape(gradients) != (count, dim):
        got = "none" if gradients is None else f"shape {np.shape(gradients)}"
        raise ConfigError(
            f"{kind} learns from gradients of shape ({count}, {dim}), but was told {got}: ask the oracle"
            " for them (Request.gradient)"
        )
    return np.asarray(gradients, dtype=np.float32)


def require_answers(kind: str, wanted: bool, answers: Answers | None, count: int) -> None:
    """Check that a member that wants answers gets those of its candidates, and no other member any."""
    if answers is None and not wanted:
        return
    if answers is None or not wanted:
        raise ConfigError(
            f"answers go to an optimizer that wants them; {kind} has wants_answers = {wanted} and"
            f" was told {'none' if answers is None else 'some'}: pass"
            f" {'Answers(evaluation.logits, batch)' if wanted else 'losses alone'}"
        )
    batch, shape = answers.batch, np.shape(answers.logits)
    if batch.question != "labels":
        raise ConfigError(
            f"{kind} learns from the scores of label words, but this task has {batch.question} and no label"
            " words; use an optimizer that learns from losses alone, such as cma"
        )
    if shape != (count, len(batch.examples), len(batch.label_words)):
        raise ConfigError(
            f"answers are label-word logits of {count} candidates on {len(batch.examples)} examples with"
            f" {len(batch.label_words)} label words; {kind} was told shape {shape}: pass Evaluation.logits"
        )
