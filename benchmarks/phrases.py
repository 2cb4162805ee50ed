"""Queries with label phrases of up to four tokens beside queries with single label words: how many times as long.

    python -m benchmarks.phrases [--rounds N] [--json FILE] [--model NAME]

One oracle with one thread is asked by turns, in four wordings of the same four labels. Seconds are those of the
process on its processor, which others on the machine disturb less than they do the clock. "tokens" is the same ratio
of computed tokens: what phrases would cost if their probabilities were free.
"""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from benchmarks.tables import table
from benchmarks.texts import TextsName, batch
from distributed_tuner.config.oracle import TransformersOracleConfig
from distributed_tuner.oracles.local.loading import SMOLLM2
from distributed_tuner.oracles.local.model_facts import CountedModel
from distributed_tuner.oracles.local.oracle import TransformersOracle
from distributed_tuner.oracles.tokens.encoding import Encoder
from distributed_tuner.seeds import standard_normal
from distributed_tuner.values import LabelRule, Layout, Point, PromptSpec, Request

TARGET = 1.3
SINGLE = (" support", " billing", " delivery", " other")
PHRASES = (" technical support", " billing and payments", " delivery and returns", " something else that matters")
LONGEST = (" technical support and help", " billing and the payments", " delivery and other returns", PHRASES[-1])
"""Of 2, 3, 3 and 4 tokens of SmolLM2, and of 4 tokens each; no two begin alike."""
Wording: TypeAlias = tuple[str, tuple[str, ...], LabelRule]
WORDINGS: tuple[Wording, ...] = (
    ("2, 3, 3 and 4 tokens, sum", PHRASES, "sum"),
    ("2, 3, 3 and 4 tokens, mean", PHRASES, "mean"),
    ("4 tokens each, sum", LONGEST, "sum"),
)


@dataclass(frozen=True, slots=True)
class Case:
    """Texts, a layout with L prompt rows, and the candidates of a request."""

    texts: TextsName
    layout: Layout
    length: int
    candidates: int


CASES = (
    Case("SST-2", "prefix", 16, 4),
    Case("quickstart", "prefix", 16, 4),
    Case("150 tokens", "prefix", 16, 2),
    Case("quickstart", "suffix", 3, 4),
    Case("150 tokens", "suffix", 10, 4),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A wording in a case: seconds and tokens over those of single words. ``seconds``: of each round."""

    case: Case
    wording: str
    seconds: tuple[float, ...]
    tokens: float

    @property
    def median(self) -> float:
        """Median of the rounds' ratios."""
        return statistics.median(self.seconds)


def measure(
    oracle: TransformersOracle,
    encoder: Encoder,
    case: Case,
    rounds: int,
    single: Sequence[str] = SINGLE,
    wordings: Sequence[Wording] = WORDINGS,
) -> list[Measured]:
    """Return what each wording takes, by turns; a first round warms up."""
    spec = PromptSpec(case.length, "zeros", "", case.layout, "embedding")
    size = case.length * oracle.info.width
    points = tuple(Point(standard_normal(("phrases", i), size)) for i in range(case.candidates))
    asked = batch(case.texts)
    plain = Request(points, replace(asked, label_words=tuple(single)), spec)
    requests = {
        name: replace(plain, batch=replace(asked, label_words=words, label_rule=rule)) for name, words, rule in wordings
    }
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    for number in range(rounds + 1):
        base = _seconds(oracle, plain)
        for name, request in requests.items():
            taken = _seconds(oracle, request)
            if number:
                seconds[name].append(taken / base)
    few = encoder.computed_tokens(plain)
    return [
        Measured(case, name, tuple(seconds[name]), encoder.computed_tokens(request) / few)
        for name, request in requests.items()
    ]


def _seconds(oracle: TransformersOracle, request: Request) -> float:
    began = time.process_time()
    oracle.evaluate(request)
    return time.process_time() - began


def lines(measured: Sequence[Measured]) -> list[str]:
    """Return the table; the target is of phrases of up to four tokens."""
    rows = [
        (
            f"{one.case.texts}, {one.case.layout}, L = {one.case.length}",
            one.wording,
            f"{one.median:.2f}",
            f"{min(one.seconds):.2f} to {max(one.seconds):.2f}",
            f"{one.tokens:.2f}",
            "met" if one.median <= TARGET else "missed",
        )
        for one in measured
    ]
    return table(("texts", "label words", "x single words", "of the rounds", "tokens", f"at most {TARGET}"), rows)


def main(
    rounds: Annotated[int, typer.Option(help="Rounds in addition to one that warms up.")] = 3,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was measured here as well.")] = None,
    model: Annotated[str, typer.Option(help="A hub id, a local directory, or smollm2-135m.")] = SMOLLM2,
) -> None:
    """Print how many times as long queries with label phrases take."""
    config = TransformersOracleConfig(kind="transformers", model=model, device="cpu", threads=1)
    oracle, facts = TransformersOracle(config), CountedModel(config)
    encoder = Encoder(facts.tokenizer, facts.facts.context)
    measured: list[Measured] = []
    for case in CASES:
        measured += measure(oracle, encoder, case, rounds)
        shown = lines(measured)
        print("\n".join(shown if case is CASES[0] else shown[-len(WORDINGS) :]), flush=True)
    print(f"\n{oracle.info.model}, {oracle.info.dtype}, one thread, {rounds} rounds")
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in measured], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
