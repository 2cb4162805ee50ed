"""Settings of ensembles: several prompts that a trial has evaluated, read together."""

from pydantic import Field

from distributed_tuner.config.base import Config


class EnsembleConfig(Config):
    """The best prompts of a trial with their heads; their log-probabilities are averaged.

    No query steers or selects for it: members are evaluations that are paid for. It is measured once on test, for the
    best trial of every split, which costs as many forwards a row as it has members.
    """

    size: int = Field(5, ge=2, le=20)
    """The most members: the best by cross-validation over train and dev, as many of them as lower that loss."""
