"""Texts of the speed benchmarks: the quickstart's, and reviews made from a word list; no data files needed.

Every word of a review is one token of SmolLM2 and of the tokenizer of random_models.py, so its lengths are tokens.
"""

from typing import Literal, TypeAlias

from distributed_tuner.config.task import DemoTaskConfig
from distributed_tuner.seeds import generator
from distributed_tuner.tasks.demo import build_demo
from distributed_tuner.values import Batch, Example

TextsName: TypeAlias = Literal["SST-2", "150 tokens", "quickstart"]

CUE = " It was"
TAIL = " ."  # of a masked model's template, after the mask
CUE_TOKENS = 2
LABEL_WORDS = (" terrible", " great")
ROWS = 32
LENGTHS: dict[TextsName, tuple[int, ...]] = {
    # like SST-2: 32 reviews of 25 tokens on average, the longest 48, cue included
    "SST-2": (
        *(6, 8, 9, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24),
        *(25, 25, 26, 27, 28, 29, 30, 31, 32, 35, 38, 39, 42, 44, 46, 48),
    ),
    "150 tokens": tuple(range(134, 166)),
}
STRIDE = 13  # odd, so that the lengths come in a mixed order and none is left out

DETERMINER = "the a this its one".split()  # noqa: SIM905 - word lists read better as text
NOUN = """
    film movie story plot cast director script scene comedy drama music humor camera dialogue ending audience heart
""".split()  # noqa: SIM905
VERB = "is was feels seems looks sounds becomes remains".split()  # noqa: SIM905
ADVERB = "so too very quite rather almost never always not only".split()  # noqa: SIM905
LINK = "and but or with without of in for by about from as".split()  # noqa: SIM905
ADJECTIVE = (
    "bad dull slow sad cold silly boring tedious flat strange".split(),  # noqa: SIM905
    "good bright funny warm smart charming clever honest moving fresh".split(),  # noqa: SIM905
)


def batch(name: TextsName, rows: int = ROWS, cue: str = CUE, tail: str = "") -> Batch:
    """Return the labelled texts as a training batch; more rows than a review has lengths go round.

    The quickstart's messages are as many as it trains on, with their own cue.
    """
    if name == "quickstart":
        return build_demo(DemoTaskConfig(kind="demo", shots=8)).batch("train")
    lengths = LENGTHS[name]
    examples = tuple(
        Example(f"{name}-{i}", review(lengths[i * STRIDE % len(lengths)] - CUE_TOKENS, i % 2, i), cue, i % 2, tail)
        for i in range(rows)
    )
    return Batch(examples, LABEL_WORDS, "train")


def review(words: int, label: int, seed: int) -> str:
    """Return a review of so many words, cut off where they are used up."""
    stream = generator(("review", seed))
    pattern = (DETERMINER, ADJECTIVE[label], NOUN, VERB, ADVERB, ADJECTIVE[label], LINK)
    return " ".join(str(stream.choice(pattern[i % len(pattern)])) for i in range(words))


def vocabulary() -> list[str]:
    """Return every word that can occur in a prompt's batch, each once."""
    words = [*DETERMINER, *NOUN, *VERB, *ADVERB, *LINK, *ADJECTIVE[0], *ADJECTIVE[1], *CUE.split(), *TAIL.split()]
    return list(dict.fromkeys([*words, *(word.strip() for word in LABEL_WORDS)]))
