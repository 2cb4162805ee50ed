"""Taking the prompt away: safetensors with JSON beside it, a PEFT prompt-tuning adapter, its nearest tokens as text.

``write`` and ``read`` are a pair: what comes back is what went in. The adapter exists for prompts that stand in front
of the text, since PEFT's prompt tuning can only prepend.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distributed_tuner.config.space import TrialPlan
from distributed_tuner.errors import RunDirectoryError
from distributed_tuner.prompts.spec import prompt_spec
from distributed_tuner.tasks.base import Task
from distributed_tuner.values import Array, Layout

ROWS = "prompt_embeddings"
ANALYTIC = "analytic"  # no model that an adapter could be for


@dataclass(frozen=True, eq=False, slots=True)
class ExportedPrompt:
    """A tuned prompt: ``rows`` (L, D) float32, where they stand, for which model, and how they scored."""

    rows: Array
    layout: Layout
    model: str
    trial_id: str
    method: str
    nearest_tokens: list[tuple[str, float]]
    template: dict[str, Any]
    scores: dict[str, float | None]


def write(prompt: ExportedPrompt, directory: Path) -> None:
    """Write every format into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(prompt, directory)
    write_text(prompt, directory)
    if prompt.layout == "prefix" and prompt.model != ANALYTIC:
        write_peft(prompt, directory / "peft")


def write_safetensors(prompt: ExportedPrompt, directory: Path) -> list[Path]:
    """Write prompt.safetensors (the rows) and prompt.json (everything else)."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    tensors, facts = directory / "prompt.safetensors", directory / "prompt.json"
    rows = np.ascontiguousarray(prompt.rows)
    about = json.dumps({"layout": prompt.layout, "model": prompt.model})
    save_file(
        {ROWS: rows}, tensors, metadata={"prompt": about}
    )  # one key: several come in any order, never the same file
    described = asdict(prompt)
    del described["rows"]
    described |= {"length": len(prompt.rows), "width": prompt.rows.shape[1], "text": text_of(prompt)}
    facts.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [tensors, facts]


def write_text(prompt: ExportedPrompt, directory: Path) -> list[Path]:
    """Write prompt.txt: the nearest token of each row. For reading; as a prompt it scores differently."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "prompt.txt"
    path.write_text(text_of(prompt) + "\n", encoding="utf-8")
    return [path]


def write_peft(prompt: ExportedPrompt, directory: Path) -> list[Path]:
    """Write a PEFT prompt-tuning adapter. PEFT itself, which takes seconds to import, is not needed for that.

    Raises:
        RunDirectoryError: the prompt does not stand in front of the text.
    """
    from safetensors.numpy import save_file

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
    config.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    save_file({ROWS: np.ascontiguousarray(prompt.rows)}, weights, metadata={"format": "pt"})
    return [config, weights]


def read(directory: Path) -> ExportedPrompt:
    """Read a prompt back from prompt.safetensors and prompt.json.

    Raises:
        RunDirectoryError: they are not there.
    """
    from safetensors.numpy import load_file

    tensors, facts = directory / "prompt.safetensors", directory / "prompt.json"
    if not (tensors.is_file() and facts.is_file()):
        raise RunDirectoryError(
            f"a tuned prompt is prompt.safetensors with prompt.json, but {directory} lacks them; a run writes them when"
            " a trial has ended"
        )
    described = json.loads(facts.read_text(encoding="utf-8"))
    return ExportedPrompt(
        rows=load_file(tensors)[ROWS],
        layout=described["layout"],
        model=described["model"],
        trial_id=described["trial_id"],
        method=described["method"],
        nearest_tokens=[(token, cosine) for token, cosine in described["nearest_tokens"]],
        template=described["template"],
        scores=described["scores"],
    )


def text_of(prompt: ExportedPrompt) -> str:
    """Return the nearest tokens as one text."""
    return "".join(token for token, _ in prompt.nearest_tokens)


def exported(
    plan: TrialPlan, task: Task, rows: Array, nearest_tokens: list[tuple[str, float]], scores: dict[str, Any]
) -> ExportedPrompt:
    """Return a trial's prompt with all that is needed to use it elsewhere."""
    experiment = plan.experiment
    return ExportedPrompt(
        rows=rows,
        layout=prompt_spec(experiment.prompt, task).layout,
        model=getattr(experiment.oracle, "model", ANALYTIC),
        trial_id=plan.trial_id,
        method=plan.method,
        nearest_tokens=nearest_tokens,
        template={
            "cue": task.train[0].cue,
            "label_words": list(task.label_words),
            "example": task.train[0].text + task.train[0].cue,
        },
        scores={name: scores[name] for name in ("train_loss", "dev_loss", "dev_metric", "test_metric")},
    )
