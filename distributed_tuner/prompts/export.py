"""Export of the prompt: safetensors with JSON, a PEFT prompt-tuning adapter, its nearest tokens as text.

``write`` and ``read`` are a pair: what comes back is what went in. The adapter exists for prompts that stand in front
of the text, since PEFT's prompt tuning can only prepend.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AllowInfNan, TypeAdapter, field_validator

from distributed_tuner.config.prompt import SoftPromptConfig
from distributed_tuner.config.space import TrialPlan
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.ledger.rows import Score
from distributed_tuner.prompts.head_export import ExportedHead, exported_head, read_head, write_head
from distributed_tuner.prompts.spec import NO_ROWS, instruction_of, prompt_spec
from distributed_tuner.prompts.tensors import read_tensors
from distributed_tuner.storage import files
from distributed_tuner.storage.json_files import Told, read_told
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Array64, Candidate, Decoding, Layout, Point, PromptSpec, Text

ROWS = "prompt_embeddings"
ANALYTIC = "analytic"  # no model that an adapter could be for


@dataclass(frozen=True, eq=False, slots=True)
class ExportedPrompt:
    """A prompt: ``rows`` (L, D) float32, where they stand, for which model, and how they scored.

    ``words``: the prompt itself where it is in words; its rows are none then, shape (0, 0). ``head``: what its answers
    are read by; None where they are texts, and in runs of before there were heads, which read the label words as they
    are.
    """

    rows: Array
    layout: Layout
    model: str
    trial_id: str
    method: str
    nearest_tokens: list[tuple[str, float]]
    template: dict[str, Any]
    scores: dict[str, float | None]
    words: str | None = None
    head: ExportedHead | None = None

    @property
    def decoding(self) -> Decoding | None:
        """How its answers are generated; None where they are labels."""
        told = self.template.get("decoding")
        return None if told is None else Decoding(**{**told, "stop": tuple(told["stop"])})

    def asked(self) -> tuple[Candidate, PromptSpec]:
        """Return the prompt as oracles are asked for it."""
        if self.words is not None:
            return Text(self.words), NO_ROWS
        return stored(self.rows, self.layout)


def stored(rows: Array, layout: Layout) -> tuple[Candidate, PromptSpec]:
    """Return rows (L, D) as oracles are asked for them."""
    return Point(np.ascontiguousarray(rows).reshape(-1)), PromptSpec(len(rows), "zeros", "", layout, "paper")


def write(prompt: ExportedPrompt, directory: Path) -> None:
    """Write every format into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(prompt, directory)
    if prompt.head is not None:
        write_head(prompt.head, directory)
    if prompt.words is not None:
        _write_facts(prompt, directory)
        (directory / "prompt.safetensors").unlink(missing_ok=True)  # of a prompt that was the best before
        shutil.rmtree(directory / "peft", ignore_errors=True)
        return
    write_safetensors(prompt, directory)
    if prompt.layout == "prefix" and prompt.model != ANALYTIC:
        write_peft(prompt, directory / "peft")


def write_safetensors(prompt: ExportedPrompt, directory: Path) -> list[Path]:
    """Write prompt.safetensors (the rows) and prompt.json (everything else).

    Raises:
        RunDirectoryError: the prompt is in words.
    """
    from safetensors.numpy import save

    _require_rows(prompt)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = directory / "prompt.safetensors"
    rows = np.ascontiguousarray(prompt.rows)
    about = json.dumps({"layout": prompt.layout, "model": prompt.model})
    # one key: several come in any order, never the same file
    files.write_bytes(tensors, save({ROWS: rows}, metadata={"prompt": about}))
    return [tensors, _write_facts(prompt, directory)]


