"""Settings of the soft prompt."""

from typing import Literal

from pydantic import Field

from distributed_tuner.config.base import Config


class PromptConfig(Config):
    """How many rows, what they start as, and where they stand."""

    length: int = Field(20, ge=1)
    """Prompt rows L."""
    init: Literal["text", "vocab", "zeros", "filler"] = "text"
    """The rows before tuning. "text": the embeddings of ``text``, repeated backwards from its end to fill the rows;
    "vocab": rows sampled from the vocabulary; "zeros"; "filler": tokens 1000, 1001, ... to which the search adds
    (``add`` mode of the papers' code)."""
    text: str | None = None
    """The text of ``init: text``; the task's manual prompt when left out."""
    layout: Literal["auto", "prefix", "suffix"] = "auto"
    """"prefix": [prompt][text][cue]; "suffix": [text][prompt][cue], whose texts are computed once a run.
    "auto": the one that computes fewer tokens a candidate."""
    units: Literal["embedding", "paper"] = "embedding"
    """What a step of 1 is: "embedding": the standard deviation of the model's embedding matrix, so that rho and
    learning rate carry over between models; "paper": one, as in the papers."""
    seed: int = Field(0, ge=0)
    """Draws the rows of ``init: vocab``."""
