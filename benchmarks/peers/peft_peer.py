"""PEFT's prompt tuning, first order. ``python -m benchmarks.peers.peft_peer JOB SHIPPED``, where this project runs.

Unmodified: PromptTuningConfig started as the instruction, and AdamW on the label words' cross-entropy. The rows that
are best on dev are shipped. A step counts three forwards a row, an evaluation of dev one, as everywhere in this
project."""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Job, Row, Shipped, main
from benchmarks.peers.meter import Spent
from distributed_tuner.oracles.base import GRADIENT_QUERIES
from distributed_tuner.oracles.local.loading import resolve_dtype

ROWS = 16
LEARNING_RATE = 0.01  # near a tenth of the embeddings' standard deviation
EVAL_EVERY = 2  # steps


def lots(rows: tuple[Row, ...], tokenizer: Any) -> Iterator[tuple[Any, list[str]]]:
    """Yield token ids (B, T) of rows of one length, which need no padding, and their labels."""
    import torch

    by_length = defaultdict(list)
    for row in rows:
        ids = tokenizer(row.text + row.cue)["input_ids"]
        by_length[len(ids)].append((ids, row.answer))
    for lot in by_length.values():
        yield torch.tensor([ids for ids, _ in lot]), [answer for _, answer in lot]


class Trainer:
    """A model with a PEFT prompt, its label words, and what it has spent."""

    def __init__(self, job: Job) -> None:
        import peft
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(job.threads)
        torch.manual_seed(job.seed)
        self.tokenizer = AutoTokenizer.from_pretrained(job.weights)
        base = AutoModelForCausalLM.from_pretrained(job.weights, dtype=resolve_dtype("auto", "cpu"))
        config = peft.PromptTuningConfig(
            task_type=peft.TaskType.CAUSAL_LM,
            prompt_tuning_init=peft.PromptTuningInit.TEXT,
            prompt_tuning_init_text=job.instruction,
            num_virtual_tokens=ROWS,
            tokenizer_name_or_path=job.weights,
        )
        self.model = peft.get_peft_model(base, config)
        self.words = [word.strip() for word in job.label_words]
        self.ids = [self.tokenizer(word)["input_ids"][0] for word in job.label_words]
        self.spent = Spent()

    def passes(self, rows: tuple[Row, ...], learn: bool) -> float:
        """Return the mean loss on rows; with ``learn`` its gradient is added up as well."""
        import torch

        total, times = 0.0, GRADIENT_QUERIES if learn else 1
        for ids_B_T, answers in lots(rows, self.tokenizer):
            labels = torch.tensor([self.words.index(answer) for answer in answers])
            with torch.set_grad_enabled(learn):
                out = self.model(input_ids=ids_B_T, attention_mask=torch.ones_like(ids_B_T), logits_to_keep=1)
                logits = out.logits[:, -1, self.ids].float()
                loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") / len(rows)
                if learn:
                    torch.autograd.backward(loss)
            total += float(loss.detach())
            tokens = times * ids_B_T.shape[0] * (ids_B_T.shape[1] + ROWS)
            self.spent += Spent(requests=1, forwards=times * len(answers), prompt_tokens=tokens)
        return total

    def save(self, folder: Path) -> None:
        """Write the adapter."""
        self.model.save_pretrained(str(folder))


def search(job: Job) -> Shipped:
    """Take steps until the forwards or the seconds are spent."""
    import torch

    trainer = Trainer(job)
    optimizer = torch.optim.AdamW(
        [weight for weight in trainer.model.parameters() if weight.requires_grad], LEARNING_RATE, weight_decay=0.0
    )
    folder = Path(job.folder) / "adapter"
    began, best, step = time.monotonic(), math.inf, 0
    losses: list[tuple[int, float, float | None]] = []
    whole = GRADIENT_QUERIES * len(job.train) + len(job.dev)
    while trainer.spent.forwards + whole <= job.forwards and time.monotonic() - began < job.seconds:
        optimizer.zero_grad()
        train = trainer.passes(job.train, learn=True)
        optimizer.step()
        step += 1
        dev = trainer.passes(job.dev, learn=False) if step % EVAL_EVERY == 0 else None
        losses.append((step, train, dev))
        if dev is not None and dev < best:
            best = dev
            trainer.save(folder)
    if not math.isfinite(best):
        trainer.save(folder)
    ended = "forwards" if trainer.spent.forwards + whole > job.forwards else "seconds"
    told = {"steps": step, "losses": losses, "spent": asdict(trainer.spent)}
    return Shipped(adapter=str(folder), ended=ended, told=told)


if __name__ == "__main__":
    main(search)
