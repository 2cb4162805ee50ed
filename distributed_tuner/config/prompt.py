"""Settings of the prompt that is tuned: rows of embeddings, or words."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from distributed_tuner.config.base import Config, Read


class SoftPromptConfig(Config):
    """Rows of embeddings: how many, what they start as, and where they stand."""

    reads: ClassVar[tuple[Read, ...]] = (
        Read(("text",), "init", where=("text",)),
        Read(("seed",), "init", where=("vocab",)),
        Read(("instruction",), "layout", where=("instruction_suffix", "auto")),
    )

    kind: Literal["soft"] = "soft"
    """Names this sort of prompt, which is the usual one and need not be named."""
    length: int = Field(20, ge=1)
    """Prompt rows L."""
    init: Literal["text", "vocab", "zeros", "filler"] = "text"
    """The rows before tuning. "text": the embeddings of ``text``, repeated backwards from its end to fill the rows;
    "vocab": rows sampled from the vocabulary; "zeros"; "filler": tokens 1000, 1001, ..., the filler of ``layout: add``
    as a prefix that PEFT can load."""
    text: str | None = None
    """The text of ``init: text``; the task's manual prompt when left out."""
    instruction: str | None = None
    """Words in front of every text in ``layout: instruction_suffix``; the task's manual prompt when left out."""
    layout: Literal["auto", "prefix", "suffix", "instruction_suffix", "add"] = "auto"
    """"prefix": [prompt][text][cue]; "suffix": [text][prompt][cue], whose texts are computed once a run;
    "instruction_suffix": [instruction][text][prompt][cue], likewise, the instruction in words and fixed; "add": added
    to ``length`` filler tokens in front of the text, as the papers' code does (to word embeddings; for masked models
    behind the embedding LayerNorm), with ``init: zeros``. "auto": on a causal model of oracle.kind
    transformers, what reaches the lowest loss on train for about the same tokens, by a short race that the budgets pay
    for; else prefix or suffix, the one that computes fewer tokens a candidate (prefix for masked models)."""
    scale: Literal["embedding", "paper"] = "embedding"
    """What a step of 1 is: "embedding": the standard deviation of the model's embedding matrix, so that rho and
    learning rate carry over between models; "paper": one, as in the papers."""
    seed: int = Field(0, ge=0)
    """Draws the rows of ``init: vocab``."""

    @model_validator(mode="after")
    def _what_is_added_starts_at_zero(self) -> "SoftPromptConfig":
        if self.layout == "add" and self.init != "zeros":
            raise ValueError(f"layout 'add' adds to its filler tokens, so init must be zeros, but got {self.init!r}")
        return self


class TextPromptConfig(Config):
    """Words in front of the example's text: what a model can be asked with that takes no embeddings."""

    kind: Literal["text"] = "text"
    """Names this sort of prompt."""
    length: int = Field(12, ge=1)
    """Most words that a search puts together."""
    text: str | None = None
    """The words before tuning; the task's manual prompt when left out."""
    vocabulary: Literal["auto", "task", "words", "printable"] = "auto"
    """The words that a search may take: "words" and "printable" are tokens of the model's tokenizer, as in a restart
    stage; "task": the words of the train examples, of the label words, the description and the manual prompt. "auto":
    "words" where the tokenizer is known, else "task"."""


def _kind_of(value: Any) -> str:
    kind = value.get("kind", "soft") if isinstance(value, Mapping) else getattr(value, "kind", "soft")
    return str(kind)


PromptConfig: TypeAlias = Annotated[
    Annotated[SoftPromptConfig, Tag("soft")] | Annotated[TextPromptConfig, Tag("text")], Discriminator(_kind_of)
]


def started_from(config: PromptConfig, instruction: str) -> PromptConfig:
    """Return a prompt's settings with another instruction to start from, where words play a part in them."""
    update: dict[str, str] = {}
    if isinstance(config, TextPromptConfig) or (config.init == "text" and config.layout != "instruction_suffix"):
        update = {"text": instruction}
    elif config.layout == "instruction_suffix":
        update = {"instruction": instruction}
    return config.model_copy(update=update) if instruction else config
