"""Throughput of generated answers: tokens a second of the oracle and of transformers' ``generate``, in turns.

    python -m benchmarks.decoding [--rounds N] [--threads N] [--model NAME] [--json FILE]

32 answers of 16 tokens, greedy, in float32. ``generate`` gets all rows as one batch, padded on the left with an
attention mask; both sides have the same model, each its own copy, and take turns. The texts must be the same. With one
thread, seconds are that thread's own, so that other processes on the machine hardly matter.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks import texts
from benchmarks.tables import table
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.local.loading import SMOLLM2, locate
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import Batch, Candidate, Decoding, Example, Point, PromptSpec, Request, Text

if TYPE_CHECKING:
    from torch import Tensor

TOKENS, TARGET = 16, 3.0
INSTRUCTION = "Name what the review is about."
SHOTS = 8
HEADINGS = (
    *("prompt", "tokens read", "oracle tokens/s", "generate tokens/s", "oracle / generate", "of the rounds"),
    "same texts",
)


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt in front of 32 texts."""

    name: str
    candidate: Candidate
    prompt: PromptSpec


@dataclass(frozen=True, slots=True)
class Found:
    """Tokens a second of both sides, round by round, and the tokens that each row's prompt and text have together."""

    name: str
    tokens_read: int
    oracle: tuple[float, ...]
    generate: tuple[float, ...]
    same: bool

    @property
    def ratios(self) -> list[float]:
        """The oracle's rate over that of ``generate``, round by round."""
        return [ours / theirs for ours, theirs in zip(self.oracle, self.generate, strict=True)]


class Generate:
    """transformers' ``generate`` on a batch that is padded on the left."""

    def __init__(self, name: str, tokens: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = locate(name)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokens = tokens

    def texts(self, rows: "list[Tensor]") -> list[str]:
        """Return what follows sequences of embeddings (T, D)."""
        import torch

        longest = max(map(len, rows))
        embeds = torch.stack([torch.nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            made = self._model.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                max_new_tokens=self._tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id,
            )
        return [text.strip() for text in self._tokenizer.batch_decode(made, skip_special_tokens=True)]


def examples() -> tuple[Example, ...]:
    """Return 32 texts of 25 tokens on average."""
    return texts.batch("SST-2").examples


def cases(width: int) -> list[Case]:
    """Return the prompts: 20 soft rows, an instruction, an instruction with demonstrations."""
    none = PromptSpec(0, "zeros", "", "prefix", "embedding")
    soft = PromptSpec(20, "text", INSTRUCTION, "prefix", "embedding")
    x = 0.1 * standard_normal(("decoding",), soft.length * width)
    shots = "\n".join(f"{example.text}{example.cue} about a film" for example in examples()[:SHOTS])
    return [
        Case("20 soft rows", Point(x), soft),
        Case("instruction", Text(INSTRUCTION), none),
        Case(f"instruction and {SHOTS} demonstrations", Text(f"{INSTRUCTION}\n{shots}"), none),
    ]


def measure(
    oracle: TransformersOracle, peer: Generate, case: Case, tokens: int, rounds: int, clock: Callable[[], float]
) -> Found:
    """Measure a case: both sides once to warm up, then in turns."""
    batch = Batch(examples(), (), "dev", decoding=Decoding(tokens, stop=()))
    request = Request((case.candidate,), batch, case.prompt)
    rows = _rows(oracle, case, batch)

    def ours() -> tuple[list[str], int]:
        answer = oracle.evaluate(request)
        return [text or "" for text in answer.texts[0]], answer.cost.output_tokens

    def theirs() -> tuple[list[str], int]:
        return peer.texts(rows), tokens * len(rows)

    (mine, _), (wanted, _) = ours(), theirs()
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        both: list[tuple[str, Callable[[], tuple[list[str], int]]]] = [("ours", ours), ("theirs", theirs)]
        for side, ask in both if number % 2 == 0 else both[::-1]:
            began = clock()
            _, made = ask()
            rates[side].append(made / (clock() - began))
    return Found(case.name, sum(map(len, rows)), tuple(rates["ours"]), tuple(rates["theirs"]), mine == wanted)


def _rows(oracle: TransformersOracle, case: Case, batch: Batch) -> "list[Tensor]":
    """Return what the model reads of each example (T, D)."""
    import torch

    encoder, codec = oracle._encoder, oracle.codec
    with torch.inference_mode():
        if isinstance(case.candidate, Text):
            head = encoder.prompt(case.candidate.text)
            lines = [[*head, *encoder.line(example, False)] for example in batch.examples]
            return [oracle._trunk.embed(line) for line in lines]
        rows = torch.from_numpy(codec.materialize(case.candidate, case.prompt))[None]
        return [codec.sequence(rows, example, case.prompt.layout)[0] for example in batch.examples]


def _row(one: Found) -> str:
    cells = [
        one.name,
        str(one.tokens_read),
        f"{statistics.median(one.oracle):.0f}",
        f"{statistics.median(one.generate):.0f}",
        f"{statistics.median(one.ratios):.2f}",
        f"{min(one.ratios):.2f} to {max(one.ratios):.2f}",
        "yes" if one.same else "NO",
    ]
    return f"| {' | '.join(cells)} |"


def main(
    rounds: Annotated[int, typer.Option(help="turns of each side")] = 5,
    threads: Annotated[int, typer.Option(help="of both sides")] = 1,
    tokens: Annotated[int, typer.Option(help="of an answer")] = TOKENS,
    model: Annotated[str, typer.Option(help="hub id or directory")] = SMOLLM2,
    linear: Annotated[str, typer.Option(help="how the oracle multiplies")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="write the numbers here")] = None,
) -> None:
    """Print the table, and the verdict on the target."""
    import torch

    config = TransformersOracleConfig.model_validate(
        {"model": model, "dtype": "float32", "device": "cpu", "threads": threads, "linear": linear}
    )
    oracle, peer = TransformersOracle(config), Generate(model, tokens)
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    found = []
    typer.echo("\n".join(table(HEADINGS, [])))
    for case in cases(oracle.info.width):
        found.append(measure(oracle, peer, case, tokens, rounds, clock))
        typer.echo(_row(found[-1]))
    for one in found:
        ratio = float(np.median(one.ratios))
        verdict = "met" if ratio >= TARGET else "missed"
        same = "the same texts" if one.same else "OTHER TEXTS"
        typer.echo(f"{one.name}: {ratio:.2f}x, at least {TARGET:g}x: {verdict}; {same}")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