def _write_facts(prompt: ExportedPrompt, directory: Path) -> Path:
    described = {field.name: getattr(prompt, field.name) for field in fields(prompt)}
    del described["rows"], described["head"]
    described |= {"length": len(prompt.rows), "width": prompt.rows.shape[1], "text": text_of(prompt)}
    facts = directory / "prompt.json"
    files.write_text(facts, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
    return facts


def _require_rows(prompt: ExportedPrompt) -> None:
    if prompt.words is not None:
        raise RunDirectoryError(
            "safetensors and PEFT adapters hold the rows of soft prompts, but this prompt is in words; export it with"
            " --format text"
        )


def write_text(prompt: ExportedPrompt, directory: Path) -> list[Path]:
    """Write prompt.txt: the prompt in words; of a soft one the nearest token of each row, for reading alone."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "prompt.txt"
    files.write_text(path, text_of(prompt) + "\n")
    return [path]


def write_peft(prompt: ExportedPrompt, directory: Path) -> list[Path]:
    """Write a PEFT prompt-tuning adapter. PEFT itself, which takes seconds to import, is not needed for that.

    Raises:
        RunDirectoryError: the prompt does not stand in front of the text, or is in words.
    """
    from safetensors.numpy import save

    _require_rows(prompt)
    if prompt.layout != "prefix":
        raise RunDirectoryError(
            f"a PEFT adapter can only put a prompt in front of the text, but this one has the layout {prompt.layout!r};"
            " export it with --format safetensors, or tune with prompt.layout: prefix"
        )
    directory.mkdir(parents=True, exist_ok=True)
    length, width = prompt.rows.shape
    settings = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": prompt.model,
        "inference_mode": True,
        "num_virtual_tokens": length,
        "token_dim": width,
        "prompt_tuning_init": "RANDOM",  # of the rows before they are loaded
    }
    config, weights = directory / "adapter_config.json", directory / "adapter_model.safetensors"
    files.write_text(config, json.dumps(settings, indent=1) + "\n")
    files.write_bytes(weights, save({ROWS: np.ascontiguousarray(prompt.rows)}, metadata={"format": "pt"}))
    return [config, weights]


def read(directory: Path) -> ExportedPrompt:
    """Read a prompt back from prompt.json and, unless it is in words, prompt.safetensors.

    Raises:
        RunDirectoryError: they are not there.
    """
    tensors, facts = directory / "prompt.safetensors", directory / "prompt.json"
    described = read_told(facts, _Facts, nan=True) if facts.is_file() else None
    if described is None or (described.words is None and not tensors.is_file()):
        raise RunDirectoryError(
            f"a tuned prompt is prompt.safetensors with prompt.json, but {directory} lacks them; a run writes them when"
            " a trial has ended"
        )
    return ExportedPrompt(
        rows=_rows(tensors, described) if described.words is None else np.zeros((0, 0), dtype=np.float32),
        layout=described.layout,
        model=described.model,
        trial_id=described.trial_id,
        method=described.method,
        nearest_tokens=list(described.nearest_tokens),
        template=described.template,
        scores=described.scores,
        words=described.words,
        head=read_head(directory),
    )


class _Facts(Told):
    """Content of prompt.json."""

    layout: Layout
    model: str
    trial_id: str
    method: str
    nearest_tokens: tuple[tuple[str, Annotated[float, AllowInfNan(True)]], ...]
    template: dict[str, Any]
    scores: dict[str, Score]
    words: str | None = None
    length: int | None = None
    width: int | None = None

    @field_validator("template")
    @classmethod
    def _worded(cls, template: dict[str, Any]) -> dict[str, Any]:
        for name in ("cue", "instruction", "source"):
            if not isinstance(template.get(name), str | None):
                raise ValueError(f"its {name} must be text")
        if "decoding" in template:
            TypeAdapter(Decoding).validate_python(template["decoding"])
        return template


def _rows(tensors: Path, described: _Facts) -> Array:
    """Return the rows (L, D) of a soft prompt."""
    rows = read_tensors(tensors).get(ROWS)
    told = (described.length, described.width)
    if rows is None or rows.ndim != 2 or not np.isfinite(rows).all() or told not in ((None, None), rows.shape):
        found = "none" if rows is None else f"shape {rows.shape}"
        raise RunDirectoryError(
            f"a soft prompt is finite rows, {ROWS!r} in {tensors}, as many and as wide as prompt.json says {told}, but"
            f" there is {found}; copy back the files of one run"
        )
    return np.asarray(rows, dtype=np.float32)


def text_of(prompt: ExportedPrompt) -> str:
    """Return the prompt in words; of a soft one the nearest tokens as one text."""
    if prompt.words is not None:
        return prompt.words
    return "".join(token for token, _ in prompt.nearest_tokens)


def exported(
    plan: TrialPlan,
    task: Task,
    prompt: Array | str,
    nearest_tokens: list[tuple[str, float]],
    scores: dict[str, Any],
    state: Mapping[str, Array64],
    method: str | None = None,
) -> ExportedPrompt:
    """Return a trial's prompt, rows or words, with all that is needed to use it elsewhere. ``state``: its head's.

    ``task``: as the prompt is asked on it. ``method``: another than the trial's, of the manual prompt that was kept
    instead of its own.
    """
    experiment = plan.experiment
    model = getattr(experiment.oracle, "model", ANALYTIC)
    soft = experiment.prompt if isinstance(experiment.prompt, SoftPromptConfig) else None
    behind = soft is not None and soft.layout == "instruction_suffix" and not isinstance(prompt, str)
    instruction = instruction_of(soft, task) if soft is not None and behind else ""
    words = prompt if isinstance(prompt, str) else None
    return ExportedPrompt(
        rows=np.zeros((0, 0), dtype=np.float32) if isinstance(prompt, str) else prompt,
        words=words,
        layout=prompt_spec(experiment.prompt, task).layout,
        model=model,
        trial_id=plan.trial_id,
        method=method or plan.method,
        nearest_tokens=nearest_tokens,
        template={
            "source": task.template,
            "cue": task.train[0].cue,
            "label_words": list(task.label_words),
            "example": task.train[0].text + task.train[0].cue,
            **({"instruction": instruction} if instruction else {}),
            **({} if task.decoding is None else {"decoding": asdict(task.decoding)}),
        },
        scores={name: scores[name] for name in ("train_loss", "dev_loss", "dev_metric", "test_metric")},
        head=None if task.has_targets else exported_head(experiment.head, task, model, state),
    )
